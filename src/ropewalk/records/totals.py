"""Whether rows say in all what they say by part: documents, trials, answers, depths. One that was altered or shortened inside does not.

in   rows as they are read
out  ValueErrors, which reading.py counts
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ropewalk.records.downstream import Benchmark
from ropewalk.records.long_context import LongTask
from ropewalk.records.retrieval import KEY_DIGITS, Passkey, PasskeySummary, Retrieval, k_max
from ropewalk.records.rows import ContextGain, Perplexity

#: (what, in all, by part). Rows of earlier versions have no parts.
_Totals = Iterable[tuple[str, float, float]]


def _of_perplexity(row: Perplexity) -> _Totals:
    yield from _of_documents(row, row.per_document)
    yield "the loss", math.log(row.perplexity), sum(each["nll"] for each in row.per_document) / max(row.tokens, 1)


def _of_gain(row: ContextGain) -> _Totals:
    yield from _of_documents(row, row.per_document)
    gain = sum(each["short_nll"] - each["nll"] for each in row.per_document)
    yield "the gain", row.gain, gain / max(row.tokens, 1)


def _of_documents(row: Perplexity | ContextGain, each: Sequence[Any]) -> _Totals:
    yield "documents", row.documents, len(each)
    yield "tokens", row.tokens, sum(document["tokens"] for document in each)


def _of_retrieval(row: Retrieval) -> _Totals:
    yield "trials", row.trials, len(row.per_trial)
    yield "right answers", row.successes, sum(each["right"] for each in row.per_trial)


def _of_benchmark(row: Benchmark) -> _Totals:
    yield "items", row.items, len(row.answers)
    yield "right answers", row.correct, row.answers.count("1")
    yield "the accuracy", row.accuracy, row.correct / max(row.items, 1)


def _of_task(row: LongTask) -> _Totals:
    yield "items", row.items, len(row.scores)
    yield "the score", row.score, sum(row.scores) / row.items


#: Kind → the field that has its parts, and what these add up to.
_PARTS: dict[type, tuple[str, Callable[[Any], _Totals]]] = {
    Perplexity: ("per_document", _of_perplexity),
    ContextGain: ("per_document", _of_gain),
    Retrieval: ("per_trial", _of_retrieval),
    Benchmark: ("answers", _of_benchmark),
    LongTask: ("scores", _of_task),
}
#: Kind → the figure that its interval is of.
_ESTIMATES: dict[type, Callable[[Any], float]] = {
    Perplexity: lambda row: row.perplexity,
    ContextGain: lambda row: row.gain,
    Retrieval: lambda row: row.successes / row.trials,
    Benchmark: lambda row: row.accuracy,
    LongTask: lambda row: row.score,
}


def check(row: Any) -> None:
    """
    Raises:
        ValueError: a row's parts are on record and add up to something else, or its figure is not within its interval.
    """
    field, totals = _PARTS.get(type(row), ("", None))
    if totals is not None and getattr(row, field):
        _compare(totals(row))
    if type(row) in _ESTIMATES:
        _within(_ESTIMATES[type(row)](row), row.low, row.high)


def _within(estimate: float, low: float, high: float) -> None:
    """To 1e-6, by which the oldest intervals miss shares of 0 and 1; nothing of what is not a number."""
    if low > estimate + 1e-6 or high < estimate - 1e-6:
        raise ValueError(f"{estimate:.6g} is not within its interval, {low:.6g} to {high:.6g}")


def check_test(summary: PasskeySummary, depths: Iterable[Passkey]) -> None:
    """The same of a passkey test, whose depths are rows. One that stands twice, of a run that went on, counts once.

    Raises:
        ValueError: of the depths some are missing, or they add up to something else; a figure is not within its interval.
    """
    if own := {row.k: row for row in depths}:
        right, trials = (sum(getattr(row, name) for row in own.values()) for name in ("successes", "trials"))
        reached = k_max([(row.k, row.successes / row.trials) for row in own.values()])
        _compare([("depths", summary.depths, len(own)), ("passkeys found", summary.accuracy, right / trials)])
        _compare([("k_max", summary.k_max, reached)])
        if summary.key_tokens == KEY_DIGITS:
            for row in own.values():
                _check_digits(row)
    _within(summary.accuracy, summary.low, summary.high)
    if summary.k_high:  # rows of earlier versions have none
        _within(summary.k_max, summary.k_low, summary.k_high)


def _check_digits(row: Passkey) -> None:
    """Of a key that was found all digits are right, of one that was not at least one is wrong."""
    least, most = KEY_DIGITS * row.successes, KEY_DIGITS * row.trials - (row.trials - row.successes)
    if not least <= row.digits_right <= most:
        raise ValueError(
            f"{row.successes} of {row.trials} keys found have {least} to {most} digits right, got {row.digits_right}"
        )


def _compare(totals: _Totals) -> None:
    """To six digits, or 1e-6 near 0; nothing of what is not finite."""
    for what, total, parts in totals:
        if math.isfinite(total - parts) and not math.isclose(total, parts, rel_tol=1e-6, abs_tol=1e-6):
            raise ValueError(f"{what} in all and by part differ, {total:.6g} and {parts:.6g}")
