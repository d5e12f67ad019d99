"""Which of PyTorch's kernels is taken for what."""

from __future__ import annotations

import pytest
import torch

from ropewalk import testing
from ropewalk.attention_ops import choosing
from ropewalk.attention_ops.transformers import attend_in_blocks
from ropewalk.model.torch_internals import FakeTensorMode


@pytest.mark.parametrize(
    ("capability", "dtype", "kernel"),
    [
        ((9, 0), torch.bfloat16, "flash"),
        ((9, 0), torch.float32, "efficient"),
        ((9, 0), torch.float64, "plain"),
        ((7, 5), torch.float32, "efficient"),
        ((7, 0), torch.float16, "plain"),
        ((7, 5), torch.bfloat16, "plain"),  # which no fused kernel takes there
    ],
)
def test_the_kernel_is_one_that_the_gpu_has(monkeypatch, capability, dtype: torch.dtype, kernel: str) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    with FakeTensorMode():  # a GPU's tensor without a GPU
        q = torch.empty(1, 1, 1, 64, dtype=dtype, device="cuda")
    for right in (True, False):
        monkeypatch.setattr(choosing, "_is_efficient_right", lambda *_, right=right: right)
        assert choosing.choose(q, varied=True) == (kernel if right or kernel != "efficient" else "plain")


def test_keys_that_are_repeated_are_the_same_attention(monkeypatch) -> None:
    model, ids = testing.tiny("qwen3").train(), torch.arange(48)[None]

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        model(ids, labels=ids).loss.backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    expected, given = gradients(), []
    attend_in_blocks(model)
    monkeypatch.setattr(choosing, "wants_repeated", lambda q, k: given.append((q.shape[1], k.shape[1])) or True)
    for ours, theirs in zip(gradients(), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert given == [(4, 2)] * 2
