"""Causal attention over documents and over devices, block by block: the operator.

in   queries, keys and values of this device's part of the sequence; who attends to what, as blocks (blocks.py)
out  the attention of the whole sequence, for this part

Each block is one call of a fused kernel; their results are merged by their log-sum-exp, and the backward pass of each is the kernel's own, given the merged
result. With context parallelism the keys and values of all devices are gathered first (and again in the backward pass, so that only this device's
are kept), and their gradients are summed back to where they came from: collectives.py.

The whole is one operator, so that selective checkpointing and torch.compile see one thing; transformers.py registers it with
transformers' attention interface, so that no model's forward changes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ropewalk.attention_ops import choosing, collectives, kernels
from ropewalk.attention_ops.blocks import by_keys, calls_of
from ropewalk.settings.budget import HEADS_AT_ONCE


def put(total: Tensor, part: Tensor, first: bool) -> None:
    """Add a call's part to a sum, a view of the whole's; first: nothing is there yet."""
    if first:
        total.copy_(part)
    else:
        total += part


def rows_at(row: int) -> slice:
    """Of a block's row."""
    return slice(None) if row < 0 else slice(row, row + 1)


#: Elements of a tensor up to which a kernel may reckon with indexes of 32 bits.
INDEXED = 2**31 - 1


