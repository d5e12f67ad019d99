"""What the theory says of a model in its new window: bounds as printed and as they hold, and angles."""

from __future__ import annotations

from matplotlib.figure import Figure

from ropewalk.errors import UserError
from ropewalk.figures import theory as theory_figures
from ropewalk.records import Unspecified
from ropewalk.records import format as number_format
from ropewalk.reports.content import Line, Section, Table, cells
from ropewalk.reports.rows import Clean
from ropewalk.rope.bounds import Bounds
from ropewalk.rope.growth import Growth, check_size
from ropewalk.rope.resolution import Resolution
from ropewalk.rope.scaling import Rope
from ropewalk.sentences import counted


def section(clean: Clean) -> Section | None:
    """The section of the newest forecast on record, or None without one. Its figures are worked out again: they cost no model."""
    forecasts = clean.of(Bounds)
    if not forecasts:
        return None
    newest = max(forecasts, key=lambda m: m.run.started)
    growth = [m.row for m in clean.of(Growth) if m.run is newest.run]
    resolution = [m.row for m in clean.of(Resolution) if m.run is newest.run]
    try:
        return _section(newest.row, growth, resolution)
    except (UserError, TypeError, ValueError, IndexError):  # a row that was edited into nonsense
        return None


def _section(bounds: Bounds, growth: list[Growth], resolution: list[Resolution]) -> Section:
    rope = Rope(bounds.head_dim, bounds.rope_theta, bounds.window)
    check_size(rope, bounds.reach)
    part = Section("theory", "Theory", _lead(bounds))
    for drawing, caption, title in _pictures(rope, bounds.reach, growth, resolution):
        part.draw(drawing, caption, title)
    part.tables += [_resolution(resolution)] if resolution else []
    part.tables += [_bounds(bounds), *([_solvers(growth)] if growth else [])]
    part.tables += [_bands(resolution)] if resolution else []
    if unknown := [_name(row) for row in resolution if isinstance(row.scaling, Unspecified)]:
        part.notes.append(f"Not drawn, because their thresholds are not on record: {', '.join(unknown)}.")
    part.notes.append("Proofs, and what the paper's own inequality gets wrong, are in docs/method.md.")
    return part


def _lead(bounds: Bounds) -> str:
    verdict = "holds" if bounds.holds else "is false"
    return (
        f"With {bounds.head_dim} rotated coordinates and rope_theta {bounds.rope_theta:g}, theorem 2.1 as printed {verdict}: it allows "
        f"{bounds.interpolation_printed:.4f} max|h| between two tokens where {bounds.interpolation_exact:.4f} is attained. What its proof "
        f"does give is {bounds.interpolation:.4f}. B(s)/d, which the paper reads as at least 1, falls to {bounds.b_min:.3f} in "
        f"{bounds.reach} tokens{_looked_at(bounds)} and is below 1 on {number_format.share(bounds.b_below_one, 1)} of them."
    )


def _looked_at(bounds: Bounds) -> str:
    return "" if bounds.b_stride == 1 else f" (one in {bounds.b_stride} looked at)"


def _pictures(
    rope: Rope, reach: int, growth: list[Growth], resolution: list[Resolution]
) -> list[tuple[Figure, str, str]]:
    """(figure, caption, title) of each."""
    pictures = [
        (
            theory_figures.figure_5(rope, reach=max(reach, 2 * rope.window)),
            "The paper's figure 5, followed to the new window.",
            "B(s)/d by distance",
        )
    ]
    if growth:
        pictures.append(
            (
                theory_figures.growth(growth),
                "The paper's figure 2, followed farther: scores fitted to noise inside the window, the largest up to each distance, "
                "by how the fit is solved. The dotted line is the window.",
                "Why a fit explodes",
            )
        )
    if scalings := [row.scaling for row in resolution if not isinstance(row.scaling, Unspecified)]:
        pictures.append(
            (
                theory_figures.resolution(rope, scalings),
                "How far one token turns each pair of coordinates. Shaded: pairs that never completed a turn in training.",
                "Angular resolution",
            )
        )
    return pictures


def _bounds(bounds: Bounds) -> Table:
    lines = [
        Line(
            "interpolation, halfway between tokens",
            cells(
                number_format.fixed(bounds.interpolation_printed, 4),
                number_format.fixed(bounds.interpolation, 4),
                number_format.fixed(bounds.interpolation_exact, 4),
            ),
        ),
        Line(
            "extrapolation, at its lowest beyond the window",
            cells(
                number_format.count(2 * bounds.head_dim),
                number_format.fixed(bounds.extrapolation_lowest, 1),
                number_format.fixed(bounds.trivial, 0),
            ),
        ),
        Line(
            "the second over the first, as read at B(s) = d",
            cells(
                *(
                    number_format.count(round(x))
                    for x in (bounds.ratio_printed, bounds.ratio_corrected, bounds.ratio_honest)
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
    note = f"Medians over {counted(growth[0].seeds, 'draw')} of noise on 0 .. {growth[0].window - 1}; least and most are of the draws, outside."
    return Table("Figure 2 by solver: the largest |a(s)|", head, lines, note=note, first="solved by")


def _name(row: Resolution) -> str:
    return "unscaled" if row.method == "plain" else f"{row.scaling.label} ×{row.factor:.4g}"


def _bands(rows: list[Resolution]) -> Table:
    lines = [Line(_name(row), cells(*(number_format.significant(band.after, 2) for band in row.bands))) for row in rows]
    head = [f"{band.name}\n{band.pairs} pairs" for band in rows[0].bands]
    note = "Turns in the original window by the unscaled inv_freq; the mean of each band."
    return Table("Radians a token by frequency band", head, lines, note=note, first="method")


def _resolution(rows: list[Resolution]) -> Table:
    lines = [
        Line(
            _name(row),
            cells(
                number_format.fixed(row.mean_angle, 4),
                number_format.share(row.kept, 1),
                number_format.share(row.incomplete_after, 1),
                number_format.share(row.unseen, 1),
                number_format.times(row.overshoot),
                f"{number_format.significant(1 / row.kept, 3)}×",
            ),
        )
        for row in rows
    ]
    head = [
        "radians a token",
        "kept",
        "under a turn",
        "pairs at\nunseen angles",
        "the farthest,\nof what was seen",
        "neighbouring tokens\nharder to tell apart",
    ]
    note = f"{number_format.share(rows[0].incomplete, 1)} of the pairs never complete a turn in the original window; of these, training showed a part of their angles: 2× is an angle twice as large as the largest shown."
    return Table("Angles by method", head, lines, note=note, first="method")
