"""Perplexity from a random sample of windows: the same figure, estimated, in the minutes one has.

in   documents, a window, a stride, minutes
out  a perplexity row marked as an estimate, whose interval is that of the exact figure on the same documents

The exact figure is T / N: T the summed negative log-likelihood over all windows, N the scored tokens, which are known. T is
estimated by strata, in each of which windows are drawn at random without replacement: the documents' first windows, which
score W - 1 tokens each, and per document its other windows, which score S. In a stratum h with N_h tokens the estimate is
N_h r_h with r_h = (sum of nll) / (sum of tokens) over the windows drawn, and its variance that of a ratio with the finite-population
correction (Cochran 1977, Sampling Techniques, section 6.4); the interval is Student's, with Satterthwaite's degrees of freedom (5.4). Documents are strata and not drawn, so that the difference
between an easy and a hard one costs no precision.

The interval says how far the exact figure on these documents may lie from the estimate; it says nothing of other
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
from ropewalk.data.select import TokenizedDocument
from ropewalk.data.sliding import SlidingWindow, sliding
from ropewalk.distributed.ranks import gathered, rank, same
from ropewalk.distributed.ranks import size as world_size
from ropewalk.evals.intervals import bootstrap_ratio, student_t95
from ropewalk.evals.likelihood import Pass, default_batch_tokens, exp, negative_log_likelihoods, not_a_number
from ropewalk.evals.loaded import LoadedModel

#: Not to stop on an interval that is narrow by luck: this many windows past the first of a document come first.
_AT_LEAST = 32


@dataclasses.dataclass(frozen=True)
class Unit:
    """A window that may be drawn: of which document, first or not."""

    document: int
    window: SlidingWindow

    @property
    def first(self) -> bool:
        return self.window.start == 0


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Nats a token, their standard error and its degrees of freedom; how many windows were drawn, and of how many."""

    nats: float
    error: float
    degrees: float
    drawn: int
    windows: int
    tokens: int

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, in nats a token."""
        return self.nats - self._reach, self.nats + self._reach

    @property
    def _reach(self) -> float:
        return student_t95(self.degrees) * self.error if self.error else 0.0

    @property
    def width(self) -> float:
        """Half the interval, relative to the perplexity."""
        return math.expm1(min(self._reach, 700))


def units_of(lengths: Sequence[int], window: int, stride: int) -> list[Unit]:
    """Every window of every document."""
    return [Unit(at, one) for at, length in enumerate(lengths) for one in sliding(length, window, stride)]


def pass_of(unit: Unit, documents: Sequence[Int[np.ndarray, " n"]]) -> Pass:
    """What the model sees of a window, and how much of it counts."""
    start, stop, _ = unit.window
    return Pass(documents[unit.document][start:stop], unit.window.scored)


def order_of(units: Sequence[Unit], seed: int) -> list[int]:
    """A random order in which every beginning is spread evenly over documents.

    A document's windows are shuffled and given evenly spaced ranks in (0, 1); going by rank visits documents in proportion to
    their windows. First windows come early, one for each other window: they score most per pass.
    """
    random = np.random.default_rng(seed)
    others: list[tuple[float, int]] = []
    members: dict[int, list[int]] = {}
    for at, unit in enumerate(units):
        if not unit.first:
            members.setdefault(unit.document, []).append(at)
    for mine in members.values():
        random.shuffle(mine)
        ranks = (np.arange(len(mine)) + random.random()) / len(mine)
        others += zip(ranks.tolist(), mine, strict=True)
    firsts = [at for at, unit in enumerate(units) if unit.first]
    random.shuffle(firsts)
    rest = [at for _, at in sorted(others)]
    both = min(len(firsts), len(rest))
    mixed = [at for pair in zip(firsts, rest, strict=False) for at in pair]
    return mixed + firsts[both:] + rest[both:]


class Population:
    """The windows that may be drawn, in their strata: first windows, and each document's others."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self.tokens = np.array([unit.window.scored for unit in units], dtype=np.float64)
        self._stratum = np.array([0 if unit.first else 1 + unit.document for unit in units])

    def estimate(self, drawn: dict[int, float]) -> Estimate | None:
        """From the windows drawn so far (unit → summed nll); None while a stratum has too few to say anything."""
        at, nll = np.fromiter(drawn.keys(), dtype=np.int64), np.fromiter(drawn.values(), dtype=np.float64)
        stratum = self._stratum
        if not _enough(stratum, at)[1:].all():
            stratum = np.minimum(stratum, 1)  # all documents' together while one of them has too few drawn
        if not _enough(stratum, at).all():
            return None
        mine, n = stratum[at], self.tokens[at]
        members = np.bincount(stratum)
        seen = np.bincount(mine, minlength=len(members))
        there = members > 0
        with np.errstate(divide="ignore", invalid="ignore"):  # documents of one window have no others
            scored = np.bincount(mine, n, len(members))
            ratio = np.bincount(mine, nll, len(members)) / scored
            scatter = np.bincount(mine, (nll - ratio[mine] * n) ** 2, len(members)) / (seen - 1)
            missing, all_tokens = 1 - seen / members, np.bincount(stratum, self.tokens)
            own = missing * all_tokens**2 * scatter / (seen * (scored / seen) ** 2)
            own = np.where(there & (missing > 0), own, 0.0)
            doubt = np.where(own > 0, own**2 / (seen - 1), 0.0).sum()
        everything, variance = float(self.tokens.sum()), float(own.sum())
        return Estimate(
            nats=float((ratio * all_tokens)[there].sum() / everything),
            error=math.sqrt(variance) / everything,
            degrees=float(variance**2 / doubt) if doubt else math.inf,  # Satterthwaite
            drawn=len(drawn),
            windows=len(self.tokens),
            tokens=int(everything),
        )


