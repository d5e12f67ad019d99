"""`ropewalk theory`: what extending will do to a model, from its config.json alone, before a GPU hour is spent.

in   a model's name (or LLaMA's numbers) and a window
out  three tables on the terminal; figures as SVG and PNG and rows of records in a directory

No weight is read and torch is never imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from ropewalk import records
from ropewalk.checkpoint.files import disk_errors, read_config
from ropewalk.checkpoint.hub import locate
from ropewalk.checkpoint.model_info import ModelInfo, info_of
from ropewalk.checkpoint.rope_config import read_rope
from ropewalk.errors import UserError
from ropewalk.records.variant import METHODS
from ropewalk.rope.bounds import Bounds, bounds
from ropewalk.rope.growth import Growth, check_size, growth
from ropewalk.rope.resolution import Resolution, resolution, scalings_for
from ropewalk.rope.scaling import Plain, Rope, Scaling

#: LLaMA 7B's rotation (Chen et al. 2023, section 3.1; Touvron et al. 2023), for want of a model.
LLAMA = Rope(128, 10000.0, 2048)
#: The paper goes from 2048 to 32768; a model that was not extended is looked at as far beyond its own window.
_FACTOR = 16


@dataclass(frozen=True)
class Forecast:
    """What `forecast` found: rows that go on record, with the rotation and the scalings they are about."""

    rope: Rope
    reach: int
    scalings: list[Scaling]
    bounds: Bounds
    growth: list[Growth]
    resolution: list[Resolution]

    @property
    def rows(self) -> list[Bounds | Growth | Resolution]:
        return [self.bounds, *self.growth, *self.resolution]


def forecast(rope: Rope, reach: int, *, own: Scaling | None = None, seeds: int = 20) -> Forecast:
    """Bounds, growth and angular resolution of one rotation in a window of `reach` tokens.

    Args:
        rope: as pretrained.
        reach: the window asked for, tokens; at least the pretraining window.
        own: what a model that reads `reach` tokens already turns by.
        seeds: draws of targets for figure 2's growth.

    Raises:
        UserError: a window below the model's own, or absurd; a head that would not fit in memory.
    """
    check_size(rope, reach)
    if reach < rope.window:
        raise UserError(
            f"a window to extend to is at least the model's own {rope.window} tokens, got {reach}; ask for a longer one"
        )
    scalings = scalings_for(rope, reach, own)
    return Forecast(
        rope=rope,
        reach=reach,
        scalings=scalings,
        bounds=bounds(rope, reach),
        growth=growth(rope, max(reach, 2 * rope.window), seeds=seeds),
        resolution=[resolution(rope, scaling, reach) for scaling in scalings],
    )


def theory(
    model: str | None = None, *, window: int | None = None, out: Path | None = None, overwrite: bool = False
) -> Forecast:
    """Print what the theory says of a model in a longer window, and draw it. No weights, no GPU, under ten seconds.

    Args:
        model: `hemp`, a local directory or a hub id; LLaMA 7B's rotation (d = 128, base 10000, window 2048) if not given.
        window: tokens; the model's own window if it was extended, else 16 times that.
        out: directory for the figures and `theory.jsonl`; `theory-NAME-WINDOW` here if not given.
        overwrite: write into `out` though it is there.
    """
    state, own = _state(model)
    rope, reach = _rope_and_reach(state, window)
    # The directory that we name ourselves holds nothing else, so a second run may freshen it.
    overwrite = overwrite or out is None
    out = out or Path(f"theory-{Path(state.name).name}-{reach}")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out names a directory, but {out} is a file; name another")
    if out.exists() and not overwrite:
        raise UserError(f"--out names a directory that is not there yet, but {out} is; add --overwrite or name another")
    found = forecast(rope, reach, own=own if reach == state.window else None)
    show(found, state)
    run = records.new_run(state, device="cpu", dtype="float64", settings={"window": reach})
    write(found, run, out)
    print(f"figures (SVG and PNG) and theory.jsonl in {out}")
    return found


def put_on_record(state: ModelInfo, out: Path, *, own: Scaling | None = None) -> Forecast:
    """The rows alone, in a model's own window, appended to a record file: for a page that shows them among others.

    own: what the model turns by now.
    """
    rope, reach = _rope_and_reach(state, None)
    found = forecast(rope, reach, own=own)
    recorder = records.Recorder(out, records.new_run(state, device="cpu", dtype="float64", settings={"window": reach}))
    for row in found.rows:
        recorder.add(row)
    return found


def _rope_and_reach(state: ModelInfo, window: int | None) -> tuple[Rope, int]:
    """The rotation as pretrained; the window asked for, else the model's own, else 16 times what it was pretrained for."""
    rope = state.rope
    if window is None:
        window = state.window if state.window > rope.window else _FACTOR * rope.window
    return rope, window


