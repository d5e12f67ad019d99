"""Causal attention within a reach, by kernels that know triangles and rectangles: no mask, and no work for what is out of reach.

in   queries that end where keys and values do; the reach: a query sees itself and the reach - 1 keys before it
out  the attention, and each query's log-sum-exp

A sequence is cut into stretches as long as the reach. Of its own stretch a query sees what comes before it, a triangle; of the stretch before
it sees the keys whose place there is behind its own: in reverse order of queries and keys a triangle again. Either is one call for all
stretches, which are laid out as rows of a batch. What is left at the end has a triangle of its own, and of the last stretch a triangle and the
rectangle that all of it sees. Results are merged as in block_attention.py. What is computed is what is seen, and not a score more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from ropewalk.attention_ops import choosing, kernels
from ropewalk.attention_ops.block_attention import head_groups, merge, put, rows_at, unfilled, unfilled_gradients


def in_place_of_mask(reach: int, device: torch.device) -> Tensor:
    """What a layer is given for a mask that says no more than how far it sees: a tensor of no elements, whose last size is that."""
    return torch.empty(1, 1, 0, reach, dtype=torch.bool, device=device)


def told_reach(mask: Tensor | None) -> int | None:
    """What `in_place_of_mask` tells; None of any other mask."""
    return mask.shape[-1] if mask is not None and mask.shape[-2] == 0 else None


def attend(
    q: Float[Tensor, "batch heads queries size"],
    k: Float[Tensor, "batch key_heads keys size"],
    v: Float[Tensor, "batch key_heads keys size"],
    reach: int,
    scaling: float | None,
    blocks: Int[Tensor, "n 6"] | None = None,
) -> Float[Tensor, "batch heads queries size"]:
    """Attention of the last positions of a sequence, or of all. blocks: its documents, as `sliding_attention` has them."""
    queries = q.shape[2]
    seen = min(k.shape[2], queries + reach - 1)
    q, k, v = choosing.in_autocast(pad(q, (0, 0, seen - queries, 0)), k[:, :, -seen:], v[:, :, -seen:])
    out, _ = sliding_attention(q, k, v, reach, q.shape[-1] ** -0.5 if scaling is None else scaling, blocks)
    return out[:, :, -queries:]


@dataclass(frozen=True)
class _Call:
    """One call of a kernel: `count` stretches that begin `step` tokens apart.

    query, queries: the first stretch's first, and how many of each. key, keys: likewise. flipped: in reverse order.
    """

    query: int
    queries: int
    key: int
    keys: int
    step: int
    count: int = 1
    causal: bool = True
    flipped: bool = False

    @property
    def own(self) -> bool:
        """Whether queries see their own stretch: the first call for all of its queries, and for all of its keys."""
        return self.query == self.key

    def at_queries(self, t: Tensor) -> Float[Tensor, "batch heads count queries *size"]:
        """The queries' places in a tensor [batch, heads, tokens, ...], as a view."""
        return self._at(t, self.query, self.queries)

    def at_keys(self, t: Tensor) -> Float[Tensor, "batch heads count keys *size"]:
        """The keys' places."""
        return self._at(t, self.key, self.keys)

    def _at(self, t: Tensor, first: int, size: int) -> Tensor:
        span = (self.count - 1) * self.step + size
        return t.narrow(2, first, span).unfold(2, size, self.step).movedim(-1, 3)

    def rows(self, places: Tensor) -> Tensor:
        """As a kernel is given them: stretches as rows of a batch."""
        rows = places.transpose(1, 2).flatten(0, 1)
        return rows.flip(2) if self.flipped else rows

    def places(self, rows: Tensor) -> Tensor:
        """The way back."""
        return (rows.flip(2) if self.flipped else rows).unflatten(0, (-1, self.count)).transpose(1, 2)


def _calls(tokens: int, reach: int) -> list[_Call]:
    """All calls; those of queries with their own stretch come first.

    >>> [(call.query, call.queries, call.key, call.keys, call.count) for call in _calls(11, 4)]
    [(0, 4, 0, 4, 2), (8, 3, 8, 3, 1), (4, 3, 1, 3, 1), (8, 2, 5, 2, 1), (8, 3, 7, 1, 1)]
    """
    reach = min(reach, tokens)
    count, rest = divmod(tokens, reach)
    end = count * reach
    calls = (
        _Call(0, reach, 0, reach, reach, count),
        _Call(end, rest, end, rest, reach),
        _Call(reach, reach - 1, 1, reach - 1, reach, count - 1, flipped=True),
        _Call(end, rest - 1, end - reach + 1, rest - 1, reach, flipped=True),
        _Call(end, rest, end - reach + rest, reach - rest, reach, causal=False),
    )
    return [call for call in calls if min(call.queries, call.keys, call.count) > 0]


