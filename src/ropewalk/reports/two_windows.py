"""What perplexity says in a verdict: of the model in its old window, in the new one, and from the one to the other.

in   the rows of one text, the base, the seeds of one training
out  sentences and tiles of a `Verdict`
"""

from __future__ import annotations

from collections.abc import Sequence

from ropewalk.evals.intervals import perplexity_over_seeds
from ropewalk.records import Perplexity
from ropewalk.records import format as number_format
from ropewalk.records.variant import Variant, befores
from ropewalk.reports.comparable import Group
from ropewalk.reports.content import Tile, Verdict
from ropewalk.reports.paired import Ratio, over, ratio
from ropewalk.reports.seeds import spread
from ropewalk.reports.short_window import moved

#: A perplexity of each seed that was measured.
OfSeeds = Sequence[Perplexity | None]


def tell(verdict: Verdict, group: Group, near: Group, base: Variant | None, seeds: Sequence[Variant]) -> None:
    """Add them. near: the group of the rows of the old window."""
    target = seeds[0] if seeds else None
    rows = group.variants()
    before = group.base_row()
    if target is None or target not in rows:
        if before:
            verdict.sentences.append(
                f"Its perplexity at {before.window} tokens is {number_format.perplexity(before.perplexity)}."
            )
        return
    read = [rows.get(seed, {}) for seed in seeds]
    inside, outside = ([at.get(window) for at in read] for window in (target.original_window, target.window))
    short = near.variants()
    if (base_there := near.base_row()) and any(target.original_window in short.get(seed, {}) for seed in seeds):
        _original_window(verdict, base_there, [short.get(seed, {}).get(target.original_window) for seed in seeds])
    if not any(outside):
        measured = ", ".join(map(str, sorted(rows[target])))
        verdict.sentences.append(
            f"Its perplexity was measured at {measured} tokens and not at {target.window}: of the new window it does not tell."
        )
    else:
        stretched = rows.get(base, {}).get(target.window) if base else None
        untrained = next((row for v in befores(target, rows) if (row := rows[v].get(target.window))), None)
        others = {"the base, extrapolating,": stretched, target.recipe.before: untrained}
        told = [f"{name} {number_format.perplexity(row.perplexity)}" for name, row in others.items() if row]
        _new_window(verdict, inside, outside, before, told)


def _original_window(verdict: Verdict, before: Perplexity, inside: OfSeeds) -> None:
    change = over([ratio(before, row) if row else None for row in inside])
    figures = moved(before, [row for row in inside if row])
    if change is None or not figures:
        return
    # A tile is narrow: long figures may go on in a second line, but not be torn.
    verdict.tiles.append(
        Tile(
            f"perplexity at {before.window}",
            figures.replace("\u00a0→", " →"),
            ", ".join(filter(None, [number_format.percent(change.value - 1), change.of_shared])),
        )
    )


def _new_window(
    verdict: Verdict,
    inside: OfSeeds,
    outside: OfSeeds,
    before: Perplexity | None,
    parts: list[str],
) -> None:
    """before: the base in its own window. parts: what other states have at the new one."""
    figures = [row.perplexity for row in outside if row]
    window = next(row.window for row in outside if row)
    mean, _, _ = perplexity_over_seeds([(row.perplexity, *row.bounds) for row in outside if row])
    value, around = number_format.perplexity(mean), spread(figures, number_format.perplexity, len(outside))
    change = over([ratio(before, row) if row and before else None for row in outside])
    parts = [around, *parts] if around else parts
    in_brackets = "; ".join(parts)
    finding = f"At {window} tokens: {value}" + (f" ({in_brackets})" if in_brackets else "")
    unfilled = next((row.unfilled for row in outside if row and row.unfilled), "")
    if unfilled:
        finding += f"; {unfilled}, so of a context that long it tells nothing"
    elif before and change and not any(inside):  # the reader would take it for a loss or a gain
        level = number_format.perplexity(before.perplexity)
        finding += (
            f"; the base at {before.window} tokens has {level}, which is of another window: no better or worse follows"
        )
    elif change and before and before.caveat and not change.low > 1:  # a rise is one with more context, too
        finding += f"; the base's at {before.window} tokens is not compared with it, because at so coarse a stride many tokens have little before them"  # the cautions say why
    elif change:
        finding += f"; against the base in its own window {change.brief}"
    verdict.sentences.append(f"{finding}.")
    longer = over([ratio(near, far) if near and far else None for near, far in zip(inside, outside, strict=True)])
    if longer and not unfilled:
        brief = "" if verdict.says(f": {longer.brief})") else f": {longer.brief}"
        verdict.sentences.append(_reading(longer, change, next(filter(None, inside)), window, brief))
    verdict.tiles.append(Tile(f"perplexity at {window}", value, parts[0] if parts else ""))


def _reading(longer: Ratio, change: Ratio | None, near: Perplexity, long: int, figures: str) -> str:
    """Whether the longer context helps: the same model, the same documents, more of them in sight. change: against the base in its own window. near: its row of the shorter window.

    The base in its window is no yardstick by itself: training alone can bring a model below that, and a model that was wrecked may fall, far above it.
    """
    moved = f"From {near.window} to {long} tokens its perplexity"
    if longer.too_few:
        return f"{moved} changes by {longer}, which may be chance."
    if not number_format.is_finite(longer.low):
        return f"{moved} changes by {longer}, without an interval."
    if longer.low > 1:
        return f"{moved} rises, so the longer context does harm{figures}."
    if near.caveat:
        direction = "falls" if longer.high < 1 else "does not change beyond chance"
        return f"{moved} {direction}{figures}, which by the stride tells nothing of context beyond {near.window}."
    if longer.high < 1:
        if change is None:
            return f"{moved} falls{figures}; without the base's at {near.window} on the same text it cannot be told whether the longer context is of use."
        if change.is_rise:
            return f"{moved} falls{figures}, but stays above the base's at {near.window}, so nothing was gained by the longer window."
        return f"{moved} falls, so context beyond {near.slide.least} tokens is put to use{figures}."
    return f"{moved} does not change beyond chance{figures}."