def _state(model: str | None) -> tuple[ModelInfo, Scaling]:
    """The model as records name it, and what it turns by now."""
    if model is None:
        llama = ModelInfo("LLaMA", "llama", LLAMA.window, LLAMA.window, rope_theta=LLAMA.base, head_dim=LLAMA.head_dim)
        return llama, Plain()
    found = read_rope(read_config(locate(model)))
    return info_of(found, name=model), found.scaling


def write(found: Forecast, run: records.Run, out: Path) -> None:
    """The figures as SVG and PNG, and the rows as `theory.jsonl`, replacing what a former run left there."""
    from ropewalk.figures import measured
    from ropewalk.figures import theory as theory_figures

    drawn = {
        "figure-2": theory_figures.figure_2(found.rope),
        "figure-2-followed-farther": theory_figures.growth(found.growth),
        "figure-5": theory_figures.figure_5(found.rope),
        "figure-5-followed-farther": theory_figures.figure_5(found.rope, reach=max(found.reach, 2 * found.rope.window)),
        "angular-resolution": theory_figures.resolution(found.rope, found.scalings),
    }
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        for name, figure in drawn.items():
            for ending in ("svg", "png"):
                measured.save(figure, out / f"{name}.{ending}")
        rows = out / "theory.jsonl"
        rows.unlink(missing_ok=True)
        recorder = records.Recorder(rows, run)
        for row in found.rows:
            recorder.add(row)


def show(found: Forecast, state: ModelInfo, console: Console | None = None) -> None:
    """Print the three tables."""
    console = console or Console()
    rope, bounds = found.rope, found.bounds
    console.print(
        f"{state.name}\n{rope.head_dim} rotated coordinates a head, base {rope.base:g}\n"
        f"window {rope.window} → {found.reach} tokens, factor {bounds.factor:g}\n"
    )
    console.print(bounds_table(bounds))
    every = "" if bounds.b_stride == 1 else f" (one in {bounds.b_stride})"
    console.print(
        "Over interpolation: 2 d by the bound as printed and as it holds, since the paper\nreads B(s) ≥ d; then d/2, which no "
        f"score exceeds, by the bound that holds.\n\nB(s)/d, which the paper reads as at least 1:\n"
        f"  lowest {bounds.b_min_plotted:.4f} on 0 .. {2 * rope.window - 1}, at {bounds.b_min_plotted_at}\n"
        f"  lowest {bounds.b_min:.4f} on 0 .. {found.reach - 1}, at {bounds.b_min_at}{every}; below 1 on {bounds.b_below_one:.1%}\n"
    )
    console.print(growth_table(found.growth))
    console.print(resolution_table(found.resolution))
    console.print(
        f"{found.resolution[0].incomplete:.1%} of the pairs never complete a turn in {rope.window} tokens:\n"
        "training showed them a part of their angles."
    )


def _table(title: str, *headings: str) -> Table:
    """First column words, the others figures; narrow enough for 80 characters."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left")
    return table


def bounds_table(found: Bounds) -> Table:
    """Both bounds, as printed and as they hold."""
    table = _table("Bounds on a score, in units of max|h_j|", "", "as printed", "as it holds", "exact")
    chord = (found.interpolation_printed, found.interpolation, found.interpolation_exact)
    verdict = "" if found.holds else " (false)"
    table.add_row("interpolation, halfway", f"{chord[0]:.4f}{verdict}", f"{chord[1]:.4f}", f"{chord[2]:.4f}")
    table.add_row("  as a part of d", *(f"d / {found.head_dim / bound:.2f}" for bound in chord))
    table.add_row(
        f"  at ×{found.factor:.4g} ({found.fraction:.3g} of a step)",
        "",
        f"{found.at_factor:.4f}",
        f"{found.at_factor_exact:.4f}",
    )
    table.add_row(
        "extrapolation, 2 B(s), lowest",
        f"{2 * found.head_dim} (B ≥ d)",
        f"{found.extrapolation_lowest:.1f}",
        f"{found.trivial:g} (d/2)",
    )
    ratios = (found.ratio_printed, found.ratio_corrected, found.ratio_honest)
    table.add_row("  over interpolation", *(f"{ratio:.0f}" for ratio in ratios))
    return table


def growth_table(rows: Sequence[Growth]) -> Table:
    """Figure 2 by solver."""
    first = rows[0]
    title = f"Figure 2: fitted to noise on 0 .. {first.window - 1}, largest |a(s)|, {first.seeds} seeds"
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
    table.add_row("under a turn, new window", *(f"{row.incomplete_after:.1%}" for row in rows))
    table.add_row("driven to unseen angles", *(f"{row.unseen:.1%}" for row in rows))
    table.add_row("  the farthest", *(f"{row.overshoot:.{0 if row.overshoot >= 100 else 2}f}×" for row in rows))
    return table


def _heading(row: Resolution) -> str:
    name = METHODS.get(row.method, row.method).removesuffix(" scaling")
    return "unscaled" if row.method == "plain" else f"{name}\n×{row.factor:.4g}"


def _angle(radians: float) -> str:
    return f"{radians:.4f}" if radians >= 1e-3 else f"{radians:.1e}"
