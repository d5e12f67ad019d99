"""Which of PyTorch's kernels is taken for what, and that each is right before it is trusted."""

from __future__ import annotations

import contextlib
import sys
import types
from typing import Any

import pytest
import torch

from ropewalk import testing
from ropewalk.attention_ops import kernels
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
        monkeypatch.setattr(kernels, "_is_efficient_right", lambda *_, right=right: right)
        assert kernels.choose(q, varied=True) == (kernel if right or kernel != "efficient" else "plain")


def test_the_memory_efficient_kernel_is_given_what_its_operators_take() -> None:
    """By their shapes alone, since no CPU has it: an odd number of tokens, grouped heads."""
    q, k = torch.empty(2, 4, 37, 16, device="meta"), torch.empty(2, 2, 37, 16, device="meta")
    out, lse = kernels.forward("efficient", q, k, k, True, 0.25)
    assert (out.shape, lse.shape) == (q.shape, q.shape[:3])
    grads = kernels.backward("efficient", out, q, k, k, out, lse, True, 0.25)
    assert [grad.shape for grad in grads] == [q.shape, k.shape, k.shape]


def test_keys_that_are_repeated_are_the_same_attention(monkeypatch) -> None:
    model, ids = testing.tiny("qwen3").train(), torch.arange(48)[None]

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        model(ids, labels=ids).loss.backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    expected, given = gradients(), []
    attend_in_blocks(model)
    monkeypatch.setattr(kernels, "wants_repeated", lambda q, k: given.append((q.shape[1], k.shape[1])) or True)
    for ours, theirs in zip(gradients(), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert given == [(4, 2)] * 2


def test_a_kernel_is_looked_at_before_it_is_trusted(monkeypatch) -> None:
    device = torch.device("cpu")
    assert kernels.agrees("cpu", device, 64)
    plain = kernels.backward
    monkeypatch.setattr(kernels, "backward", lambda *arguments: plain(*arguments[:-1], 1.1 * arguments[-1]))
    assert not kernels.agrees("cpu", device, 64)


@pytest.mark.parametrize("wrong", [(), ("forward",), ("backward",), ("forward", "backward")])
def test_a_kernel_that_aligns_its_mask_at_the_top_left_is_used_for_squares_alone(
    wrong: tuple[str, ...], monkeypatch
) -> None:
    """A stand-in for a flash kernel; one that is right with as many keys as queries, and with fewer queries is not."""
    passes = {name: getattr(kernels, name) for name in ("forward", "backward")}

    def forward(_: str, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, ...]:
        seen = q.shape[2] if "forward" in wrong else k.shape[2]
        return passes["forward"]("plain", q, k[:, :, :seen], v[:, :, :seen], *rest)

    def backward(
        _: str, grad: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *rest: Any
    ) -> tuple[torch.Tensor, ...]:
        seen = q.shape[2] if "backward" in wrong else k.shape[2]
        dq, dk, dv = passes["backward"]("plain", grad, q, k[:, :, :seen], v[:, :, :seen], *rest)
        return dq, *(torch.nn.functional.pad(t, (0, 0, 0, k.shape[2] - seen)) for t in (dk, dv))

    monkeypatch.setattr(kernels, "forward", forward)
    monkeypatch.setattr(kernels, "backward", backward)
    device = torch.device("cpu")
    assert kernels.agrees("flash", device, 64)
    assert kernels.aligns("flash", device, 64) == (not wrong)
    active: list[str] = []
    monkeypatch.setattr(kernels, "_has_flash_4", lambda device, size: True)
    monkeypatch.setattr(kernels, "_trimmed_results", contextlib.nullcontext)
    monkeypatch.setattr(torch.nn.attention, "activate_flash_attention_impl", active.append, raising=False)
    monkeypatch.setattr(torch.nn.attention, "restore_flash_attention_impl", active.clear, raising=False)
    current = lambda: active[-1] if active else None  # noqa: E731
    monkeypatch.setattr(torch.nn.attention, "current_flash_attention_impl", current, raising=False)
    kernels._flash_4_aligns.cache_clear()
    cudnn, q = torch.backends.cuda.cudnn_sdp_enabled(), torch.zeros(1, 1, 1, 64)
    assert kernels.lower_right("flash", q)
    with kernels.fastest(device, 64) as name, kernels.fastest(device, 64) as again:
        assert name == again == "FlashAttention-4" and active == ["FA4"]
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        assert kernels.lower_right("flash", q) == (not wrong)
    assert kernels.lower_right("flash", q) and torch.backends.cuda.cudnn_sdp_enabled() == cudnn
    kernels._flash_4_aligns.cache_clear()


def test_results_that_pytorch_does_not_take_are_cut_off(monkeypatch) -> None:
    """Newer FlashAttention-4 gives more results than PyTorch's switch takes, and keeps a cache on its functions."""
    interface: Any = types.ModuleType("flash_attn.cute.interface")

    def _flash_attn_fwd(x: int, *, scale: int) -> tuple[int, ...]:
        _flash_attn_fwd.cache[x] = scale
        return (x, scale, 3, 4)

    _flash_attn_fwd.cache = {}
    interface._flash_attn_fwd, interface._flash_attn_bwd = _flash_attn_fwd, lambda: (1, 2, 3)
    for name in ("flash_attn", "flash_attn.cute"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "flash_attn.cute.interface", interface)
    with kernels._trimmed_results(), kernels._trimmed_results():  # trimming twice is trimming once
        assert interface._flash_attn_fwd(1, scale=2) == (1, 2)
        assert interface._flash_attn_bwd() == (1, 2, 3)
        assert interface._flash_attn_fwd.cache is _flash_attn_fwd.cache == {1: 2}
    assert interface._flash_attn_fwd is _flash_attn_fwd


def test_without_flash_attention_4_pytorch_picks() -> None:
    with kernels.fastest(torch.device("cpu"), 128) as name:
        assert name == "as PyTorch picks"
