"""What the theory says of a model in its new window: bounds as printed and as they hold, and angles."""

from __future__ import annotations

import dataclasses
from typing import Any

from ropewalk import numerals, plot_theory, theory
from ropewalk.errors import UserError
from ropewalk.report.content import Line, Section, Table, cells
from ropewalk.report.rows import Clean
from ropewalk.rope import Rope
from ropewalk.states import METHODS

Row = dict[str, Any]


def section(clean: Clean) -> Section | None:
    """The section of the newest forecast on record, or None without one. Its figures are worked out again: they cost no model."""
    rows = clean.of("theory_bounds")
    if not rows:
        return None
    row = max(rows, key=lambda row: row["header"].get("started", ""))
    mine = [other for other in clean.rows if other["run"] == row["run"]]
    try:
        rope = Rope(row["head_dim"], row["base"], row["window"])
        bounds = theory.Bounds(**{field.name: row[field.name] for field in dataclasses.fields(theory.Bounds)})
        pictures = _pictures(rope, bounds.reach)
    except (UserError, TypeError, ValueError):  # a row that was edited into nonsense
        return None
    made = Section("theory", "Theory", _lead(bounds))
    for drawing, caption, title in pictures:
        made.draw(drawing, caption, title)
    made.tables.append(_bounds(bounds))
    resolution = [other for other in mine if other["kind"] == "theory_resolution"]
    if resolution:
        made.tables.append(_resolution(resolution))
    made.notes.append("Proofs, and what the paper's own inequality gets wrong, are in docs/method.md.")
    return made


def _lead(found: theory.Bounds) -> str:
    verdict = "holds" if found.holds else "is false"
    return (
        f"With {found.head_dim} rotated coordinates and base {found.base:g}, theorem 2.1 as printed {verdict}: it allows "
        f"{found.interpolation_printed:.4f} max|h| between two tokens where {found.interpolation_exact:.4f} is attained. What its proof "
        f"does give is {found.interpolation:.4f}. B(s)/d, which the paper reads as at least 1, falls to {found.b_min:.3f} in "
        f"{found.reach} tokens and is below 1 on {numerals.share(found.b_below_one, 1)} of them."
    )


def _pictures(rope: Rope, reach: int) -> list[tuple]:
    scalings = theory.scalings_for(rope, reach)
    return [
        (
            plot_theory.figure_5(rope, reach=max(reach, 2 * rope.window)),
            "The paper's figure 5, followed to the new window.",
            "B(s)/d by distance",
        ),
        (
            plot_theory.resolution(rope, scalings),
            "How far one token turns each pair of coordinates. Shaded: pairs that never completed a turn in training.",
            "Angular resolution",
        ),
    ]


def _bounds(found: theory.Bounds) -> Table:
    lines = [
        Line(
            "interpolation, halfway between tokens",
            cells(
                numerals.fixed(found.interpolation_printed, 4),
                numerals.fixed(found.interpolation, 4),
                numerals.fixed(found.interpolation_exact, 4),
            ),
        ),
        Line(
            "extrapolation, at its lowest beyond the window",
            cells(
                numerals.count(2 * found.head_dim),
                numerals.fixed(found.extrapolation_lowest, 1),
                numerals.fixed(found.trivial, 0),
            ),
        ),
        Line(
            "the second over the first",
            cells(
                *(numerals.count(round(x)) for x in (found.ratio_printed, found.ratio_corrected, found.ratio_honest))
            ),
        ),
    ]
    note = "The corrected ratio follows the paper's reading B(s) = d; the last one takes d/2, which no score exceeds."
    return Table("Bounds in units of max|h|", ["as printed", "as it holds", "exact"], lines, note=note)


def _resolution(rows: list[Row]) -> Table:
    lines = [
        Line(
            "unscaled"
            if row["method"] == "plain"
            else f"{METHODS.get(row['method'], row['method'])} ×{row['factor']:.4g}",
            cells(
                numerals.fixed(row["mean_angle"], 4),
                numerals.share(row["kept"], 1),
                numerals.share(row["incomplete_after"], 1),
                numerals.share(row["unseen"], 1),
                numerals.times(row["overshoot"]),
            ),
        )
        for row in rows
    ]
    head = ["radians a token", "kept", "under a turn", "unseen angles", "farthest"]
    note = f"{numerals.share(rows[0]['incomplete'], 1)} of the pairs never complete a turn in the original window."
    return Table("Angles by method", head, lines, note=note, first="method")
