"""The section of training: loss by step, tokens, speed.

in   the training runs of a page
out  a `Section`
"""

from __future__ import annotations

import math
from dataclasses import replace

from ropewalk.figures import losses, style
from ropewalk.planner.chips import Mfu
from ropewalk.records import format as number_format
from ropewalk.reports.content import Cell, Line, Section, Table
from ropewalk.reports.rows import Clean
from ropewalk.reports.training import Training, names, read_by, trainings, unmeasured

#: The head of a column whose share nobody is to quote as MFU.
_OF_PRODUCT = "operations\nof a product's rate"


def section(clean: Clean) -> Section | None:
    """The section of training, or None without a step."""
    runs, left = trainings(clean), {run.run.id for run in unmeasured(clean)}
    own = [run for run in runs if run.run.id not in left]
    runs = own or runs  # where no model was measured, all are what the page is of
    if not runs:
        return None
    part = Section("training", "Training", "Next-token loss of each optimiser step over its whole batch.")
    steps = [m for run in runs for m in run.measurements]
    bad = sum(not number_format.is_finite(m.row.loss) for m in steps)
    if bad < len(steps):
        is_smoothed = any(losses.smoothed_over(len(run.measurements)) > 1 for run in runs)
        caption = "Loss by step: every step thin, a running mean over it." if is_smoothed else "Loss by step."
        part.draw(losses.loss(steps, colours=clean.colours), caption)
    if bad:
        part.notes.append(f"{bad} of {len(steps)} steps have a loss that is not finite; they are not drawn.")
    part.tables.append(_table(clean, runs))
    part.notes += [f"{name} read {documents}." for run, name in names(runs) if (documents := read_by(run.run))]
    return part


def _table(clean: Clean, runs: list[Training]) -> Table:
    table = Table(
        clean.titled("What each training run did", [run.variant for run in runs]),
        [
            "steps",
            "model left\nstep",
            "loss\nfirst step",
            "loss\nlast tenth",
            "tokens",
            "tokens/s",
            "MFU\nof the data sheet",
            _OF_PRODUCT,
            "peak memory",
            "time",
        ],  # fmt: skip
        [_line(clean, run, name) for run, name in names(runs)],
        first="run",
        note="Loss: of the first step, and the mean of the last tenth.",
    ).filled
    if "model left\nstep" in table.head:
        table = replace(
            table,
            note=f"{table.note} Model left: the step whose model --watch-stop went back to, or the last, which is worse, where it had none; what is measured is of that.",
        )
    if _OF_PRODUCT not in table.head:
        return table
    of_mfu = f" Operations: {Mfu.OF_SHEET}, and {Mfu.OF_PRODUCT} as the run measured it."
    return replace(table, note=table.note + of_mfu)


def _mean_share(shares: list[float | None]) -> Cell:
    known = [share for share in shares if number_format.is_finite(share)]
    return Cell.of(sum(known) / len(known), number_format.share) if known else Cell("")


def _line(clean: Clean, run: Training, name: str) -> Line:
    finite = [step.loss for step in run.steps if number_format.is_finite(step.loss)]
    tail = finite[-max(1, len(finite) // 10) :]
    shares = [[getattr(step, name) for step in run.steps] for name in ("mfu_of_data_sheet", "mfu")]
    first, last = (finite[0], sum(tail) / len(tail)) if finite else (math.nan, math.nan)
    speed = run.tokens / run.seconds if run.seconds else math.nan
    return Line(
        name,
        [
            Cell(str(len(run.steps)), run.ended * run.is_cut_short, value=len(run.steps)),
            Cell(str(run.model_step), value=run.model_step) if run.left else Cell(""),
            Cell.of(first, number_format.fixed, unit="nats a token"),
            Cell.of(last, number_format.fixed, unit="nats a token"),
            Cell.of(run.tokens, number_format.tokens),
            Cell.of(speed, number_format.large),
            *map(_mean_share, shares),
            Cell.of(max(step.peak_bytes for step in run.steps), number_format.memory, unit="bytes"),
            Cell.of(run.seconds, number_format.duration, unit="s"),
        ],
        note=run.run.device,
        colour=style.colour(run.variant, clean.colours),
    )
