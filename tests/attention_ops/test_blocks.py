"""Attention in blocks is attention under a dense mask: what each block sees, which calls it takes, how windows are shared, and that no gradient is left unfilled."""

from __future__ import annotations

import random
import unittest.mock

import pytest
import torch

from ropewalk.attention_ops import block_attention, choosing, kernels
from ropewalk.attention_ops import blocks as attention_blocks


def masked(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
    """The same blocks as a dense mask, by plain torch: for one device, where queries and keys count alike."""
    mask = torch.zeros(q.shape[0], q.shape[2], k.shape[2], dtype=torch.bool)
    for row, q0, q1, k0, k1, causal in blocks.tolist():
        block = torch.ones(q1 - q0, k1 - k0, dtype=torch.bool)
        mask[slice(None) if row < 0 else row, q0:q1, k0:k1] |= block.tril() if causal else block
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None], scale=0.3)


@pytest.mark.parametrize("at_once", [2**29, 2000])
@pytest.mark.parametrize("kernel", ["cpu", "plain"])
@pytest.mark.parametrize("heads, key_heads, size", [(4, 4, 16), (6, 2, 8), (3, 1, 24)])
@pytest.mark.parametrize("device, devices", [(0, 1), (0, 2), (1, 2), (2, 3)])
def test_attention_in_blocks_is_masked_attention(
    kernel: str, heads: int, key_heads: int, size: int, device: int, devices: int, at_once: int, monkeypatch
) -> None:
    """Every kernel, grouped heads, each device's share of the queries against all keys, and few heads at a time."""
    monkeypatch.setattr(choosing, "choose", lambda q, varied: kernel)
    monkeypatch.setattr(block_attention, "HEADS_AT_ONCE", at_once)
    tokens = 36
    borders = [[0, 7, 19], [0, 18]]
    generator = torch.Generator().manual_seed(size)
    blocks = attention_blocks.causal_blocks(borders, device, devices, tokens)
    queries = sum(last - first for first, last in attention_blocks.stretches(device, devices, tokens))
    shapes = ((2, heads, queries, size), (2, key_heads, tokens, size), (2, key_heads, tokens, size))
    leaves = [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]
    expected = masked(*leaves, blocks)
    upstream = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    truth = [expected.detach(), *torch.autograd.grad(expected, leaves, upstream)]
    single = [leaf.detach().float().requires_grad_() for leaf in leaves]
    out, _ = block_attention.attention(*single, blocks, "", False, 0.3)
    ours = [out.detach(), *torch.autograd.grad(out, single, upstream.float())]
    for value, expected_value in zip(ours, truth, strict=True):
        torch.testing.assert_close(value.double(), expected_value, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize(
    "queries, keys, groups",
    [((32, 2**18), (8, 2**20), 8), ((32, 2**19), (32, 2**19), 4), ((32, 2**17), (32, 2**17), 1)],
)
def test_no_kernel_is_given_more_than_it_can_count(
    queries: tuple[int, int], keys: tuple[int, int], groups: int
) -> None:
    """Qwen3-8B's million tokens on four devices, LLaMA 7B's half a million on one; heads and tokens."""
    q, k = (torch.empty(1, heads, tokens, 128, device="meta") for heads, tokens in (queries, keys))
    parts = block_attention.head_groups(q, k)
    assert len(parts) == groups
    for part, key_part in parts:
        heads = part.stop - part.start
        assert heads // (key_part.stop - key_part.start) == queries[0] // keys[0]
        assert heads * 128 * max(queries[1], keys[1]) <= 2**29
    assert [part.start for part, _ in parts[1:]] == [part.stop for part, _ in parts[:-1]]


@pytest.mark.parametrize("kernel, calls", [("cpu", (2 + 1 + 2) + (2 + 1)), ("plain", 3 + 2)])
def test_a_rectangle_and_its_triangle_are_one_call_where_the_mask_is_aligned_so(
    kernel: str, calls: int, monkeypatch
) -> None:
    """The second of two devices, whose stretches 9 to 18 and 18 to 27 begin and end in the middle of documents."""
    monkeypatch.setattr(choosing, "choose", lambda q, varied: kernel)
    blocks = attention_blocks.causal_blocks([[0, 12], [0, 18]], 1, 2, 36)
    counts = {}
    for name in ("forward", "backward"):
        function = getattr(kernels, name)
        counted = unittest.mock.Mock(side_effect=function)
        monkeypatch.setattr(kernels, name, counted)
        counts[name] = counted
    q, k, v = (torch.randn(2, 2, tokens, 8, requires_grad=True) for tokens in (18, 36, 36))
    out, _ = block_attention.attention(q, k, v, attention_blocks.padded(blocks), "", True, 0.3)
    out.sum().backward()
    assert [counted.call_count for counted in counts.values()] == [calls, calls]


@pytest.mark.parametrize("queries", [1, 5, 12])
def test_a_mask_over_more_keys_than_queries_is_aligned_at_the_bottom_right(queries: int) -> None:
    """Against a mask and PyTorch in float64: the last query sees all keys."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 2, queries, 8), (2, 2, 12, 8), (2, 2, 12, 8))
    exact = [torch.randn(s, generator=generator, dtype=torch.float64, requires_grad=True) for s in shapes]
    mask = torch.ones(queries, 12, dtype=torch.bool).tril(12 - queries)
    expected = torch.nn.functional.scaled_dot_product_attention(*exact, attn_mask=mask, scale=0.3)
    upstream = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    truth = [expected, *torch.autograd.grad(expected, exact, upstream)]
    q, k, v = (t.detach().float() for t in exact)
    out, sums = kernels.forward("plain", q, k, v, True, 0.3)
    ours = [out, *kernels.backward("plain", upstream.float(), q, k, v, out, sums, True, 0.3)]
    for value, expected_value in zip(ours, truth, strict=True):
        torch.testing.assert_close(value.double(), expected_value, rtol=1e-4, atol=2e-6)


def test_gradients_of_keys_need_no_zeros_to_add_to() -> None:
    """Any ranges, nested, overlapping or apart: memory that nobody filled is NaN, and the sum is that of one filled with zeros."""
    generator = random.Random(0)
    for _ in range(200):
        rows = generator.choice([[-1], [0, 1]])
        calls = []
        for number in range(generator.randrange(6)):
            k0 = generator.randrange(12)
            calls.append([generator.choice(rows), number, number + 1, k0, generator.randrange(k0 + 1, 13), 0])
        expected = torch.zeros(2, 12)
        for row, q0, _, k0, k1, _ in calls:
            expected[block_attention.rows_at(row), k0:k1] += 2.0**q0
        order, gaps = attention_blocks.by_keys(calls, 2, 12)
        gathered = torch.full((2, 12), torch.nan)
        for row, begin, end in gaps:
            gathered[block_attention.rows_at(row), begin:end] = 0
        for (row, q0, _, k0, k1, _), first in order:
            part = torch.full((2 if row < 0 else 1, k1 - k0), 2.0**q0)
            block_attention.put(gathered[block_attention.rows_at(row), k0:k1], part, first)
        assert torch.equal(gathered, expected), calls


@pytest.mark.parametrize("device, devices", [(0, 1), (0, 2), (1, 2)])
@pytest.mark.parametrize("kernel", ["cpu", "plain"])
def test_no_gradient_comes_from_memory_that_nobody_filled(kernel: str, device: int, devices: int, monkeypatch) -> None:
    """PyTorch fills it with NaN here. Keys of later devices get zeros, and a sum in float32 is rounded once to the model's dtype."""
    monkeypatch.setattr(choosing, "choose", lambda q, varied: kernel)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    generator = torch.Generator().manual_seed(0)
    blocks = attention_blocks.causal_blocks([[0, 7, 19], [0, 18]], device, devices, 36)
    queries = 36 // devices
    leaves = [
        torch.randn(2, 2, tokens, 16, generator=generator).bfloat16().requires_grad_() for tokens in (queries, 36, 36)
    ]
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    expected = masked(*exact, blocks)
    upstream = torch.randn(expected.shape, generator=generator).bfloat16()
    torch.use_deterministic_algorithms(True)
    try:
        out, _ = block_attention.attention(*leaves, blocks, "", False, 0.3)
        ours = torch.autograd.grad(out, leaves, upstream)
    finally:
        torch.use_deterministic_algorithms(False)
    truth = torch.autograd.grad(expected, exact, upstream.double())
    for value, expected_value in zip(ours, truth, strict=True):
        assert value.dtype == torch.bfloat16
        # bfloat16 operands: 2e-3 to 6e-3 of the norm.
        assert float((value.double() - expected_value).norm() / expected_value.norm()) < 1.5e-2
    if (
        kernel == "plain"
    ):  # whose parts are float32: the exact gradient rounded once, but for float32's own errors near ties
        assert float((ours[2] == truth[2].bfloat16()).double().mean()) > 0.99


@pytest.mark.parametrize("devices", [1, 2, 3, 8])
def test_devices_share_a_window_evenly_and_wholly(devices: int) -> None:
    tokens = 48
    parts = [attention_blocks.stretches(device, devices, tokens) for device in range(devices)]
    assert sorted(t for part in parts for first, last in part for t in range(first, last)) == list(range(tokens))
    work = [
        sum(
            (q1 - q0) * (k1 - k0) if not causal else (q1 - q0) * (q1 - q0 + 1) // 2
            for _, q0, q1, k0, k1, causal in attention_blocks.causal_blocks([[0]], device, devices, tokens).tolist()
        )
        for device in range(devices)
    ]
    assert sum(work) == tokens * (tokens + 1) // 2
    assert len(set(work)) == 1
