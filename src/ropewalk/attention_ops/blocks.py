"""Who attends to what over documents and over devices, as blocks that any fused kernel can do.

in   where documents begin, which part of a sequence is this device's
out  blocks: rectangles and triangles; and the calls of a kernel that they come to (block_attention.py makes them)

Packed documents and sequences split over devices leave masks that fused kernels do not take. But each such mask is a handful of
rectangles and triangles: a stretch of queries against an earlier stretch of keys, or against its own. Where a kernel's causal mask is aligned at
the bottom right, a rectangle and the triangle after it are one call.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from ropewalk.attention_ops.collectives import stretches

NAME = "ropewalk"


@dataclass(frozen=True)
class Attend:
    """Who attends to what, beyond plain causal attention.

    blocks: [n, 6] on the CPU: row (-1: every row), first and last + 1 query of this device, first and last + 1 key of
        the whole sequence, whether causal. Either all rows are -1 or none is, and two blocks have the same queries or none in
        common. None: plain causal attention, whatever the positions say.
    group: name of the process group whose devices share each sequence; empty for one device.
    varied: whether blocks differ from batch to batch, so that kernels planned for a shape would be planned anew each time.
    """

    blocks: Int[Tensor, "n 6"] | None = None
    group: str = ""
    varied: bool = False


def causal_blocks(borders: list[list[int]], device: int, devices: int, tokens: int) -> Int[Tensor, "n 6"]:
    """The blocks of causal attention within documents, for one device.

    borders: a list of ascending positions a row, at which documents begin; the first is 0. One row stands for all when they
        are all the same.

    >>> causal_blocks([[0, 3]], 0, 1, 8).tolist()  # documents of 3 and 5 tokens
    [[-1, 0, 3, 0, 3, 1], [-1, 3, 8, 3, 8, 1]]
    >>> causal_blocks([[0]], 0, 2, 8).tolist()  # two stretches: a triangle; a rectangle and a triangle
    [[-1, 0, 2, 0, 2, 1], [-1, 2, 4, 0, 6, 0], [-1, 2, 4, 6, 8, 1]]
    """
    blocks = []
    same = all(row == borders[0] for row in borders)
    for number, starts in enumerate(borders[:1] if same else borders):
        documents = list(zip(starts, [*starts[1:], tokens], strict=True))
        offset = 0
        for begin, end in stretches(device, devices, tokens):
            for first, last in documents:
                q0, q1 = max(begin, first), min(end, last)
                if q0 >= q1:
                    continue
                queries = (-1 if same else number, q0 - begin + offset, q1 - begin + offset)
                if q0 > first:
                    blocks.append((*queries, first, q0, 0))
                blocks.append((*queries, q0, q1, 1))
            offset += end - begin
    return torch.tensor(blocks, dtype=torch.int64)


def padded(blocks: Int[Tensor, "n 6"]) -> Int[Tensor, "m 6"]:
    """With empty blocks up to a power of two, at least 64: what is compiled for one batch then serves the others."""
    size = max(64, 1 << (len(blocks) - 1).bit_length())
    return torch.cat([blocks, blocks.new_zeros(size - len(blocks), 6)])


def calls_of(blocks: Int[Tensor, "n 6"], *, lower_right: bool) -> list[list[int]]:
    """The blocks that are not empty, one call of the kernel each; lower_right: see `choosing.lower_right`.

    >>> blocks = torch.tensor([[-1, 2, 4, 0, 6, 0], [-1, 2, 4, 6, 8, 1], [0, 0, 0, 0, 0, 0]])
    >>> calls_of(blocks, lower_right=False), calls_of(blocks, lower_right=True)
    ([[-1, 2, 4, 0, 6, 0], [-1, 2, 4, 6, 8, 1]], [[-1, 2, 4, 0, 8, 1]])
    """
    calls: list[list[int]] = []
    for row, q0, q1, k0, k1, causal in blocks.tolist():
        if q0 >= q1:
            continue
        before = calls[-1] if calls else []
        goes_on = bool(causal) and q1 - q0 == k1 - k0 and before[:3] == [row, q0, q1] and before[4:] == [k0, 0]
        if goes_on and lower_right:
            calls[-1] = [row, q0, q1, before[3], k1, 1]
        else:
            calls.append([row, q0, q1, k0, k1, causal])
    return calls


def by_keys(
    calls: list[list[int]], batch: int, tokens: int
) -> tuple[list[tuple[list[int], bool]], list[tuple[int, int, int]]]:
    """Calls in an order in which gradients of keys need no zeros to add to, and whether each call is the first for its keys.

    Calls that begin at one key come with the longest first, so that ranges within a range follow it. The ranges (row, first,
    last) that no call writes first come second: keys of later devices, as a rule.

    >>> by_keys([[-1, 0, 2, 0, 2, 1], [-1, 2, 4, 0, 6, 1]], 1, 8)
    ([([-1, 2, 4, 0, 6, 1], True), ([-1, 0, 2, 0, 2, 1], False)], [(-1, 6, 8)])
    """
    rows: dict[int, list[list[int]]] = {row: [] for row in ([-1] if any(c[0] < 0 for c in calls) else range(batch))}
    for call in calls:
        rows[call[0]].append(call)
    order, gaps = [], []
    for row, its_calls in rows.items():
        done = 0  # every key before is written or a gap
        for call in sorted(its_calls, key=lambda call: (call[3], -call[4])):
            k0, k1 = call[3:5]
            first = k0 >= done
            begin, end = (done, k0) if first else (done, k1)
            if begin < end:
                gaps.append((row, begin, end))
            order.append((call, first))
            done = max(done, k1)
        if done < tokens:
            gaps.append((row, done, tokens))
    return order, gaps
