"""PyTorch's kernels: what they are given, and that each is right before it is trusted."""

from __future__ import annotations

import torch

from ropewalk.attention_ops import kernels


def test_the_memory_efficient_kernel_is_given_what_its_operators_take() -> None:
    """By their shapes alone, since no CPU has it: an odd number of tokens, grouped heads."""
    q, k = torch.empty(2, 4, 37, 16, device="meta"), torch.empty(2, 2, 37, 16, device="meta")
    out, lse = kernels.forward("efficient", q, k, k, True, 0.25)
    assert (out.shape, lse.shape) == (q.shape, q.shape[:3])
    grads = kernels.backward("efficient", out, q, k, k, out, lse, True, 0.25)
    assert [grad.shape for grad in grads] == [q.shape, k.shape, k.shape]


def test_a_kernel_is_looked_at_before_it_is_trusted(monkeypatch) -> None:
    device = torch.device("cpu")
    assert kernels.agrees("cpu", device, 64)
    plain = kernels.backward
    monkeypatch.setattr(kernels, "backward", lambda *arguments: plain(*arguments[:-1], 1.1 * arguments[-1]))
    assert not kernels.agrees("cpu", device, 64)
