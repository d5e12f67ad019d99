"""Rows of attention scores, a layer each."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

from ropewalk.records.rows import Tokens, Whole, check_one_length


@dataclass(frozen=True)
class AttentionScores:
    """One layer's scores before the softmax, by distance, over every causal pair in `window` tokens of each document.

    Bucket i holds the distances `edges[i]` .. `edges[i + 1] - 1`. `maximum`, `minimum`, `quantile` (99.9 %, from a histogram,
    exact to `grain`) and `mean` are lists over heads of lists over buckets, in the unit the softmax sees. Over heads alone, and
    in the same unit: `largest_h`, the largest |h_j| of any pair and frequency; `deviation`, how far a score was from the
    chord between two tokens of the original grid, at its middle; its bounds: `printed` (theorem 2.1), `corrected`
    and `profile` (the exact supremum for the largest |h_j| of each frequency by itself); `extrapolation`, 2 max|h_j| B(s) at
    the distance where it is smallest; `trivial`, sum_j max|h_j|; with partial rotary the last two hold the largest part of a
    score that does not turn as well. A layer that looks back only so far has that as `local`.
    """

    kind: ClassVar[str] = "attention"
    layer: Whole
    window: Tokens
    documents: Whole
    edges: list[int]
    maximum: list[list[float]]
    minimum: list[list[float]]
    quantile: list[list[float]]
    mean: list[list[float]]
    largest_h: list[float]
    deviation: list[float]
    printed: list[float]
    corrected: list[float]
    profile: list[float]
    extrapolation: list[float]
    trivial: list[float]
    grain: float = 0.0
    local: int | None = None
    data: str = ""

    def __post_init__(self) -> None:
        tables = (self.maximum, self.minimum, self.quantile, self.mean)
        per_head = (self.largest_h, self.deviation, self.printed, self.corrected, self.profile)
        check_one_length("heads", *tables, *per_head, self.extrapolation, self.trivial)
        check_one_length("buckets", self.edges[1:], *(head for table in tables for head in table))
        if any(start >= stop for start, stop in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError(f"edges of buckets rise, got {self.edges}")

    @property
    def lines(self) -> list[dict[str, float]]:
        """A line a head and bucket, as a frame has it; what is of a head alone stands on each of its lines."""
        by_bucket = ("maximum", "minimum", "quantile", "mean")
        by_head = ("largest_h", "deviation", "printed", "corrected", "profile", "extrapolation", "trivial")
        return [
            {"head": head, "from_distance": start, "to_distance": stop - 1}
            | {name: getattr(self, name)[head][bucket] for name in by_bucket}
            | {name: getattr(self, name)[head] for name in by_head}
            for head in range(len(self.maximum))
            for bucket, (start, stop) in enumerate(itertools.pairwise(self.edges))
        ]


@dataclass(frozen=True)
class Adjacent:
    """How well one layer tells neighbouring positions apart; lists over heads.

    `change` is the mean |change of a score| when its key is moved one token farther, its content left alone, at distances 0 to
    3; `spread` the mean standard deviation of a query's scores over the keys it sees; `resolution` the first over the second.
    `previous` is the mean share of attention on the token just before. Over `rows` queries, all within the original window.
    """

    kind: ClassVar[str] = "adjacent"
    layer: Whole
    window: Tokens
    documents: Whole
    rows: Whole
    change: list[float]
    spread: list[float]
    resolution: list[float]
    previous: list[float]
    data: str = ""

    @property
    def lines(self) -> list[dict[str, float]]:
        """A line a head, as a frame has it."""
        by_head = ("change", "spread", "resolution", "previous")
        return [
            {"head": head} | {name: getattr(self, name)[head] for name in by_head} for head in range(len(self.change))
        ]

    def __post_init__(self) -> None:
        check_one_length("heads", self.change, self.spread, self.resolution, self.previous)
