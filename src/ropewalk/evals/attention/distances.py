"""Scores by distance, block by block: no N × N matrix is ever held.

in   a layer's queries and keys (N tokens)
out  per head and per bucket of distances: largest, smallest, mean, 99.9 % quantile

Queries are worked through in blocks of rows. Keys are multiplied in reverse order, so that in a block of R rows the score at
distance s of row i stands at column s + R - 1 - i. Read with a row stride one shorter than the row, it stands at column s: a
view, no copy, in which a bucket of distances is a slice of columns.

    rows 2, 3 of 4 (R = 2), keys reversed: 3 2 1 0      as a view with stride 3, from element 1:
    row 2:  x  a(0) a(1) a(2)                           a(0) a(1) a(2) x'
    row 3:  a(0) a(1) a(2) a(3)                         a(0) a(1) a(2) a(3)

x is a key that row 2 must not see; it is set to -inf. x' is row 3's first element, which the view shows a second time: so
columns that not every row has are copied without it (`_ragged`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float

QUANTILE = 0.999
BINS = 4096
#: Scores of one block, over all its heads: few enough for a CPU's cache, many enough to keep a GPU busy.
_BLOCK = {"cpu": 1 << 20, "cuda": 1 << 27}


def block_bytes(kind: str) -> int:
    """Bytes of a block on a kind of device while it is tallied: scores, a bucket's copies of them and its bins."""
    return 4 * 4 * _BLOCK.get(kind, _BLOCK["cpu"])


