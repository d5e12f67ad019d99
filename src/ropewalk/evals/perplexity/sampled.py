"""Perplexity from a random sample of windows: an estimate of the exact figure, within a given number of minutes.

in   documents, a window, a stride, minutes
out  a perplexity row marked as an estimate, whose interval is that of the exact figure on the same documents

The exact figure is T / N: T the summed negative log-likelihood over all windows, N the number of scored tokens, which is
known. T is estimated by stratified sampling, windows being drawn at random without replacement. The strata are the documents'
first windows, which score W - 1 tokens each, and per document its other windows, which score S. In a stratum h with N_h
tokens the estimate is N_h r_h with r_h = (sum of nll) / (sum of tokens) over the windows drawn; its variance is that of a
ratio with the finite-population correction (Cochran 1977, Sampling Techniques, section 6.4). The interval is Student's,
with Satterthwaite's degrees of freedom (section 5.4). Documents are strata and are not drawn themselves, so that the
difference between an easy and a hard one costs no precision.

The interval says how far the exact figure on these documents may lie from the estimate; it says nothing about other
documents, unlike that of an exact row. Where the minutes suffice for every window, the row is an exact one.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from ropewalk import records
from ropewalk.data.encode import TokenIds
from ropewalk.data.select import TokenizedDocument
from ropewalk.data.sliding import SlidingWindow, sliding
from ropewalk.distributed.ranks import gathered, rank, same
from ropewalk.distributed.ranks import size as world_size
from ropewalk.evals.intervals import bootstrap_ratio, student_t95
from ropewalk.evals.likelihood import Pass, default_batch_tokens, exp, negative_log_likelihoods, not_a_number
from ropewalk.evals.loaded import LoadedModel

#: Windows beside the documents' first ones that are drawn before a narrow interval counts: with few, it may be chance.
_FEWEST_OTHERS = 32


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


def units_of(lengths: Sequence[int], window: int, stride: int) -> list[Unit]:
    """Every window of every document."""
    return [Unit(number, place) for number, length in enumerate(lengths) for place in sliding(length, window, stride)]


def pass_of(unit: Unit, documents: Sequence[TokenIds]) -> Pass:
    """The forward pass that scores a window."""
    start, stop, _ = unit.window
    return Pass(documents[unit.document][start:stop], unit.window.scored)


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


def sample(
    model: Any,
    documents: Sequence[TokenIds],
    window: int,
    stride: int,
    *,
    minutes: float,
    tolerance: float = 0.005,
    seed: int = 0,
    batch_tokens: int | None = None,
) -> tuple[Estimate, dict[int, float], list[Unit]]:
    """Draw windows until the time is up, the interval is narrow enough, or all are drawn (then the figure is exact).

    Args:
        model: a transformers causal language model.
        documents: token ids.
        window, stride: tokens.
        minutes: how long it may take, all ranks together; no batch is started that would end later if it took as long as the
            last one. Two windows of each stratum are always drawn.
        tolerance: stop when half the 95 % interval is at most this share of the perplexity.
        seed: of the drawing order.
        batch_tokens: tokens of one forward pass.

    Returns:
        The estimate, the summed nll of each unit drawn, and all units; the same on every rank.
    """
    deadline = time.perf_counter() + 60 * minutes
    units = units_of([len(ids) for ids in documents], window, stride)
    population, order = Population(units), order_of(units, seed)
    drawn: dict[int, float] = {}
    batch_tokens = batch_tokens or default_batch_tokens(next(model.parameters()).device)
    size = max(1, batch_tokens // window)
    estimate, others = None, 0
    step = size * world_size()
    for start in range(0, len(order), step):
        batch_started = time.perf_counter()
        local_start = start + size * rank()
        # Windows of one length are scored together.
        local = sorted(order[local_start : local_start + size], key=lambda place: units[place].window.scored)
        passes = [pass_of(units[place], documents) for place in local]
        sums = map(_sum, negative_log_likelihoods(model, passes, batch_tokens=batch_tokens))
        drawn |= gathered(dict(zip(local, sums, strict=True)))
        estimate = population.estimate(drawn)
        others += sum(not units[place].first for place in order[start : start + step])
        now = time.perf_counter()
        late = now + (now - batch_started) > deadline
        narrow = others >= _FEWEST_OTHERS and estimate is not None and estimate.width <= tolerance
        if same(estimate is not None and (late or narrow)):
            break
    if estimate is None:
        raise AssertionError("all windows drawn and no estimate")
    return estimate, drawn, units


def _sum(nll: Float[np.ndarray, " scored"]) -> float:
    return float(nll.sum(dtype=np.float64))


def measure_window(
    loaded: LoadedModel,
    documents: Sequence[TokenizedDocument],
    window: int,
    stride: int,
    batch_tokens: int | None = None,
    *,
    minutes: float,
    tolerance: float = 0.005,
    seed: int = 0,
) -> records.Perplexity:
    """One window's row, estimated from a random sample of windows.

    Raises:
        UserError: a logit was NaN; the error names the document and the window's place in it.
    """
    started = time.perf_counter()
    ids = [document.ids for document in documents]
    limits: dict[str, Any] = {"minutes": minutes, "tolerance": tolerance, "seed": seed, "batch_tokens": batch_tokens}
    estimate, drawn, units = sample(loaded.model, ids, window, stride, **limits)
    for place, nll in drawn.items():
        if math.isnan(nll):
            raise not_a_number(documents[units[place].document].name, units[place].window)
    exact = estimate.drawn == estimate.windows
    per_document = _per_document(documents, units, drawn) if exact else []
    # With every window drawn there is no sampling error: the interval is that of an exact row, over documents.
    low, high = bootstrap_ratio(*_sums(per_document), seed=seed) if exact else estimate.interval
    return records.Perplexity(
        window=window,
        stride=stride,
        perplexity=exp(estimate.nats),
        low=exp(low),
        high=exp(high),
        documents=len(documents),
        skipped=0,
        tokens=sum(units[place].window.scored for place in drawn),
        bos=loaded.bos is not None,
        estimate=not exact,
        seconds=time.perf_counter() - started,
        per_document=per_document,
    )


def _per_document(
    documents: Sequence[TokenizedDocument], units: Sequence[Unit], drawn: dict[int, float]
) -> list[records.DocumentLoss]:
    """Every document's sums, as an exact row has them."""
    rows: list[records.DocumentLoss] = [{"name": document.name, "tokens": 0, "nll": 0.0} for document in documents]
    for place, nll in sorted(drawn.items()):
        rows[units[place].document]["tokens"] += units[place].window.scored
        rows[units[place].document]["nll"] += nll
    return rows


def _sums(
    per_document: Sequence[records.DocumentLoss],
) -> tuple[Float[np.ndarray, " documents"], Int[np.ndarray, " documents"]]:
    return np.array([row["nll"] for row in per_document]), np.array([row["tokens"] for row in per_document])
