"""Tables of what the theory says of a model in a longer window; 80 characters wide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from ropewalk.checkpoint.architecture import in_words
from ropewalk.cli.terminal import console
from ropewalk.rope.bounds import Bounds
from ropewalk.rope.growth import Growth
from ropewalk.rope.resolution import Resolution
from ropewalk.rope.scaling import Plain
from ropewalk.sentences import counted

if TYPE_CHECKING:
    from ropewalk.suite.theory import Forecast


def show_theory(forecast: Forecast, *, full: bool = False) -> None:
    """Print the conclusion and a row a method; with `full` the bounds, figure 2 and the frequency bands too."""
    terminal = console()
    rope, bounds = forecast.rope, forecast.bounds
    terminal.print(f"{forecast.conclusion}\n")
    terminal.print(methods_table(forecast.resolution))
    for method, reason in forecast.left_out.items():
        terminal.print(f"Not in the table: {method}. {reason}", style="dim")
    if forecast.left_out:
        terminal.print("Of a model that `ropewalk extend` made by one of these, theory shows that one.\n", style="dim")
    terminal.print(
        f"{forecast.name or 'The model'}, window {rope.window} → {forecast.reach} tokens"
        + f": {forecast.layout}" * bool(forecast.layout)
        + ". A head's coordinates rotate in pairs, each by an angle a token. By the paper's reasoning angles that training never showed make a model "
        "fail, the farthest as many times the largest shown, of pairs that training showed no full turn; smaller angles a token (their mean over the pairs is what the last column compares) blur neighbouring tokens, which "
        "training brings back. Measured on untrained models: not extended, they did break beyond their window; of extended ones neither count of unseen angles said which lose "
        f"more there, and what is blurred went with the loss in the old window no more than chance may make it over eight methods (docs/results.md, Does the theory say it beforehand?).\n\n{in_words(forecast.hurdles)}"
    )
    if not full:
        terminal.print("--full prints the bounds on scores, figure 2 and the angles by frequency band.", style="dim")
        return
    terminal.print(f"\n{rope.head_dim} rotated coordinates a head, rope_theta {rope.rope_theta:g}\n")
    terminal.print(bounds_table(bounds))
    every = "" if bounds.b_stride == 1 else f" (one in {bounds.b_stride})"
    terminal.print(
        "Over interpolation: each by the interpolation halfway of its own column.\n\nB(s)/d, which the paper reads as at least 1:\n"
        f"  lowest {bounds.b_min_plotted:.4f} on 0 .. {2 * rope.window - 1}, at {bounds.b_min_plotted_at}\n"
        f"  lowest {bounds.b_min:.4f} on 0 .. {forecast.reach - 1}, at {bounds.b_min_at}{every}; below 1 on {bounds.b_below_one:.1%}\n"
    )
    terminal.print(growth_table(forecast.growth))
    terminal.print(resolution_table(forecast.resolution))
    terminal.print(
        f"{forecast.resolution[0].incomplete:.1%} of the pairs never complete a turn in {rope.window} tokens:\n"
        "training showed them a part of their angles."
    )


def _table(title: str, *headings: str) -> Table:
    """First column words, the others figures; narrow enough for 80 characters."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left")
    return table


def methods_table(rows: Sequence[Resolution]) -> Table:
    """What decides between methods, before anything is trained."""
    table = _table(
        "",
        "method",
        "pairs at\nunseen angles",
        "the farthest,\nof what was seen",
        "neighbouring tokens\nharder to tell apart",
    )
    for row in rows:
        name = "none" if row.method == Plain.method else row.scaling.label
        table.add_row(name, f"{row.unseen:.0%}", _times(row.overshoot), f"{1 / row.kept:.3g}×")
    return table


def bounds_table(bounds: Bounds) -> Table:
    """Both bounds, as printed and as they hold."""
    table = _table("Bounds on a score, in units of max|h_j|", "", "as printed", "as it holds", "exact")
    chord = (bounds.interpolation_printed, bounds.interpolation, bounds.interpolation_exact)
    verdict = "" if bounds.holds else " (false)"
    table.add_row("interpolation, halfway", f"{chord[0]:.4f}{verdict}", f"{chord[1]:.4f}", f"{chord[2]:.4f}")
    table.add_row("  as a part of d", *(f"d / {bounds.head_dim / bound:.2f}" for bound in chord))
    table.add_row(
        f"  at ×{bounds.factor:.4g} ({bounds.fraction:.3g} of a step)",
        "",
        f"{bounds.at_factor:.4f}",
        f"{bounds.at_factor_exact:.4f}",
    )
    table.add_row("extrapolation, 2 d, by B(s) ≥ d", *2 * (f"{2 * bounds.head_dim}",), "")
    table.add_row("  over interpolation", f"{bounds.ratio_printed:.0f}", f"{bounds.ratio_corrected:.0f}", "")
    table.add_row("extrapolation, 2 B(s), lowest", "", f"{bounds.extrapolation_lowest:.1f}", "")
    table.add_row("  over interpolation", "", f"{bounds.extrapolation_lowest / bounds.interpolation:.0f}", "")
    table.add_row("d/2, which no score exceeds", "", f"{bounds.trivial:g}", "")
    table.add_row("  over interpolation", "", f"{bounds.ratio_honest:.0f}", "")
    return table


def growth_table(rows: Sequence[Growth]) -> Table:
    """Figure 2 by solver."""
    first = rows[0]
    title = f"Figure 2: fitted to noise on 0 .. {first.window - 1}, largest |a(s)|, {counted(first.seeds, 'seed')}"
    table = _table(title, "solved by", "inside", f"to {first.reach - 1}", "least", "most")
    for row in rows:
        table.add_row(row.solver, *(f"{x:.3g}" for x in (row.inside, row.outside, row.lowest, row.highest)))
    return table


def resolution_table(rows: Sequence[Resolution]) -> Table:
    """What each method does to the angles, a column a method."""
    table = _table("Angular resolution: radians a token, mean over pairs", "", *map(_heading, rows))
    table.add_row("all pairs", *(_angle(row.mean_angle) for row in rows))
    table.add_row("  kept", *(f"{row.kept:.1%}" for row in rows))
    for index, band in enumerate(rows[0].bands):
        table.add_row(f"{band.name}: {band.pairs}", *(f"{row.bands[index].after:.2g}" for row in rows))
    table.add_row("under a turn", *(f"{row.incomplete_after:.1%}" for row in rows))
    table.add_row("at unseen angles", *(f"{row.unseen:.1%}" for row in rows))
    table.add_row("  the farthest", *(_times(row.overshoot) for row in rows))
    return table


def _heading(row: Resolution) -> str:
    name = row.scaling.label.removesuffix(" scaling")
    return "unscaled" if row.method == Plain.method else f"{name}\n×{row.factor:.4g}"


def _times(ratio: float) -> str:
    return f"{ratio:.{0 if ratio >= 100 else 2}f}×"


def _angle(radians: float) -> str:
    return f"{radians:.4f}" if radians >= 1e-3 else f"{radians:.1e}"
