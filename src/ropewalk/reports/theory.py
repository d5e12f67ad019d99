"""What the theory says of a model in its new window: bounds as printed and as they hold, and angles."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from ropewalk.errors import UserError
from ropewalk.figures import theory as theory_figures
from ropewalk.records import format as number_format
from ropewalk.records.variant import METHODS
from ropewalk.reports.content import Line, Section, Table, cells
from ropewalk.reports.rows import Clean
from ropewalk.rope.bounds import Bounds
from ropewalk.rope.growth import Growth, check_size
from ropewalk.rope.scaling import Linear, Llama3, Ntk, Plain, Rope, Scaling, Yarn

Row = dict[str, Any]


def section(clean: Clean) -> Section | None:
    """The section of the newest forecast on record, or None without one. Its figures are worked out again: they cost no model."""
    rows = clean.of("theory_bounds")
    if not rows:
        return None
    row = max(rows, key=lambda row: row["header"].get("started", ""))
    mine = [other for other in clean.rows if other["run"] == row["run"]]
    resolution = [other for other in mine if other["kind"] == "theory_resolution"]
    try:
        rope = Rope(row["head_dim"], row["base"], row["window"])
        bounds = Bounds(**{field.name: row[field.name] for field in dataclasses.fields(Bounds)})
        check_size(rope, bounds.reach)
        growth = [_growth(other) for other in mine if other["kind"] == "theory_growth"]
        pictures = _pictures(rope, bounds.reach, growth, [_scaling(other, rope) for other in resolution])
        tables = [_bounds(bounds), *([_solvers(growth)] if growth else [])]
        tables += [_resolution(resolution), _bands(resolution)] if resolution else []
    except (UserError, TypeError, ValueError, KeyError):  # a row that was edited into nonsense
        return None
    made = Section("theory", "Theory", _lead(bounds))
    for drawing, caption, title in pictures:
        made.draw(drawing, caption, title)
    made.tables += tables
    made.notes.append("Proofs, and what the paper's own inequality gets wrong, are in docs/method.md.")
    return made


def _lead(found: Bounds) -> str:
    verdict = "holds" if found.holds else "is false"
    return (
        f"With {found.head_dim} rotated coordinates and base {found.base:g}, theorem 2.1 as printed {verdict}: it allows "
        f"{found.interpolation_printed:.4f} max|h| between two tokens where {found.interpolation_exact:.4f} is attained. What its proof "
        f"does give is {found.interpolation:.4f}. B(s)/d, which the paper reads as at least 1, falls to {found.b_min:.3f} in "
        f"{found.reach} tokens{_looked_at(found)} and is below 1 on {number_format.share(found.b_below_one, 1)} of them."
    )


def _looked_at(found: Bounds) -> str:
    return "" if found.b_stride == 1 else f" (one in {found.b_stride} looked at)"


def _growth(row: Row) -> Growth:
    """A row as it was before JSON, which has no NaN."""
    said: dict[str, Any] = {}
    for name in (field.name for field in dataclasses.fields(Growth)):
        value = row[name]
        if isinstance(value, list):
            said[name] = [math.nan if x is None else x for x in value]
        else:
            said[name] = math.nan if value is None else value
    return Growth(**said)


def _scaling(row: Row, rope: Rope) -> Scaling:
    """What a row is about; thresholds are not on record, and are the published ones."""
    factor = row["factor"]
    made = {"plain": lambda: Plain(), "linear": lambda: Linear(factor), "ntk": lambda: Ntk(factor)}
    made |= {"yarn": lambda: Yarn(factor), "llama3": lambda: Llama3(factor, 1.0, 4.0, rope.window)}
    return made[row["method"]]()


def _pictures(rope: Rope, reach: int, growth: list[Growth], scalings: list[Scaling]) -> list[tuple]:
    found = [
        (
            theory_figures.figure_5(rope, reach=max(reach, 2 * rope.window)),
            "The paper's figure 5, followed to the new window.",
            "B(s)/d by distance",
        )
    ]
    if growth:
        found.append(
            (
                theory_figures.growth(growth),
                "The paper's figure 2, followed farther: scores fitted to noise inside the window, the largest up to each distance, "
                "by how the fit is solved. The dotted line is the window.",
                "Why a fit explodes",
            )
        )
    if scalings:
        found.append(
            (
                theory_figures.resolution(rope, scalings),
                "How far one token turns each pair of coordinates. Shaded: pairs that never completed a turn in training.",
                "Angular resolution",
            )
        )
    return found


def _bounds(found: Bounds) -> Table:
    lines = [
        Line(
            "interpolation, halfway between tokens",
            cells(
                number_format.fixed(found.interpolation_printed, 4),
                number_format.fixed(found.interpolation, 4),
                number_format.fixed(found.interpolation_exact, 4),
            ),
        ),
        Line(
            "extrapolation, at its lowest beyond the window",
            cells(
                number_format.count(2 * found.head_dim),
                number_format.fixed(found.extrapolation_lowest, 1),
                number_format.fixed(found.trivial, 0),
            ),
        ),
        Line(
            "the second over the first, as read at B(s) = d",
            cells(
                *(
                    number_format.count(round(x))
                    for x in (found.ratio_printed, found.ratio_corrected, found.ratio_honest)
                )
            ),
        ),
    ]
    note = "The corrected ratio follows the paper's reading B(s) = d; the last one takes d/2, which no score exceeds."
    return Table("Bounds in units of max|h|", ["as printed", "as it holds", "exact"], lines, note=note)


def _solvers(growth: list[Growth]) -> Table:
    lines = [
        Line(
            row.solver,
            cells(*(number_format.significant(x, 3) for x in (row.inside, row.outside, row.lowest, row.highest))),
        )
        for row in growth
    ]
    head = ["inside", f"to {growth[0].reach - 1}", "least", "most"]
    note = f"Medians over {growth[0].seeds} draws of noise on 0 .. {growth[0].window - 1}; least and most are of the draws, outside."
    return Table("Figure 2 by solver: the largest |a(s)|", head, lines, note=note, first="solved by")


def _name(row: Row) -> str:
    return (
        "unscaled" if row["method"] == "plain" else f"{METHODS.get(row['method'], row['method'])} ×{row['factor']:.4g}"
    )


def _bands(rows: list[Row]) -> Table:
    lines = [
        Line(_name(row), cells(*(number_format.significant(band["after"], 2) for band in row["bands"]))) for row in rows
    ]
    head = [f"{band['name']}\n{band['pairs']} pairs" for band in rows[0]["bands"]]
    note = "Turns in the original window at the unscaled speeds; the mean of each band."
    return Table("Radians a token by frequency band", head, lines, note=note, first="method")


def _resolution(rows: list[Row]) -> Table:
    lines = [
        Line(
            _name(row),
            cells(
                number_format.fixed(row["mean_angle"], 4),
                number_format.share(row["kept"], 1),
                number_format.share(row["incomplete_after"], 1),
                number_format.share(row["unseen"], 1),
                number_format.times(row["overshoot"]),
            ),
        )
        for row in rows
    ]
    head = ["radians a token", "kept", "under a turn", "unseen angles", "farthest"]
    note = f"{number_format.share(rows[0]['incomplete'], 1)} of the pairs never complete a turn in the original window."
    return Table("Angles by method", head, lines, note=note, first="method")
