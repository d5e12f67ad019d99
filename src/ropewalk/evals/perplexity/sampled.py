"""Perplexity from a random sample of windows: an estimate of the exact figure, within a given number of minutes.

in   documents, a window, a stride, minutes
out  a perplexity row marked as an estimate, whose interval is that of the exact figure on the same documents

Windows are drawn from strata (strata.py) until the time is up or the interval is narrow enough. The interval says how far the
exact figure on these documents may lie from the estimate; it says nothing about other documents, unlike that of an exact
row. Where the minutes suffice for every window, the row is an exact one.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float, Int

from ropewalk import records
from ropewalk.data.select import TokenizedDocument
from ropewalk.distributed.ranks import gathered, rank, same
from ropewalk.distributed.ranks import size as world_size
from ropewalk.evals.intervals import documents_interval, exp, perplexity_interval
from ropewalk.evals.likelihood import Pass, default_batch_tokens, negative_log_likelihoods, not_a_number
from ropewalk.evals.loaded import LoadedModel
from ropewalk.evals.perplexity.strata import Estimate, Population, Unit, fewest_of, order_of, units_of
from ropewalk.evals.perplexity.time_needed import OfWhat, reckon
from ropewalk.progress import Progress, clock
from ropewalk.settings.measure import PerplexitySettings

_logger = logging.getLogger(__name__)
T = TypeVar("T")
#: Windows beside the documents' first ones that are drawn before a narrow interval counts: with few, it may be chance.
_FEWEST_OTHERS = 32


def pass_of(unit: Unit, documents: Sequence[TokenizedDocument]) -> Pass:
    """The forward pass that scores a window."""
    start, stop, _ = unit.window
    return Pass(documents[unit.document].ids[start:stop], unit.window.scored)


def sample(
    model: Any,
    documents: Sequence[TokenizedDocument],
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
        documents: as token ids.
        window, stride: tokens.
        minutes: how long it may take, all ranks together; no batch is started that would end later if it took as long as the
            last one.
        tolerance: stop when half the 95 % interval is at most this share of the perplexity.
        seed: of the drawing order.
        batch_tokens: tokens of one forward pass.

    Returns:
        The estimate, the summed nll of each unit drawn, and all units; the same on every rank.

    Raises:
        UserError: the fewest windows that give an interval take longer, as the first batch shows.
    """
    units = units_of(document.windows(window, stride) for document in documents)
    batch_tokens = batch_tokens or default_batch_tokens(next(model.parameters()).device)

    def score(places: Sequence[int]) -> Iterator[float]:
        passes = [pass_of(units[place], documents) for place in places]
        return map(_sum, negative_log_likelihoods(model, passes, batch_tokens=batch_tokens))

    size = max(1, batch_tokens // window)
    limits: dict[str, Any] = {"minutes": minutes, "tolerance": tolerance, "seed": seed}
    estimate, drawn = draw(units, score, float, size=size, of_what=_of_what(units, window), **limits)
    return estimate, drawn, units


def _of_what(units: Sequence[Unit], window: int) -> OfWhat:
    one_each = f", or --max-tokens {window}, one window a document" * any(not unit.first for unit in units)
    interval = f"an interval of a sample (of documents read whole, {records.Perplexity.FEWEST} do)"
    return OfWhat(f"perplexity, window {window}", f"shorter --windows{one_each}", interval=interval)


def refuse_hopeless(
    model: Any, documents: Sequence[TokenizedDocument], window: int, stride: int, settings: PerplexitySettings
) -> None:
    """Refuse, before any window is read, an estimate that `settings.budget` is too little for. Raises UserError."""
    assert settings.budget is not None
    units = units_of(document.windows(window, stride) for document in documents)
    reckon(model, units, _of_what(units, window), minutes=settings.budget, seed=settings.seed)


def draw(
    units: Sequence[Unit],
    score: Callable[[Sequence[int]], Iterable[T]],
    value: Callable[[T], float],
    *,
    size: int,
    minutes: float,
    tolerance: float,
    seed: int,
    of_what: OfWhat,
) -> tuple[Estimate, dict[int, T]]:
    """Draw units as `sample` says, whatever is measured on them.

    Args:
        units: all there are.
        score: what is measured on units, given by their places among all.
        value: of what was measured, the sum to estimate the mean of, in nats.
        size: units of one batch on one rank.
        minutes, tolerance, seed: as in `sample`.
        of_what: for the progress, and for who gives too few minutes.

    Returns:
        The estimate, and what was measured on each unit drawn; the same on every rank.

    Raises:
        UserError: as `sample`.
    """
    started = time.perf_counter()
    deadline = started + 60 * minutes
    population, order = Population(units), order_of(units, seed)
    fewest = fewest_of(units, order)
    drawn: dict[int, T] = {}
    estimate, others, shown = None, 0, 0
    step = size * world_size()
    with Progress(f"{of_what.title}, seconds", round(60 * minutes)) as advance:
        for start in range(0, len(order), step):
            batch_started = time.perf_counter()
            local_start = start + size * rank()
            # Windows of one length are scored together.
            local = sorted(order[local_start : local_start + size], key=lambda place: units[place].window.scored)
            drawn |= gathered(dict(zip(local, score(local), strict=True)))
            estimate = population.estimate({place: value(measured) for place, measured in drawn.items()})
            others += sum(not units[place].first for place in order[start : start + step])
            now = time.perf_counter()
            fewest_left = max(0, math.ceil((fewest - len(drawn)) / step)) * (now - batch_started)
            if not start:
                of_what.refuse_hopeless(same(now - started + fewest_left), minutes, fewest, len(units))
            all_of_them = (now - started) * (len(units) / len(drawn) - 1)
            left = clock(min(all_of_them, max(deadline - now, fewest_left)))
            advance(
                round(now - started) - shown,
                f"{left} left  {of_what.title}: {len(drawn):,} of {len(units):,} windows" + _precision(estimate),
            )
            shown = round(now - started)
            late = now + (now - batch_started) > deadline
            narrow = others >= _FEWEST_OTHERS and estimate is not None and estimate.width <= tolerance
            if same(estimate is not None and (late or narrow)):
                break
    if estimate is None:
        raise AssertionError("all windows drawn and no estimate")
    return estimate, drawn


def _precision(estimate: Estimate | None) -> str:
    return "" if estimate is None or estimate.width > 1 else f", ± {100 * estimate.width:.1f} %"


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
    limits: dict[str, Any] = {"minutes": minutes, "tolerance": tolerance, "seed": seed, "batch_tokens": batch_tokens}
    estimate, drawn, units = sample(loaded.model, documents, window, stride, **limits)
    for place, nll in drawn.items():
        if math.isnan(nll):
            raise not_a_number(documents[units[place].document].name, units[place].window)
    exact = estimate.drawn == estimate.windows
    per_document = _per_document(documents, units, drawn) if exact else []
    # With every window drawn there is no sampling error: the interval is that of an exact row, over documents.
    in_nats = documents_interval(*_nll_and_tokens(per_document)) if exact else estimate.interval
    low, high = perplexity_interval(*in_nats)
    row = records.Perplexity(
        window=window,
        stride=stride,
        perplexity=exp(estimate.nats),
        low=low,
        high=high,
        documents=len(documents),
        skipped=0,
        tokens=sum(units[place].window.scored for place in drawn),
        bos=loaded.bos is not None,
        estimate=not exact,
        seconds=time.perf_counter() - started,
        per_document=per_document,
    )
    if row.says_nothing and row.estimate:
        enough = row.seconds / 60 * min(row.more, estimate.windows / estimate.drawn)
        _logger.warning(
            "%d of %s windows of %d tokens are too few: the interval, %.2f to %.2f, says next to nothing; about --budget %.2g is needed",
            estimate.drawn, f"{estimate.windows:,}", window, row.low, row.high, enough,
        )  # fmt: skip
    return row


def _per_document(
    documents: Sequence[TokenizedDocument], units: Sequence[Unit], drawn: dict[int, float]
) -> list[records.DocumentLoss]:
    """Every document's scored tokens and summed nll, as an exact row has them."""
    rows: list[records.DocumentLoss] = [{"name": document.name, "tokens": 0, "nll": 0.0} for document in documents]
    for place, nll in sorted(drawn.items()):
        rows[units[place].document]["tokens"] += units[place].window.scored
        rows[units[place].document]["nll"] += nll
    return rows


def _nll_and_tokens(
    per_document: Sequence[records.DocumentLoss],
) -> tuple[Float[np.ndarray, " documents"], Int[np.ndarray, " documents"]]:
    return np.array([row["nll"] for row in per_document]), np.array([row["tokens"] for row in per_document])
