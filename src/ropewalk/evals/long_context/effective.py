"""How long a context is used: RULER's effective length, and the same against the model's own short window.

in   scores of tasks at several lengths
out  the mean by length with its interval, and the lengths that it holds to

**RULER's effective length** (Hsieh et al. 2024, section 4) is the longest length whose mean over the thirteen tasks is above 85.6, what Llama-2-7B-chat
has at 4096 tokens. Here all shorter lengths that were measured must be above it too. Its interval: from the longest length up to which all are surely
above (the lower end of each interval is) to the longest up to which none is surely below (of as many lengths as there are together: each by its part of 2.5 %).

**The same tasks at all lengths.** A mean over other tasks is another measure: short items leave out the hard tasks that need room. So of tasks that do not
fit every length none counts, at the lengths that they fit neither, and with fewer than thirteen the sentence says of which tasks it is.

**Against the short window**: the longest length up to which no score is surely below the one at the short window, which is the longest length measured
that does not exceed the window of pretraining, or the shortest. Few items leave wide intervals, and little is sure then: the change and its interval
stand beside it.

**Intervals** are 95 %: `evals.intervals.share_interval` of the mean of a task's scores, and of a mean over tasks, whose items count as those of one
task. That of a difference of two lengths is put together from theirs by MOVER (Zou & Donner 2008): the squared distances of the ends add up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ropewalk import records
from ropewalk.evals.intervals import share_interval

#: What Llama-2-7B-chat scores at 4096 tokens: the threshold of RULER's effective length.
THRESHOLD = 0.856


@dataclass(frozen=True)
class Mean:
    """A score from 0 to 1 with its 95 % interval."""

    score: float
    low: float
    high: float

    def __sub__(self, other: Mean) -> Mean:
        change = self.score - other.score
        return Mean(
            change,
            change - math.hypot(self.score - self.low, other.high - other.score),
            change + math.hypot(self.high - self.score, other.score - other.low),
        )


def mean(rows: Sequence[records.LongTask], tail: float = 0.025) -> Mean:
    """Of tasks at one length, each counting the same; `tail` is the chance of error to either side.

    Tasks of unequally many items are as sure as so many items in all that each had as many: the harmonic mean of theirs.
    """
    score = math.fsum(row.score for row in rows) / len(rows)
    items = len(rows) ** 2 / math.fsum(1 / row.items for row in rows)
    return Mean(score, *share_interval(score * items, items, tail))


def effective(
    rows: Sequence[records.LongTask],
    original: int,
    left_out: dict[str, str],
    of: Sequence[str],
    unfit: Sequence[records.Unfit] = (),
) -> records.EffectiveLength:
    """The summary of one measurement.

    Args:
        rows: of some tasks at some lengths, one of them at least of `of`.
        original: the window of pretraining, tokens.
        left_out: tasks that could not be made, and why.
        of: the tasks whose mean it is: those that are there at all lengths.
        unfit: tasks that did not fit a length.
    """
    rows = [row for row in rows if row.task in of]
    windows = sorted({row.window for row in rows})
    while not (tasks := _at_all(windows, rows, of)):  # a length that another task than these fits
        windows = windows[1:]
    by_window = {window: [row for row in rows if row.window == window and row.task in tasks] for window in windows}
    means = {window: mean(of_window) for window, of_window in by_window.items()}
    highest = {window: mean(of_window, 0.025 / len(means)).high for window, of_window in by_window.items()}
    short = max((window for window in means if window <= original), default=min(means))
    changes = {window: each - means[short] for window, each in means.items()}

    def reach(holds: Callable[[int], bool]) -> int:
        reached = 0
        for window in means:
            if not holds(window):
                break
            reached = window
        return reached

    return records.EffectiveLength(
        tasks=tasks,
        left_out=left_out,
        unfit=list(unfit),
        by_window=[
            {
                "window": window,
                "score": each.score,
                "low": each.low,
                "high": each.high,
                "change": changes[window].score,
                "change_low": changes[window].low,
                "change_high": changes[window].high,
            }
            for window, each in means.items()
        ],
        threshold=THRESHOLD,
        effective=reach(lambda window: means[window].score > THRESHOLD),
        effective_low=reach(lambda window: means[window].low > THRESHOLD),
        effective_high=reach(lambda window: highest[window] > THRESHOLD),
        short=short,
        # Nothing is worse than a mean of 0, and what was never found does not hold.
        holds_to=reach(lambda window: means[short].score > 0 and (window <= short or changes[window].high >= 0)),
    )


def _at_all(windows: Sequence[int], rows: Sequence[records.LongTask], of: Sequence[str]) -> list[str]:
    """Of these tasks those that were measured at each of the lengths."""
    measured = {(row.task, row.window) for row in rows}
    return [task for task in of if all((task, window) in measured for window in windows)]