# Written out, as in block_attention.py.
_SCHEMA = "(Tensor q, Tensor k, Tensor v, int reach, float scale, Tensor? blocks=None) -> (Tensor, Tensor)"
_BACKWARD_SCHEMA = "(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, int reach, float scale, Tensor? blocks=None) -> (Tensor, Tensor, Tensor)"


@torch.library.custom_op("ropewalk::sliding_attention", mutates_args=(), schema=_SCHEMA)
def sliding_attention(
    q: Tensor, k: Tensor, v: Tensor, reach: int, scale: float, blocks: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """softmax(scale q k^T) v over the keys within reach, and its log-sum-exp.

    q [batch, heads, tokens, size] and k, v [batch, key heads, tokens, size]; out like q, log-sum-exp [batch, heads, tokens] in
    float32. blocks: documents, each a sequence for itself, as one device has them in `blocks.causal_blocks`.
    """
    out, lse = unfilled(q)
    kernel = choosing.choose(q, varied=blocks is not None)
    for rows, tokens in _sequences(q, blocks):
        for heads, key_heads in head_groups(q, k):
            given = q[rows, heads, tokens], k[rows, key_heads, tokens], v[rows, key_heads, tokens]
            for call in _calls(given[0].shape[2], reach):
                _attend(call, kernel, given, (out[rows, heads, tokens], lse[rows, heads, tokens]), scale)
    return out, lse


def _sequences(q: Tensor, blocks: Tensor | None) -> list[tuple[slice, slice]]:
    """Rows and tokens of each sequence; those of `blocks` that are empty fill up."""
    if blocks is None:
        return [(slice(None), slice(None))]
    return [(rows_at(row), slice(first, last)) for row, first, last, *_ in blocks.tolist() if first < last]


# What a call is given and gives is a function's own, so that it is gone before the next call.
def _attend(
    call: _Call, kernel: kernels.Kernel, given: tuple[Tensor, ...], results: tuple[Tensor, Tensor], scale: float
) -> None:
    """Put a call's part into `results`, output and log-sum-exp. given: queries, keys and values."""
    q, k, v = given
    part, part_lse = kernels.forward(
        kernel,
        call.rows(call.at_queries(q)),
        call.rows(call.at_keys(k)),
        call.rows(call.at_keys(v)),
        call.causal,
        scale,
    )
    out, lse = map(call.at_queries, results)
    merge(out, lse, call.places(part), call.places(part_lse), first=call.own)


sliding_attention.register_fake(unfilled)


@torch.library.custom_op("ropewalk::sliding_attention_backward", mutates_args=(), schema=_BACKWARD_SCHEMA)
def _sliding_attention_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    reach: int,
    scale: float,
    blocks: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    sums = unfilled_gradients(grad, q, k, v)
    kernel = choosing.choose(q, varied=blocks is not None)
    for rows, tokens in _sequences(q, blocks):
        for heads, key_heads in head_groups(q, k):
            # Upstream, queries, keys, values, output and log-sum-exp; gradients of queries, keys and values.
            groups = (heads, heads, key_heads, key_heads, heads, heads)
            given = tuple(t[rows, of, tokens] for t, of in zip((grad, q, k, v, out, lse), groups, strict=True))
            totals = tuple(t[rows, of, tokens] for t, of in zip(sums, groups[1:4], strict=True))
            for call in _calls(given[0].shape[2], reach):
                _differentiate_call(call, kernel, given, totals, scale)
    return sums


def _differentiate_call(
    call: _Call, kernel: kernels.Kernel, given: tuple[Tensor, ...], sums: tuple[Tensor, ...], scale: float
) -> None:
    """Add a call's gradients to `sums`, of queries, keys and values. given: upstream, queries, keys, values, output, log-sum-exp."""
    grad, q, k, v, out, lse = given
    parts = kernels.backward(
        kernel,
        call.rows(call.at_queries(grad)),
        call.rows(call.at_queries(q)),
        call.rows(call.at_keys(k)),
        call.rows(call.at_keys(v)),
        call.rows(call.at_queries(out)),
        call.rows(call.at_queries(lse)),
        call.causal,
        scale,
    )
    totals = call.at_queries(sums[0]), call.at_keys(sums[1]), call.at_keys(sums[2])
    for total, part in zip(totals, parts, strict=True):
        # Two parts, as a rule, whose sum is made in float32 and rounded once, wherever it is put.
        put(total, call.places(part), call.own)


_sliding_attention_backward.register_fake(unfilled_gradients)


def _set_up(ctx: Any, inputs: Any, output: Any) -> None:
    q, k, v, ctx.reach, ctx.scale, *blocks = inputs
    ctx.save_for_backward(q, k, v, *output, *(blocks or [None]))


def _differentiate(ctx: Any, grad: Tensor, _: Any) -> Any:
    *given, blocks = ctx.saved_tensors
    return *_sliding_attention_backward(grad, *given, ctx.reach, ctx.scale, blocks), None, None, None


sliding_attention.register_autograd(_differentiate, setup_context=_set_up)
