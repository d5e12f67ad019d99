"""From sums over windows to the figures of a row: gain, LongPPL, by place and by document (context_gain.py defines them).

in   per document or window, sums over its tokens by ranges of places (`Sums`)
out  the fields of a `records.ContextGain`
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from ropewalk import records
from ropewalk.data.select import TokenizedDocument
from ropewalk.data.sliding import SlidingWindow
from ropewalk.evals.intervals import documents_interval, exp, perplexity_interval
from ropewalk.evals.perplexity.strata import Estimate, Population
from ropewalk.evals.perplexity.two_pass import Contexts, Twice

#: Sums over tokens, by range of places in a document: of tokens, nll in either context, key tokens, and their nll in the whole context.
Sums = Float[np.ndarray, "5 ranges"]
_Mean = tuple[float, float, float]
_NOTHING: _Mean = (math.nan, math.nan, math.nan)


def sums(place: SlidingWindow, twice: Twice, key: Bool[np.ndarray, " scored"], contexts: Contexts) -> Sums:
    """What is summed over the scored tokens of one window, in float64; `key`: which of them are key tokens."""
    ranges = contexts.ranges
    of_token = np.searchsorted(ranges, np.arange(place.first_scored, place.stop), side="right") - 1
    columns = (np.ones(place.scored), twice.whole, twice.short, key, np.where(key, twice.whole, 0))
    return np.stack([np.bincount(of_token, column, len(ranges)) for column in columns])


def of_documents(
    documents: Sequence[TokenizedDocument], table: Float[np.ndarray, "documents 5 ranges"], contexts: Contexts
) -> dict[str, Any]:
    """The fields of a row whose documents were read whole; `table`: their `Sums`."""
    tokens, whole, short, key, key_nll = table.sum(axis=2).T
    mean, low, high = _mean(short - whole, tokens)
    longppl, *ends = _mean(key_nll, key)
    longppl_low, longppl_high = perplexity_interval(*ends)
    return {
        "gain": mean,
        "low": low,
        "high": high,
        "perplexity": exp(_mean(whole, tokens)[0]),
        "short_perplexity": exp(_mean(short, tokens)[0]),
        "longppl": exp(longppl),
        "longppl_low": longppl_low,
        "longppl_high": longppl_high,
        "tokens": int(tokens.sum()),
        "key_tokens": int(key.sum()),
        "by_place": _by_place(table, contexts, max(len(document.ids) for document in documents)),
        "per_document": [
            {
                "name": document.name,
                "tokens": int(tokens[at]),
                "nll": float(whole[at]),
                "short_nll": float(short[at]),
                "key_tokens": int(key[at]),
                "key_nll": float(key_nll[at]),
                "text": document.text,
            }
            for at, document in enumerate(documents)
        ],
    }


def _mean(totals: Float[np.ndarray, " documents"], weights: Float[np.ndarray, " documents"]) -> _Mean:
    """sum(totals) / sum(weights) over the documents that have any weight, with its interval; NaN where none has."""
    some = weights > 0
    if not some.any():
        return _NOTHING
    return math.fsum(totals) / math.fsum(weights), *documents_interval(totals[some], weights[some])


def _by_place(
    table: Float[np.ndarray, "documents 5 ranges"], contexts: Contexts, longest: int
) -> list[records.PlaceGain]:
    """The gain by ranges of places in a document, those that no token lies in left out."""
    starts = contexts.ranges.tolist()
    rows: list[records.PlaceGain] = []
    for at, (start, stop) in enumerate(zip(starts, [*starts[1:], longest], strict=True)):
        tokens, whole, short = table[:, :3, at].T
        if tokens.any():
            mean, low, high = _mean(short - whole, tokens)
            rows.append(
                {"start": start, "stop": stop, "tokens": int(tokens.sum()), "gain": mean, "low": low, "high": high}
            )
    return rows


def gained(of_window: Sums) -> float:
    """What a window's tokens gain together, in nats."""
    _, whole, short, _, _ = of_window.sum(axis=1)
    return float(short - whole)


def of_sample(estimate: Estimate, population: Population, drawn: dict[int, Sums]) -> dict[str, Any]:
    """The fields that a sample gives otherwise: each stratum counts as much as it has tokens. Only the gain has an interval, of these documents."""

    def mean(column: int) -> float:
        estimated = population.estimate({place: float(each[column].sum()) for place, each in drawn.items()})
        return math.nan if estimated is None else estimated.nats

    _, whole, short, key, key_nll = map(mean, range(5))
    low, high = estimate.interval
    return {
        "estimate": True,
        "gain": estimate.nats,
        "low": low,
        "high": high,
        "perplexity": exp(whole),
        "short_perplexity": exp(short),
        "longppl": exp(key_nll / key) if key else math.nan,
        "longppl_low": math.nan,
        "longppl_high": math.nan,
        "per_document": [],
    }
