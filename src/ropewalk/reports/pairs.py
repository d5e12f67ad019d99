"""Methods against the winner, one by one: by how much each differs from it, and how sure that is.

in   a contest (contests.py)
out  a table: losses paired over documents, retrieval over prompts, all over seeds
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ropewalk.evals.intervals import Paired
from ropewalk.figures import style
from ropewalk.records import format as number_format
from ropewalk.records.variant import Variant
from ropewalk.reports import contenders, retrieval
from ropewalk.reports.contenders import Contender
from ropewalk.reports.content import Cell, Line, Table
from ropewalk.reports.methods import Contest
from ropewalk.reports.paired import Bounded, alone, asked_apart, between, loss_difference
from ropewalk.reports.rows import Clean

_Difference = Callable[[Clean, Variant, Variant, int], Bounded | None]


def table(clean: Clean, contest: Contest) -> Table:
    """A line a method, a column a difference from the winner, or from the best of those that cannot be told apart."""
    best, window = contest.leader, contest.window
    old = best.variants[0].original_window
    rows = contest.group.variants()

    def line(other: Contender) -> Line:
        def loss(at: int) -> Bounded | None:
            mine, theirs = ([v for v in each.variants if at in rows[v]] for each in (other, best))
            return between(mine, theirs, lambda a, b: loss_difference(rows[b][at], rows[a][at]))

        def asked(difference: _Difference) -> Bounded | None:
            return between(other.variants, best.variants, lambda a, b: difference(clean, b, a, window))

        figures = [(loss(window), number_format.signed), (loss(old), number_format.signed)]
        figures += [(asked(_passkeys), number_format.points), (asked(_retrieval), number_format.points)]
        cells = [_cell(figure, write) for figure, write in figures] + [
            Cell(_seeds(other), alone(other.variants, best.variants))
        ]
        return Line(other.named(contest.settings), cells, colour=style.colour(other.variants[0], clean.colours))

    title = "the winner" if len(contest.ranking.level) == 1 else "the best, though no winner"
    seeds = f" (seed{'s' if ',' in _seeds(best) else ''} {_seeds(best)})" if _seeds(best) else ""
    return Table(
        f"Against {title}, {best.named(contest.settings)}{seeds}; {contest.budget}; {contest.group.heading}",
        [f"loss at {window}\nnats", f"loss at {old}\nnats", "passkeys found\npoints", "retrieval\npoints", "seeds"],
        [line(other) for other in contest.contenders if other is not best],
        first="method",
        note=f"Each method minus {best.label}: a loss above 0 is worse, points below 0 are. Small figures: 95 % intervals, losses paired over documents and "
        f"retrieval over prompts, with Student's between seeds where there are several: of their differences seed by seed over the seeds that a method and {best.label} both have, where these are two or more, "
        "else of each method's seeds by themselves; set bold where one leaves out zero. Passkeys and retrieval are of prompts of their own, not of this text.",
    ).filled


def _seeds(contender: Contender) -> str:
    return ", ".join(str(v.recipe.seed) for v in contender.variants if v.recipe.seed is not None)


def _cell(figure: Bounded | None, write: Callable[[Any], str]) -> Cell:
    if figure is None:
        return Cell("")
    value, low, high = figure
    if write is number_format.points:  # of shares
        low, high = max(low, -1.0), min(high, 1.0)
    return Cell.of(value, write, low, high, strong=low > 0 or high < 0)


def _passkeys(clean: Clean, first: Variant, second: Variant, window: int) -> Bounded | None:
    """Second minus first. Which prompts were right is not on record, so they count as asked apart."""
    before, after = (contenders.passkeys_found(clean, variant, window) for variant in (first, second))
    if before is None or after is None:
        return None
    return asked_apart(before, after)


def _retrieval(clean: Clean, first: Variant, second: Variant, window: int) -> Bounded | None:
    """Second minus first, prompt by prompt, over the families that both were asked; None where the prompts are not the same."""
    trials = [_trials(clean, variant, window) for variant in (first, second)]
    families = sorted(trials[0].keys() & trials[1].keys())
    before, after = ([trial for family in families for trial in each[family]] for each in trials)
    if not before or [trial["placed"] for trial in before] != [trial["placed"] for trial in after]:
        return None
    pair = Paired.of([trial["right"] for trial in before], [trial["right"] for trial in after])
    return pair.difference, *pair.interval()


def _trials(clean: Clean, variant: Variant, window: int) -> dict[str, list]:
    return {row.family: row.per_trial for row in retrieval.rows_of(clean, variant, window) if row.per_trial}