def _enough(stratum: Int[np.ndarray, " units"], drawn: Int[np.ndarray, " some"]) -> Bool[np.ndarray, " strata"]:
    """Whether two windows of each stratum are drawn, or all it has."""
    members = np.bincount(stratum)
    return np.bincount(stratum[drawn], minlength=len(members)) >= np.minimum(2, members)


def sample(
    model: Any,
    documents: Sequence[Int[np.ndarray, " n"]],
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
        minutes: when to be done, all ranks together; no batch is begun that would end later if it took as long as the last. Two windows of
            each stratum are always drawn.
        tolerance: stop when half the 95 % interval is at most this share of the perplexity.
        seed: of the order.
        batch_tokens: tokens of one forward pass.

    Returns:
        The estimate, the summed nll of each unit drawn, and the units; the same on every rank.
    """
    deadline = time.perf_counter() + 60 * minutes
    units = units_of([len(ids) for ids in documents], window, stride)
    population, order = Population(units), order_of(units, seed)
    drawn: dict[int, float] = {}
    batch_tokens = batch_tokens or default_batch_tokens(next(model.parameters()).device)
    size = max(1, batch_tokens // window)
    found, others = None, 0
    together = size * world_size()
    for start in range(0, len(order), together):
        begun = time.perf_counter()
        first = start + size * rank()
        mine = sorted(order[first : first + size], key=lambda at: units[at].window.scored)
        passes = [pass_of(units[at], documents) for at in mine]
        sums = map(_sum, negative_log_likelihoods(model, passes, batch_tokens=batch_tokens))
        drawn |= gathered(dict(zip(mine, sums, strict=True)))
        found = population.estimate(drawn)
        others += sum(not units[at].first for at in order[start : start + together])
        now = time.perf_counter()
        late = now + (now - begun) > deadline
        narrow = others >= _AT_LEAST and found is not None and found.width <= tolerance
        if same(found is not None and (late or narrow)):
            break
    if found is None:
        raise AssertionError("all windows drawn and no estimate")
    return found, drawn, units


def _sum(nll: Float[np.ndarray, " scored"]) -> float:
    return float(nll.sum(dtype=np.float64))


def measure(
    subject: LoadedModel,
    documents: Sequence[TokenizedDocument],
    window: int,
    stride: int,
    batch_tokens: int | None = None,
    *,
    minutes: float,
    tolerance: float = 0.005,
    seed: int = 0,
) -> records.Perplexity:
    """One window's row, estimated from a random sample of windows."""
    started = time.perf_counter()
    ids = [document.ids for document in documents]
    found, drawn, units = sample(
        subject.model,
        ids,
        window,
        stride,
        minutes=minutes,
        tolerance=tolerance,
        seed=seed,
        batch_tokens=batch_tokens,
    )
    for at, nll in drawn.items():
        if math.isnan(nll):
            one = units[at]
            raise not_a_number(documents[one.document].name, one.window)
    whole = found.drawn == found.windows
    each = _per_document(documents, units, drawn) if whole else []
    # With every window drawn nothing is left open of these documents: the interval is an exact row's, over documents.
    low, high = bootstrap_ratio(*_sums(each), seed=seed) if whole else found.interval
    return records.Perplexity(
        window=window,
        stride=stride,
        perplexity=exp(found.nats),
        low=exp(low),
        high=exp(high),
        documents=len(documents),
        skipped=0,
        tokens=sum(units[at].window.scored for at in drawn),
        bos=subject.bos is not None,
        estimate=not whole,
        seconds=time.perf_counter() - started,
        per_document=each,
    )


def _per_document(
    documents: Sequence[TokenizedDocument], units: Sequence[Unit], drawn: dict[int, float]
) -> list[dict[str, Any]]:
    """Every document's own sums, as an exact row has them."""
    found: list[dict[str, Any]] = [{"name": document.name, "tokens": 0, "nll": 0.0} for document in documents]
    for at, nll in sorted(drawn.items()):
        found[units[at].document]["tokens"] += units[at].window.scored
        found[units[at].document]["nll"] += nll
    return found


def _sums(each: Sequence[dict[str, Any]]) -> tuple[Float[np.ndarray, " items"], Float[np.ndarray, " items"]]:
    return np.array([one["nll"] for one in each]), np.array([one["tokens"] for one in each])
