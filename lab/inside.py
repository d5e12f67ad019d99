"""Why Position Interpolation loses retrieval inside the old window, and after how many tokens it comes back: what the rows say, and what the theory's count does not explain.

in   the rows of a model by factor (level b) and those at factor 4 by training tokens (levels a and c)
out  Markdown; empty of a model that finds few passkeys itself, or that was not measured by factor

What decides is the digits of the keys, by their intervals: whole keys are lost where one digit is, and show an edge where digits fade.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from explain import Point, points
from rows import Row, base_of
from tables import budget, grouped, order
from trained_states import states

from ropewalk.records.attention_summary import gist
from ropewalk.records.format import fixed
from ropewalk.records.retrieval import CHANCE
from ropewalk.reports.paired import Bounded
from ropewalk.sentences import joined, share

_METHOD = "linear"


def section(model: str, by_factor: Sequence[Row], rows: Sequence[Row]) -> str:
    """
    Args:
        by_factor: untrained and trained. rows: at factor 4, at their chosen rates.
    """
    base, extended = base_of(by_factor), base_of(rows)
    if base is None or extended is None or not base.finds:
        return ""
    known = {row.method for row in by_factor}
    untrained = points([(model, [*by_factor, *(row for row in rows if row.method not in known)], base)])
    untrained = [point for point in untrained if base.window in point.row.digits]
    interpolated = sorted((p for p in untrained if p.row.asked["method"] == _METHOD), key=_factor)
    others = [point for point in untrained if point not in interpolated]
    before = base.digits.get(base.window, (0.0, 0.0, 0.0))
    lost = next((number for number, point in enumerate(interpolated) if _digits(point)[2] < before[1]), 0)
    if not lost:
        return ""
    kept = [f", which keeps {share(point.theory.kept, 1)} of the mean angle a token" for point in interpolated]
    trained = sorted((row for row in rows if row.asked["method"] == _METHOD and row.asked["tokens"]), key=order)
    budgets = grouped(trained, lambda row: row.asked["tokens"])
    early = sorted((row for row in by_factor if row.asked["method"] == _METHOD and row.asked["tokens"]), key=order)
    return (
        f"### Why does PI lose retrieval inside the old window, and when does it come back? {model}\n\n"
        f"**Why.** By a factor f it divides every angle a token by f, so that neighbouring tokens are f times as hard to tell apart (`ropewalk theory`). Untrained it finds, of the passkeys at {base.window} (the base: {_found(base)}), {_down([point.row for point in interpolated], kept)}; of their digits (the base: {_right([base])}, by chance {share(CHANCE)}), {_right_by([point.row for point in interpolated])}. "
        f"So by this one method {_lost(interpolated, lost)} but {_contrary(*interpolated[lost - 1 : lost + 1], others)}\n\n"
        f"**When.** By {extended.asked['factor']:g} it finds, of the passkeys at {extended.window} (the base: {_counts([extended])}, of the digits {_right([extended])}), "
        f"{'; '.join(_budget(seeds) for seeds in budgets)}. {_back(budgets)}How many tokens it takes is thus a matter of the seed and of the factor too, and for all that these rows say of the rate. {_early(early)}{_attention(rows, extended)}"
    )


def _down(rows: Sequence[Row], kept: Sequence[str]) -> str:
    """What it finds by each factor up to the last by which it finds any."""
    some = max((number for number, row in enumerate(rows) if row.passkeys[row.window].accuracy), default=-1) + 1
    told = [f"{_found(row)} by {row.asked['factor']:g}{words}" for row, words in zip(rows[:some], kept, strict=False)]
    return joined([*told, *["none by more"] * (some < len(rows))])


def _lost(points: Sequence[Point], lost: int) -> str:
    """Whether digits are lost at once, or from one factor to a later one."""
    last = max((number for number, point in enumerate(points) if _digits(point)[1] > CHANCE), default=0)
    finds, fails = _factor(points[lost - 1]), _factor(points[lost])
    if last < lost:
        return f"retrieval is lost as that angle shrinks, between {finds:g} and {fails:g},"
    return (
        "digits are lost by degrees as that angle shrinks, where whole keys alone would show an edge: "
        f"fewer are right than in the base from {fails:g} on, and more than by chance up to {_factor(points[last]):g}, both beyond their intervals;"
    )


def _contrary(finds: Point, fails: Point, others: Sequence[Point]) -> str:
    """Rows of other methods that the count is wrong of: they keep no more of the angle than the one that fails and have more digits right, or keep as much as the one that finds and have fewer, beyond both intervals."""
    able = [each for each in others if each.theory.kept <= fails.theory.kept and _digits(each)[1] > _digits(fails)[2]]
    unable = [each for each in others if each.theory.kept >= finds.theory.kept and _digits(each)[2] < _digits(finds)[1]]
    told = [f"{_list(able)}, though no more of the angle is kept than by PI by {_factor(fails):g}"] * bool(able)
    told += [f"{_list(unable)}, though more is kept than by PI by {_factor(finds):g}"] * bool(unable)
    return (
        f"**that does not explain it**: {'; '.join(told)}."
        if told
        else "these rows have nothing else to hold that against."
    )


def _factor(point: Point) -> float:
    return point.row.asked["factor"]


def _list(found: Iterable[Point]) -> str:
    """What each finds, and how much of the mean angle it keeps."""
    return joined(
        f"{point.row.method} by {_factor(point):g} ({share(point.theory.kept, 1)} kept) finds {_found(point.row)} (digits {_right([point.row])})"
        for point in found
    )


def _found(row: Row) -> str:
    return share(row.passkeys[row.window].accuracy)


def _digits(point: Point) -> Bounded:
    """The share of digits right in the old window, and its interval."""
    return point.row.digits[point.row.window]


def _right(seeds: Iterable[Row]) -> str:
    """The digits of each seed."""
    return joined(share(row.digits[row.window][0]) for row in seeds if row.window in row.digits)


def _right_by(rows: Sequence[Row]) -> str:
    """Of each factor the digits."""
    return joined(f"{_right([row])} by {row.asked['factor']:g}" for row in rows)


def _back(budgets: Sequence[Sequence[Row]]) -> str:
    """From which budget on digits are right more often than by chance in every seed, and how far apart seeds are in digits and in keys."""
    right = [[row.digits[row.window] for row in seeds] for seeds in budgets]
    first = next((n for n in range(len(right)) if all(low > CHANCE for each in right[n:] for _, low, _ in each)), None)
    told = [] if first is None else [f"More digits are right than by chance in every seed from {budget(budgets[first][0].asked['tokens'])} on. "]  # fmt: skip
    for seeds, digits in zip(budgets, right, strict=True):
        keys = [row.passkeys[row.window].accuracy for row in seeds]
        values = [value for value, _, _ in digits]
        if max(values) - min(values) < max(keys) - min(keys):
            told.append(f"After {budget(seeds[0].asked['tokens'])} seeds differ less in digits ({share(min(values))} to {share(max(values))}) than in keys ({share(min(keys))} to {share(max(keys))}), which a single wrong digit loses. ")  # fmt: skip
    return "".join(told)


def _counts(seeds: Iterable[Row]) -> str:
    """Of each seed, of how many prompts."""
    asked = [row.passkeys[row.window] for row in seeds]
    return joined(f"{each.found} of {each.prompts}" for each in asked)


def _budget(seeds: Sequence[Row]) -> str:
    first = seeds[0].asked
    which = f"seed{'s' * (len(seeds) > 1)} {', '.join(str(row.asked['seed']) for row in seeds)}"
    return f"after {budget(first['tokens'])} tokens {_counts(seeds)}, of the digits {_right(seeds)} ({which}, at {first['learning_rate']:g})"


def _early(rows: Sequence[Row]) -> str:
    """What it finds by smaller factors after the fewest tokens."""
    if not rows:
        return ""
    tokens, rate = rows[0].asked["tokens"], rows[0].asked["learning_rate"]
    return f"After {budget(tokens)} at {rate:g} it finds {_down(rows, [''] * len(rows))}, of the digits {_right_by(rows)} (one seed). "


def _attention(rows: Sequence[Row], base: Row) -> str:
    """What the scores of one document say: how far neighbours are told apart, and how much attention the token before has."""
    first = states(base)
    if len(first) != 3:
        return ""
    told = [("the base", first[0]), ("PI untrained", first[2])]
    told += [
        (f"PI after {budget(row.asked['tokens'])} (seed {row.asked['seed']})", state)
        for row in sorted(rows, key=order)
        if row.asked["method"] == _METHOD and row.asked["tokens"]
        for state in states(row)
    ]
    gists = [(name, gist(state, base.window)) for name, state in told]
    before = ", ".join(f"{share(found.previous)} ({name})" for name, found in gists)
    apart = ", ".join(fixed(found.resolution, 3) for _, found in gists)
    return (
        f"In one book the token before gets {before} of the attention; the change of a score from one token to the next over its spread is {apart}. So the resolution itself hardly comes back: what training mends is what reads it, "
        "and how it does so is not measured here."
    )
