"""Several methods of which nothing beyond the old window was measured: no one of them is what a verdict is about.

in   clean rows, the variants of a base model, a group of perplexities
out  the sentences that stand in place of one extension's
"""

from __future__ import annotations

from collections.abc import Sequence

from ropewalk.records import Step
from ropewalk.records.recipe import differing
from ropewalk.records.variant import Variant, seeds_of_rows, told_apart
from ropewalk.reports.comparable import Group
from ropewalk.reports.paired import over, ratio
from ropewalk.reports.rows import Clean
from ropewalk.reports.short_window import moved
from ropewalk.sentences import joined


def only_inside(clean: Clean, variants: Sequence[Variant]) -> list[Variant]:
    """The extended variants, if they are of several methods, trained or untrained all, and all their rows are of the old window or shorter; else none."""
    reached: dict[Variant, int] = {}
    for m in clean.measurements:
        if m.model_variant in variants and m.model_variant.extended and not isinstance(m.row, Step):
            window = getattr(m.row, "window", 0)
            reached[m.model_variant] = max(window, reached.get(m.model_variant, 0))
    inside = all(0 < window <= variant.original_window for variant, window in reached.items())
    alike = len({variant.role for variant in reached}) == 1 and len({variant.method_label for variant in reached}) > 1
    return list(reached) if inside and alike else []


def extensions(name: str, inside: Sequence[Variant]) -> str:
    """What was made of the base called `name`."""
    how = joined(sorted({f"{variant.method_and_factor}" for variant in inside}))
    return f"{name} was extended by {how}; each was measured inside the old window of {inside[0].original_window} tokens alone."


def compared(group: Group, inside: Sequence[Variant]) -> str:
    """Each against the base at the longest window that all share, paired; nothing where they share none."""
    rows = {variant: at for variant, at in group.variants().items() if variant in inside}
    base = next((at for v, at in group.variants().items() if v.role == "base" and not v.steps), {})
    shared = set(base).intersection(*rows.values())
    if len(rows) < len(inside) or not shared:
        return ""
    window, seeds = max(shared), seeds_of_rows(list(rows))
    settings = differing([row[0].recipe for row in seeds])
    names = told_apart({row[0]: row[0].method_and_factor for row in seeds}, lambda variant: variant, settings)
    changes = [over([ratio(base[window], rows[v][window]) for v in row]) for row in seeds]
    figures = [moved(base[window], [rows[v][window] for v in row]) for row in seeds]
    told = "; ".join(
        f"{names[row[0]]} {moves}" + (f", {change}" if change else "")
        for row, moves, change in zip(seeds, figures, changes, strict=True)
        if moves
    )
    return (
        told
        and f"At {window} tokens, inside the old window, against the base: {told}. Of longer windows that tells nothing."
    )
