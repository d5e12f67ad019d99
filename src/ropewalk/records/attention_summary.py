"""Attention rows → what they say of a variant, in a few numbers. numpy alone, so that the page needs no torch.

in   AttentionScores and Adjacent rows, all of one run
out  a Gist: how large scores are inside and beyond the original window, how near they come to the bounds, and how far
     neighbours are told apart

"Inside" and "beyond" are distances below L and from L on, L being the original window. Layers that look back only so far have
no scores beyond and are left out of that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ropewalk.records.attention import Adjacent, AttentionScores

PerHead = Float[np.ndarray, " heads"]


@dataclass(frozen=True)
class Gist:
    """One variant in numbers; NaN where nothing was measured.

    Attributes:
        window: tokens.
        inside, beyond: the highest score of any head.
        typical_inside, typical_beyond: the 99.9 % quantile of the median head, at the bucket where it is largest from L/4 to
            L, and from L on: far keys both, so that near ones, which always score high, do not stand for the rest.
        out_of_range: share of heads whose highest score beyond L is above all that the base scored inside its window.
        worst: the head farthest out of range, its highest score beyond over its highest in the base.
        deviation: how far a score was from its chord, at most.
        of_printed, of_corrected: the same as a part of the bound of its head; above 1 the bound is broken.
        of_trivial: the largest score in size, negative ones too, as a part of its head's trivial bound sum_j max|h_j|.
        slack: how many times a head's largest score in size the extrapolation bound is where it is smallest; the least of all heads.
        largest_h: the largest |h_j| of any head, in the softmax's unit.
        resolution: change over spread, median over heads (adjacent rows).
        previous: the attention on the token before of the head that has most; mean over layers of each layer's strongest.
    """

    window: int
    inside: float
    beyond: float
    typical_inside: float
    typical_beyond: float
    out_of_range: float
    worst: float
    deviation: float
    of_printed: float
    of_corrected: float
    of_trivial: float
    slack: float
    largest_h: float
    resolution: float
    previous: float


def gist(
    rows: Sequence[AttentionScores | Adjacent], original: int, base: Sequence[AttentionScores | Adjacent] = ()
) -> Gist:
    """Sum up one variant.

    Args:
        rows: its attention and adjacent rows.
        original: L, tokens.
        base: the rows of the base inside its own window, for what is in range; or none.
    """
    scores = [row for row in rows if isinstance(row, AttentionScores)]
    near = [row for row in rows if isinstance(row, Adjacent)]
    ratios = _ratios(scores, base, original)
    sizes = [_size(row) for row in scores]
    slack = _joined([np.array(row.extrapolation) / size for row, size in zip(scores, sizes, strict=True)])
    return Gist(
        window=max((row.window for row in rows), default=0),
        inside=_largest([part(row.edges, row.maximum, 0, original) for row in scores]),
        beyond=_largest([part(row.edges, row.maximum, original) for row in scores]),
        typical_inside=_median([part(row.edges, row.quantile, original // 4, original) for row in scores]),
        typical_beyond=_median([part(row.edges, row.quantile, original) for row in scores]),
        out_of_range=float(np.mean(ratios > 1)) if ratios.size else math.nan,
        worst=float(ratios.max()) if ratios.size else math.nan,
        deviation=_largest([np.array(row.deviation) for row in scores]),
        of_printed=_largest([np.array(row.deviation) / np.array(row.printed) for row in scores]),
        of_corrected=_largest([np.array(row.deviation) / np.array(row.corrected) for row in scores]),
        of_trivial=_largest([size / np.array(row.trivial) for row, size in zip(scores, sizes, strict=True)]),
        slack=float(slack.min()) if slack.size else math.nan,
        largest_h=_largest([np.array(row.largest_h) for row in scores]),
        resolution=_median([np.array(row.resolution) for row in near]),
        previous=float(np.mean([max(row.previous) for row in near])) if near else math.nan,
    )


def part(edges: Sequence[int], table: Sequence[Sequence[float]], start: int, stop: int | None = None) -> PerHead:
    """Per head, the largest figure of a table [head][bucket] over buckets that begin in [start, stop), or from start on; NaN if there are none."""
    chosen = [bucket for bucket, edge in enumerate(edges[:-1]) if start <= edge and (stop is None or edge < stop)]
    if not chosen:
        return np.full(len(table), math.nan)
    return np.array(table, dtype=np.float64)[:, chosen].max(axis=1)


def _size(row: AttentionScores) -> PerHead:
    """Per head, the largest score in size over all distances; NaN if there is none."""
    return np.fmax(np.fmax.reduce(np.array(row.maximum), axis=1), -np.fmin.reduce(np.array(row.minimum), axis=1))


def _ratios(
    scores: Sequence[AttentionScores], base: Sequence[AttentionScores | Adjacent], original: int
) -> Float[np.ndarray, " ratios"]:
    """Each head's highest score beyond L over its highest in the base inside L; heads that have neither are left out."""
    in_base = {row.layer: part(row.edges, row.maximum, 0, original) for row in base if isinstance(row, AttentionScores)}
    return _joined(
        [part(row.edges, row.maximum, original) / in_base[row.layer] for row in scores if row.layer in in_base]
    )


def _joined(parts: Sequence[PerHead]) -> Float[np.ndarray, " finite"]:
    values = np.concatenate(parts) if parts else np.zeros(0)
    return values[np.isfinite(values)]


def _largest(parts: Sequence[PerHead]) -> float:
    values = _joined(parts)
    return float(values.max()) if values.size else math.nan


def _median(parts: Sequence[PerHead]) -> float:
    values = _joined(parts)
    return float(np.median(values)) if values.size else math.nan