def edges_to(window: int) -> list[int]:
    """First distances of the buckets, then `window` as the end: 0, 1, 2, 3, 4, 6, 8, 12, 16, … two buckets an octave."""
    edges = [0, 1, 2, 3]
    size = 4
    while size < window:
        edges += [size, size * 3 // 2]
        size *= 2
    return [edge for edge in edges if edge < window] + [window]


def products(
    query: Float[torch.Tensor, "heads n d"], key: Float[torch.Tensor, "heads n d"], scale: float, future: float
) -> Iterator[tuple[slice, int, Float[torch.Tensor, "some rows seen"]]]:
    """(heads, first row, scaled q.k with the keys in reverse order), block by block; keys after the query get `future`.

    Args:
        query, key: float32, one key head a query head.
        scale: multiplies q.k.
        future: the score of keys that come after the query.
    """
    heads, n, _ = query.shape
    block_scores = _BLOCK.get(query.device.type, _BLOCK["cpu"])
    # 256 rows, and more where a block still holds all heads of them: fewer, larger blocks on a GPU.
    rows = max(1, min(n, block_scores // n, max(256, block_scores // (n * heads))))
    group = max(1, min(heads, block_scores // (rows * n)))
    reversed_key = key.flip(1)
    for first in range(0, n, rows):
        last = min(n, first + rows)
        r = last - first
        unseen = torch.ones(r, r, dtype=torch.bool, device=query.device).tril(-1).flip(0)
        for start in range(0, heads, group):
            some = slice(start, min(heads, start + group))
            scores = torch.matmul(query[some, first:last] * scale, reversed_key[some, n - last :].transpose(1, 2))
            scores[:, :, :r].masked_fill_(unseen, future)
            yield some, first, scores


def blocks(
    query: Float[torch.Tensor, "heads n d"], key: Float[torch.Tensor, "heads n d"], scale: float
) -> Iterator[tuple[slice, int, Float[torch.Tensor, "some rows seen"]]]:
    """(heads, first row, scores by distance), each causal pair once; see the head of this module."""
    for some, first, scores in products(query, key, scale, -math.inf):
        count, rows, seen = scores.shape
        yield some, first, scores.as_strided((count, rows, seen), (rows * seen, seen - 1, 1), rows - 1)


def largest(
    query: Float[torch.Tensor, "heads n d"], key: Float[torch.Tensor, "heads n d"], scale: float
) -> Float[torch.Tensor, " heads"]:
    """The largest |scaled q.k| over all causal pairs, by head."""
    maxima = torch.zeros(len(query), device=query.device)
    for some, _, scores in products(query, key, scale, 0.0):
        low, high = scores.flatten(1).amin(dim=1), scores.flatten(1).amax(dim=1)
        maxima[some] = torch.maximum(maxima[some], torch.maximum(-low, high))
    return maxima


class Tally:
    """One layer's statistics by distance, accumulated over blocks and documents.

    Args:
        heads: of the queries.
        edges: as from `edges_to`.
        limit: scores are binned between -limit and limit for the quantile; those outside go into the end bins.
        device: of the blocks.
    """

    def __init__(self, heads: int, edges: list[int], limit: float, device: torch.device) -> None:
        shape = (heads, len(edges) - 1)
        self.edges, self.limit = edges, max(limit, 1e-12) if math.isfinite(limit) else 1.0
        self.highest = torch.full(shape, -math.inf, device=device)
        self.lowest = torch.full(shape, math.inf, device=device)
        self.totals = torch.zeros(shape, dtype=torch.float64, device=device)
        self.counts = torch.zeros(len(edges) - 1, dtype=torch.int64)
        self.bins = torch.zeros((*shape, BINS), dtype=torch.int64, device=device)

    @property
    def grain(self) -> float:
        """The width of a bin: the largest error of a quantile."""
        return 2 * self.limit / BINS

    def add(self, heads: slice, first: int, scores: Float[torch.Tensor, "some rows seen"]) -> None:
        """Take in a block of `blocks`. Distances past the last edge (of a layer with a sliding window) are left out."""
        _, rows, seen = scores.shape
        for bucket, (start, stop) in enumerate(zip(self.edges, self.edges[1:], strict=False)):
            stop = min(stop, seen)
            if start >= stop:
                break
            whole = max(start, min(stop, first + 1))  # columns that every row of the block has
            if start < whole:
                self._take(bucket, heads, scores[:, :, start:whole].flatten(1))
            if whole < stop:
                self._take(bucket, heads, _ragged(scores, first, whole, stop))
            if heads.start == 0:
                reach = np.arange(first + 1, first + rows + 1)  # row i has the distances 0 .. first + i
                self.counts[bucket] += int((np.clip(reach, start, stop) - start).sum())

    def _take(self, bucket: int, heads: slice, values: Float[torch.Tensor, "some pairs"]) -> None:
        if values.shape[1] == 0:
            return
        low, high = values.amin(dim=1), values.amax(dim=1)  # torch.aminmax is ten times slower
        self.highest[heads, bucket] = torch.maximum(self.highest[heads, bucket], high)
        self.lowest[heads, bucket] = torch.minimum(self.lowest[heads, bucket], low)
        self.totals[heads, bucket] += values.sum(dim=1, dtype=torch.float64)
        # NaN is counted as 0 here; it shows in the extremes, which the caller checks.
        bins = values.nan_to_num(0.0).add(self.limit).mul_(BINS / (2 * self.limit)).clamp_(0, BINS - 1).int()
        if bins.shape[0] > 1:
            bins += torch.arange(bins.shape[0], device=bins.device, dtype=torch.int32)[:, None] * BINS
        histogram = torch.bincount(bins.flatten(), minlength=bins.shape[0] * BINS)
        self.bins[heads, bucket] += histogram.view(-1, BINS)

    def mean(self) -> Float[np.ndarray, "heads buckets"]:
        """(heads, buckets); NaN in a bucket without pairs."""
        counts = self.counts.numpy()
        return self.totals.cpu().numpy() / np.where(counts, counts, np.nan)

    def quantile(self, share: float = QUANTILE) -> Float[np.ndarray, "heads buckets"]:
        """(heads, buckets): the upper end of the bin where the share is reached, so at most `grain` too high."""
        cumulated = self.bins.cumsum(dim=2).cpu().numpy()
        wanted = np.ceil(share * self.counts.numpy())[None, :, None]
        upper = -self.limit + (np.argmax(cumulated >= wanted, axis=2) + 1) * self.grain
        bounded = np.minimum(upper, self.highest.cpu().numpy())
        return np.where(self.counts.numpy() > 0, bounded, np.nan)


def _ragged(
    scores: Float[torch.Tensor, "some rows seen"], first: int, start: int, stop: int
) -> Float[torch.Tensor, "some pairs"]:
    """Columns start .. stop - 1, without the rows that do not reach so far: row i has distances up to first + i."""
    distance = torch.arange(start, stop, device=scores.device)
    causal = distance[None] <= first + torch.arange(scores.shape[1], device=scores.device)[:, None]
    return scores[:, :, start:stop][:, causal]
