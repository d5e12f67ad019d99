"""Stratified sampling of windows: the order they are drawn in, and what those drawn say of all.

in   the windows of each document; the summed negative log-likelihood of each window drawn
out  units in a drawing order; an `Estimate` of the mean negative log-likelihood of a token

The figure to estimate is T / N: T the summed negative log-likelihood over all windows, N the number of scored tokens, which is
known. The strata are the documents' first windows, which score W - 1 tokens each, and per document its other windows, which
score S. Windows are drawn at random without replacement. In a stratum h with N_h tokens the estimate is N_h r_h with r_h =
(sum of nll) / (sum of tokens) over the windows drawn; its variance is that of a ratio with the finite-population correction
(Cochran 1977, Sampling Techniques, section 6.4). The interval is Student's, with Satterthwaite's degrees of freedom
(section 5.4). Documents are strata and are not drawn themselves, so that the difference between an easy and a hard one costs
no precision.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from ropewalk.data.sliding import SlidingWindow
from ropewalk.evals.intervals import student_t95


@dataclasses.dataclass(frozen=True)
class Unit:
    """A sampling unit: one window of one document.

    Attributes:
        document: its number.
        window: the place in it.
    """

    document: int
    window: SlidingWindow

    @property
    def first(self) -> bool:
        return self.window.start == 0


@dataclasses.dataclass(frozen=True)
class Estimate:
    """An estimate of the mean negative log-likelihood of a token.

    Attributes:
        nats: the estimate.
        error: its standard error.
        degrees: of freedom of that error (Satterthwaite).
        drawn: windows that were scored.
        windows: windows there are.
        tokens: scored tokens of all windows.
    """

    nats: float
    error: float
    degrees: float
    drawn: int
    windows: int
    tokens: int

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, in nats a token."""
        return self.nats - self._half_width, self.nats + self._half_width

    @property
    def _half_width(self) -> float:
        return student_t95(self.degrees) * self.error if self.error else 0.0

    @property
    def width(self) -> float:
        """Half the interval, relative to the perplexity."""
        return math.expm1(min(self._half_width, 700))


def units_of(windows: Iterable[Sequence[SlidingWindow]]) -> list[Unit]:
    """Every window of every document, given by document."""
    return [Unit(number, place) for number, places in enumerate(windows) for place in places]


def order_of(units: Sequence[Unit], seed: int) -> list[int]:
    """A random drawing order, any beginning of which is spread evenly over documents.

    A document's windows are shuffled and given evenly spaced ranks in (0, 1); going by rank visits documents in proportion to
    their windows. First windows alternate with the others until one kind is used up: they score most tokens per pass.
    """
    random = np.random.default_rng(seed)
    of_document: dict[int, list[int]] = {}
    for place, unit in enumerate(units):
        if not unit.first:
            of_document.setdefault(unit.document, []).append(place)
    ranked: list[tuple[float, int]] = []
    for places in of_document.values():
        random.shuffle(places)
        evenly = (np.arange(len(places)) + random.random()) / len(places)
        ranked += zip(evenly.tolist(), places, strict=True)
    firsts = [place for place, unit in enumerate(units) if unit.first]
    random.shuffle(firsts)
    others = [place for _, place in sorted(ranked)]
    pairs = min(len(firsts), len(others))
    alternating = [place for pair in zip(firsts, others, strict=False) for place in pair]
    return alternating + firsts[pairs:] + others[pairs:]


def fewest_of(units: Sequence[Unit], order: Sequence[int]) -> int:
    """How many windows of a drawing order give an interval: two of the first ones and two of the others, or all there are."""
    firsts = sum(unit.first for unit in units)
    missing = {True: min(2, firsts), False: min(2, len(units) - firsts)}
    for count, place in enumerate(order, start=1):
        missing[units[place].first] -= 1
        if max(missing.values()) <= 0:
            return count
    return len(units)


class Population:
    """All windows in their strata: the documents' first windows, and each document's others."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self.tokens = np.array([unit.window.scored for unit in units], dtype=np.float64)
        self._stratum = np.array([0 if unit.first else 1 + unit.document for unit in units])

    def estimate(self, drawn: dict[int, float]) -> Estimate | None:
        """From the windows drawn so far (place among the units → summed nll); None while a stratum has too few."""
        places, nll = np.fromiter(drawn.keys(), dtype=np.int64), np.fromiter(drawn.values(), dtype=np.float64)
        stratum = self._stratum
        if not _enough_drawn(stratum, places)[1:].all():
            stratum = np.minimum(stratum, 1)  # one stratum of all other windows, while a document has too few drawn
        if not _enough_drawn(stratum, places).all():
            return None
        total, variance, degrees = _ratio_estimate(stratum, self.tokens, places, nll)
        all_tokens = float(self.tokens.sum())
        return Estimate(
            nats=total / all_tokens,
            error=math.sqrt(variance) / all_tokens,
            degrees=degrees,
            drawn=len(drawn),
            windows=len(self.tokens),
            tokens=int(all_tokens),
        )


def _enough_drawn(stratum: Int[np.ndarray, " units"], places: Int[np.ndarray, " drawn"]) -> Bool[np.ndarray, " strata"]:
    """Whether two windows of each stratum are drawn, or all it has."""
    members = np.bincount(stratum)
    return np.bincount(stratum[places], minlength=len(members)) >= np.minimum(2, members)


def _ratio_estimate(
    stratum: Int[np.ndarray, " units"],
    tokens: Float[np.ndarray, " units"],
    places: Int[np.ndarray, " drawn"],
    nll: Float[np.ndarray, " drawn"],
) -> tuple[float, float, float]:
    """The estimated sum of nll over all units, its variance, and Satterthwaite's degrees of freedom (see the module's head).

    Args:
        stratum: of each unit; a number may be unused.
        tokens: of each unit.
        places: of the units drawn.
        nll: of the units drawn, nats.
    """
    drawn_stratum, drawn_tokens = stratum[places], tokens[places]
    members = np.bincount(stratum)
    count = np.bincount(drawn_stratum, minlength=len(members))
    used = members > 0
    with np.errstate(divide="ignore", invalid="ignore"):  # documents of one window have no others: an unused stratum
        tokens_drawn = np.bincount(drawn_stratum, drawn_tokens, len(members))
        ratio = np.bincount(drawn_stratum, nll, len(members)) / tokens_drawn
        residuals = nll - ratio[drawn_stratum] * drawn_tokens
        scatter = np.bincount(drawn_stratum, residuals**2, len(members)) / (count - 1)
        not_drawn, all_tokens = 1 - count / members, np.bincount(stratum, tokens)
        variances = not_drawn * all_tokens**2 * scatter / (count * (tokens_drawn / count) ** 2)
        variances = np.where(used & (not_drawn > 0), variances, 0.0)
        denominator = np.where(variances > 0, variances**2 / (count - 1), 0.0).sum()
    variance = float(variances.sum())
    return (
        float((ratio * all_tokens)[used].sum()),
        variance,
        float(variance**2 / denominator) if denominator else math.inf,
    )
