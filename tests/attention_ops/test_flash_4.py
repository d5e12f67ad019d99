"""FlashAttention-4 in the place of PyTorch's flash kernel: switched on where it is right, and given back."""

from __future__ import annotations

import contextlib
import sys
import types
from typing import Any

import pytest
import torch

from ropewalk.attention_ops import choosing, flash_4, kernels


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
    monkeypatch.setattr(flash_4, "_is_here", lambda device, size: True)
    monkeypatch.setattr(flash_4, "_trimmed_results", contextlib.nullcontext)
    monkeypatch.setattr(torch.nn.attention, "activate_flash_attention_impl", active.append, raising=False)
    monkeypatch.setattr(torch.nn.attention, "restore_flash_attention_impl", active.clear, raising=False)
    current = lambda: active[-1] if active else None  # noqa: E731
    monkeypatch.setattr(torch.nn.attention, "current_flash_attention_impl", current, raising=False)
    flash_4.aligned.cache_clear()
    cudnn, q = torch.backends.cuda.cudnn_sdp_enabled(), torch.zeros(1, 1, 1, 64)
    assert choosing.lower_right("flash", q)
    with flash_4.fastest(device, 64) as name, flash_4.fastest(device, 64) as again:
        assert name == again == "FlashAttention-4" and active == ["FA4"]
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        assert choosing.lower_right("flash", q) == (not wrong)
    assert choosing.lower_right("flash", q) and torch.backends.cuda.cudnn_sdp_enabled() == cudnn
    flash_4.aligned.cache_clear()


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
    with flash_4._trimmed_results(), flash_4._trimmed_results():  # trimming twice is trimming once
        assert interface._flash_attn_fwd(1, scale=2) == (1, 2)
        assert interface._flash_attn_bwd() == (1, 2, 3)
        assert interface._flash_attn_fwd.cache is _flash_attn_fwd.cache == {1: 2}
    assert interface._flash_attn_fwd is _flash_attn_fwd


def test_without_flash_attention_4_pytorch_picks() -> None:
    with flash_4.fastest(torch.device("cpu"), 128) as name:
        assert name == "as PyTorch picks"
