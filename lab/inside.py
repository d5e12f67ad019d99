"""Why Position Interpolation loses retrieval inside the old window, and after how many tokens it comes back: what the rows say, and what the theory's count does not explain.

in   the rows of a model by factor (level b) and those at factor 4 by training tokens (levels a and c)
out  Markdown; empty of a model that finds few passkeys itself, or that was not measured by factor
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from explain import Point, points
from rows import Row, base_of
from tables import budget, grouped, order
from trained_states import states

from ropewalk.records.attention_summary import gist
from ropewalk.records.format import fixed
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
    interpolated = sorted((p for p in untrained if p.row.asked["method"] == _METHOD), key=_factor)
    others = [point for point in untrained if point not in interpolated]
    lost = next((number for number, point in enumerate(interpolated) if not point.row.finds), 0)
    if not lost:
        return ""
    kept = [f", which keeps {share(point.theory.kept, 1)} of the mean angle a token" for point in interpolated]
    trained = sorted((row for row in rows if row.asked["method"] == _METHOD and row.asked["tokens"]), key=order)
    early = sorted((row for row in by_factor if row.asked["method"] == _METHOD and row.asked["tokens"]), key=order)
    return (
        f"### Why does PI lose retrieval inside the old window, and when does it come back? {model}\n\n"
        f"**Why.** By a factor f it divides every angle a token by f, so that neighbouring tokens are f times as hard to tell apart (`ropewalk theory`). Untrained it finds, of the passkeys at {base.window} (the base: {_found(base)}), {_down([point.row for point in interpolated], kept)}. "
        f"So by this one method retrieval is lost as that angle shrinks, but {_contrary(*interpolated[lost - 1 : lost + 1], others)}\n\n"
        f"**When.** By {extended.asked['factor']:g} it finds, of the passkeys at {extended.window} (the base: {_counts([extended])}), "
        f"{'; '.join(_budget(seeds) for seeds in grouped(trained, lambda row: row.asked['tokens']))}. How many tokens it takes is thus a matter of the seed and of the factor too, and for all that these rows say of the rate. {_early(early)}{_attention(rows, extended)}"
    )


def _down(rows: Sequence[Row], kept: Sequence[str]) -> str:
    """What it finds by each factor up to the last by which it finds any."""
    some = max((number for number, row in enumerate(rows) if row.passkeys[row.window].accuracy), default=-1) + 1
    told = [f"{_found(row)} by {row.asked['factor']:g}{words}" for row, words in zip(rows[:some], kept, strict=False)]
    return joined([*told, *["none by more"] * (some < len(rows))])


def _contrary(finds: Point, fails: Point, others: Sequence[Point]) -> str:
    """Rows of other methods that the count is wrong of: they keep no more of the angle than the one that fails and find, or as much as the one that finds and fail."""
    able = [each for each in others if each.theory.kept <= fails.theory.kept and each.row.finds]
    unable = [each for each in others if each.theory.kept >= finds.theory.kept and not each.row.finds]
    told = [f"{_list(able)}, though no more of the angle is kept than by PI by {_factor(fails):g}"] * bool(able)
    told += [f"{_list(unable)}, though more is kept than by PI by {_factor(finds):g}"] * bool(unable)
    edge = f"a count that falls evenly does not say why the edge lies between {_factor(finds):g} and {_factor(fails):g}"
    return f"**that does not explain it**: {'; '.join([*told, edge])}."


def _factor(point: Point) -> float:
    return point.row.asked["factor"]


def _list(found: Iterable[Point]) -> str:
    """What each finds, and how much of the mean angle it keeps."""
    return joined(
        f"{point.row.method} by {_factor(point):g} ({share(point.theory.kept, 1)} kept) finds {_found(point.row)}"
        for point in found
    )


def _found(row: Row) -> str:
    return share(row.passkeys[row.window].accuracy)


def _counts(seeds: Iterable[Row]) -> str:
    """Of each seed, of how many prompts."""
    asked = [row.passkeys[row.window] for row in seeds]
    return joined(f"{each.found} of {each.prompts}" for each in asked)


def _budget(seeds: Sequence[Row]) -> str:
    first = seeds[0].asked
    which = f"seed{'s' * (len(seeds) > 1)} {', '.join(str(row.asked['seed']) for row in seeds)}"
    return f"after {budget(first['tokens'])} tokens {_counts(seeds)} ({which}, at {first['learning_rate']:g})"


def _early(rows: Sequence[Row]) -> str:
    """What it finds by smaller factors after the fewest tokens."""
    if not rows:
        return ""
    tokens, rate = rows[0].asked["tokens"], rows[0].asked["learning_rate"]
    return f"After {budget(tokens)} at {rate:g} it finds {_down(rows, [''] * len(rows))} (one seed). "


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