def head_groups(q: Tensor, keys: Tensor) -> list[tuple[slice, slice]]:
    """Heads of queries, and of the keys that they attend to, which a kernel is given together: all, unless these are more than `HEADS_AT_ONCE` elements.

    >>> head_groups(torch.empty(1, 4, 8, 2, device="meta"), torch.empty(1, 2, 8, 2, device="meta"))
    [(slice(0, 4, None), slice(0, 2, None))]
    """
    heads, key_heads = q.shape[1], keys.shape[1]
    elements = max(q.numel(), keys.numel() // key_heads * heads)  # keys are repeated for each of their queries' heads
    groups = next((n for n in range(1, key_heads) if key_heads % n == 0 and elements // n <= HEADS_AT_ONCE), key_heads)
    size, key_size = heads // groups, key_heads // groups
    return [(slice(n * size, (n + 1) * size), slice(n * key_size, (n + 1) * key_size)) for n in range(groups)]


# Schemas are written out: PyTorch would look the annotations up by name, which a type checker's wrapper has not.
_SCHEMA = "(Tensor q, Tensor k, Tensor v, Tensor blocks, str group, bool varied, float scale) -> (Tensor, Tensor)"
_BACKWARD_SCHEMA = (
    "(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, Tensor blocks, str group, bool varied, float scale)"
    " -> (Tensor, Tensor, Tensor)"
)


@torch.library.custom_op("ropewalk::attention", mutates_args=(), schema=_SCHEMA)
def attention(
    q: Tensor, k: Tensor, v: Tensor, blocks: Tensor, group: str, varied: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """softmax(scale q k^T) v over blocks, and its log-sum-exp.

    q [batch, heads, tokens, size] and k, v [batch, key heads, tokens, size] of this device; out like q, log-sum-exp
    [batch, heads, tokens] in float32.
    """
    keys, values = collectives.gather_sequence(k, v, group)
    out = torch.empty_like(q)
    lse = q.new_full(q.shape[:3], -torch.inf, dtype=torch.float32)
    kernel = choosing.choose(q, varied)
    calls = calls_of(blocks, lower_right=choosing.lower_right(kernel, q))
    for heads, key_heads in head_groups(q, keys):
        given = q[:, heads], keys[:, key_heads], values[:, key_heads]
        if heads.stop - heads.start < q.shape[1]:
            given = tuple(each.contiguous() for each in given)  # or its strides would still be those of the whole
        _attend(kernel, calls, given, (out[:, heads], lse[:, heads]), scale)
    return out, lse


def _attend(
    kernel: kernels.Kernel,
    calls: list[list[int]],
    given: tuple[Tensor, ...],
    results: tuple[Tensor, Tensor],
    scale: float,
) -> None:
    """Fill `results`, output and log-sum-exp (minus infinity until now), call by call. given: queries, keys and values."""
    (q, keys, values), (out, lse), begun = given, results, set()
    for row, q0, q1, k0, k1, causal in calls:
        rows, queries = rows_at(row), slice(q0, q1)
        part, part_lse = kernels.forward(
            kernel, q[rows, :, queries], keys[rows, :, k0:k1], values[rows, :, k0:k1], bool(causal), scale
        )
        merge(out[rows, :, queries], lse[rows, :, queries], part, part_lse, first=(row, q0) not in begun)
        begun.add((row, q0))


def merge(out: Tensor, lse: Tensor, part: Tensor, part_lse: Tensor, *, first: bool) -> None:
    """Put a call's output and log-sum-exp into views of the whole's, which are of other keys until now; first: of none."""
    if first:
        out.copy_(part)
        lse.copy_(part_lse)
        return
    # A softmax over two sets of keys is the two softmaxes, weighted by their shares of the sum of exponentials: float32, rounded once.
    merged = torch.logaddexp(lse, part_lse)
    torch.add(out * (lse - merged).exp()[..., None], part * (part_lse - merged).exp()[..., None], out=out)
    lse.copy_(merged)


@attention.register_fake
def unfilled(q: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """Room for the output and the log-sum-exp of attention of these queries."""
    return torch.empty_like(q), q.new_empty(q.shape[:3], dtype=torch.float32)


@torch.library.custom_op("ropewalk::attention_backward", mutates_args=(), schema=_BACKWARD_SCHEMA)
def _attention_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    blocks: Tensor,
    group: str,
    varied: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    keys, values = collectives.gather_sequence(k, v, group)
    kernel = choosing.choose(q, varied)
    calls = calls_of(blocks, lower_right=choosing.lower_right(kernel, q))
    order, gaps = by_keys(calls, *keys.shape[::2])
    # Where several calls add to one query or key, in float32, so that the sum is rounded once.
    several = len({(call[0], call[1]) for call, _ in order}) < len(order)
    dq = torch.empty(q.shape, dtype=torch.float32 if several else q.dtype, device=q.device)
    dtype = k.dtype if all(first for _, first in order) else torch.float32
    dk, dv = (torch.empty(keys.shape, dtype=dtype, device=k.device) for _ in range(2))
    for row, first, last in gaps:
        dk[rows_at(row), :, first:last] = 0
        dv[rows_at(row), :, first:last] = 0
    for heads, key_heads in head_groups(q, keys):
        _differentiate_calls(
            kernel,
            order,
            (grad[:, heads], q[:, heads], keys[:, key_heads], values[:, key_heads], out[:, heads], lse[:, heads]),
            (dq[:, heads], dk[:, key_heads], dv[:, key_heads]),
            scale,
        )
    del keys, values  # before as much is sent, and received
    dq = dq.to(q.dtype)
    if not group:
        return dq, dk.to(k.dtype), dv.to(v.dtype)
    parts = collectives.by_owner(dk, dv, k.dtype, group)
    del dk, dv
    return dq, *collectives.summed(parts, group)


def _differentiate_calls(
    kernel: kernels.Kernel,
    order: list[tuple[list[int], bool]],
    given: tuple[Tensor, ...],
    sums: tuple[Tensor, Tensor, Tensor],
    scale: float,
) -> None:
    """Add each call's gradients to `sums`, of queries, keys and values. given: upstream, queries, keys, values, output, log-sum-exp. order: see `by_keys`."""
    grad, q, keys, values, out, lse = given
    begun = set()
    for (row, q0, q1, k0, k1, causal), first in order:
        rows, queries, their_keys = rows_at(row), slice(q0, q1), slice(k0, k1)
        parts = kernels.backward(
            kernel,
            grad[rows, :, queries],
            q[rows, :, queries],
            keys[rows, :, their_keys],
            values[rows, :, their_keys],
            out[rows, :, queries],
            lse[rows, :, queries],
            bool(causal),
            scale,
        )
        put(sums[0][rows, :, queries], parts[0], (row, q0) not in begun)
        put(sums[1][rows, :, their_keys], parts[1], first)
        put(sums[2][rows, :, their_keys], parts[2], first)
        begun.add((row, q0))


@_attention_backward.register_fake
def unfilled_gradients(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Room for those of queries, keys and values, contiguous."""
    dq, dk, dv = (torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, k, v))
    return dq, dk, dv


def _set_up(ctx: Any, inputs: Any, output: Any) -> None:
    q, k, v, blocks, ctx.group, ctx.varied, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, *output, blocks)


def _differentiate(ctx: Any, grad: Tensor, _: Any) -> Any:
    q, k, v, out, lse, blocks = ctx.saved_tensors
    grads = _attention_backward(grad, q, k, v, out, lse, blocks, ctx.group, ctx.varied, ctx.scale)
    return *grads, None, None, None, None


attention.register_autograd(_differentiate, setup_context=_set_up)
