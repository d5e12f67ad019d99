"""Attention rows → what they say of a state, in a few numbers. numpy alone, so that the page needs no torch.

in   rows of kinds "attention" and "adjacent" as dictionaries, all of one run
out  a Gist: how large scores are inside and beyond the original window, how near they come to the bounds, and how far
     neighbours are told apart

"Inside" and "beyond" are distances below L and from L on, L being the original window. Layers that look back only so far have
no scores beyond and are left out of that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Row = dict[str, Any]


@dataclass(frozen=True)
class Gist:
    """One state in numbers; NaN where nothing was measured.

    Attributes:
        window: tokens.
        inside, beyond: the largest score of any head.
        typical_inside, typical_beyond: the 99.9 % quantile of the median head, at the bucket where it is largest from L/4 to
            L, and from L on: far keys both, so that near ones, which always score high, do not stand for the rest.
        out_of_range: share of heads whose largest score beyond L is above all that the base scored inside its window.
        worst: the head farthest out of range, its largest score beyond over its largest in the base.
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


def gist(rows: Sequence[Row], original: int, base: Sequence[Row] = ()) -> Gist:
    """Sum up one state.

    Args:
        rows: its attention and adjacent rows.
        original: L, tokens.
        base: the attention rows of the base inside its own window, for what is in range; or none.
    """
    scores = [row for row in rows if row["kind"] == "attention"]
    near = [row for row in rows if row["kind"] == "adjacent"]
    beyond = [part(row, "maximum", original, math.inf) for row in scores]
    ratios = _ratios(scores, base, original)
    sizes = [_size(row) for row in scores]
    slack = _joined([_array(row["extrapolation"]) / size for row, size in zip(scores, sizes, strict=True)])
    return Gist(
        window=max((row["window"] for row in rows), default=0),
        inside=_largest([part(row, "maximum", 0, original) for row in scores]),
        beyond=_largest(beyond),
        typical_inside=_median([part(row, "quantile", original // 4, original) for row in scores]),
        typical_beyond=_median([part(row, "quantile", original, math.inf) for row in scores]),
        out_of_range=float(np.mean(ratios > 1)) if ratios.size else math.nan,
        worst=float(ratios.max()) if ratios.size else math.nan,
        deviation=_largest([_array(row["deviation"]) for row in scores]),
        of_printed=_largest([_array(row["deviation"]) / _array(row["printed"]) for row in scores]),
        of_corrected=_largest([_array(row["deviation"]) / _array(row["corrected"]) for row in scores]),
        of_trivial=_largest([size / _array(row["trivial"]) for row, size in zip(scores, sizes, strict=True)]),
        slack=float(slack.min()) if slack.size else math.nan,
        largest_h=_largest([_array(row["largest_h"]) for row in scores]),
        resolution=_median([_array(row["resolution"]) for row in near]),
        previous=float(np.mean([max(row["previous"]) for row in near])) if near else math.nan,
    )


def usable(row: Row) -> bool:
    """Whether a row's lists fit each other; one that was edited by hand may not."""
    names = [name for name in row if isinstance(row[name], list)]
    if row["kind"] == "adjacent":
        lengths = {len(row[name]) for name in names}
        return len(lengths) == 1 and all(_numbers(row[name]) for name in names)
    tables = ("maximum", "minimum", "quantile", "mean")
    heads = {len(row[name]) for name in names if name != "edges"}
    edges = row["edges"]
    grid = all(isinstance(line, list) and len(line) == len(edges) - 1 for name in tables for line in row[name])
    rising = _numbers(edges) and all(
        a is not None and b is not None and a < b for a, b in zip(edges, edges[1:], strict=False)
    )
    if not (len(heads) == 1 and grid and rising and len(edges) > 1):
        return False
    flat = [row[name] for name in names if name not in tables] + [line for name in tables for line in row[name]]
    return all(_numbers(line) for line in flat)


def _numbers(values: list[Any]) -> bool:
    return bool(values) and all(
        value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values
    )


def part(row: Row, name: str, start: float, stop: float) -> np.ndarray:
    """Per head, the largest of a row's figures over the buckets that begin in [start, stop); NaN if there are none."""
    chosen = [i for i, edge in enumerate(row["edges"][:-1]) if start <= edge < stop]
    if not chosen:
        return np.full(len(row[name]), math.nan)
    return _array(row[name])[:, chosen].max(axis=1)


def _size(row: Row) -> np.ndarray:
    """Per head, the largest score in size over all distances; NaN if there is none."""
    high, low = _array(row["maximum"]), _array(row["minimum"])
    return np.fmax(np.fmax.reduce(high, axis=1), -np.fmin.reduce(low, axis=1))


def _ratios(scores: Sequence[Row], base: Sequence[Row], original: int) -> np.ndarray:
    """Each head's largest score beyond L over its largest in the base inside L; heads that have neither are left out."""
    known = {row["layer"]: part(row, "maximum", 0, original) for row in base if row["kind"] == "attention"}
    found = [part(row, "maximum", original, math.inf) / known[row["layer"]] for row in scores if row["layer"] in known]
    ratios = np.concatenate(found) if found else np.zeros(0)
    return ratios[np.isfinite(ratios)]


def _array(values: Any) -> np.ndarray:
    """JSON's null, which stands for NaN, back to NaN."""
    return np.array(values, dtype=np.float64)


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    values = np.concatenate(parts) if parts else np.zeros(0)
    return values[np.isfinite(values)]


def _largest(parts: Sequence[np.ndarray]) -> float:
    values = _joined(parts)
    return float(values.max()) if values.size else math.nan


def _median(parts: Sequence[np.ndarray]) -> float:
    values = _joined(parts)
    return float(np.median(values)) if values.size else math.nan
