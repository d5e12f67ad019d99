"""Training loss by step → a matplotlib figure.

in   steps, each with its run
out  a line a run
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ropewalk.figures.measured import finite
from ropewalk.figures.style import (
    CROWDED_OUT,
    Colours,
    colour,
    crowded_out,
    legend,
    more,
    new,
    styled,
)
from ropewalk.records import Measurement, Step
from ropewalk.records.variant import Variant, made_variant, told_apart


def smoothed_over(steps: int) -> int:
    """Steps that a run's loss is averaged over where it is drawn; 1 is no average."""
    return max(1, steps // 25)


@styled
def loss(measurements: Sequence[Measurement[Step]], *, colours: Colours | None = None) -> Figure:
    """Training loss by step, one line a run: every step thin, a centred running mean over it."""
    figure, axes = new(height=2.7)
    runs: dict[str, list[Measurement[Step]]] = {}
    for m in measurements:
        runs.setdefault(m.run.id, []).append(m)
    variants = {run: made_variant(steps[0].run, steps[0].recipe) for run, steps in runs.items()}
    names = _of_trainings(variants)
    last = {run: max(steps, key=lambda m: m.row.step).row.loss for run, steps in runs.items()}
    crowd = crowded_out(last, variants.__getitem__)
    names |= dict.fromkeys(crowd, more(len(crowd)))
    for run, steps in sorted(runs.items(), key=lambda item: item[0] not in crowd):
        variant = variants[run]
        rows = sorted((m.row for m in steps), key=lambda row: row.step)
        x, y = [row.step for row in rows], finite([row.loss for row in rows])
        tone = CROWDED_OUT if run in crowd else colour(variant, colours)
        span = smoothed_over(len(y))
        axes.plot(x, y, color=tone, linewidth=0.6 if span > 1 else 1.6, alpha=0.4 if span > 1 else 1.0)
        name = names[run] if len(runs) > 1 else "running mean"
        if span > 1:
            axes.plot(x, _running_mean(y, span), color=tone, label=name)
        elif len(runs) > 1:
            axes.plot([], [], color=tone, label=name)  # its name in the legend
    axes.set(xlabel="optimiser step", ylabel="loss (nats a token)")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if len(runs) > 1:
        legend(figure, axes)
    return figure


def _of_trainings(variants: dict[str, Variant]) -> dict[str, str]:
    """What each run is called in a legend: the seeds of one training share a name, which says how many they are."""
    alike: dict[tuple, list[str]] = {}
    for run, variant in variants.items():
        alike.setdefault(variant.series if variant.recipe.seed is not None else (run,), []).append(run)
    rows = [
        part
        for runs in alike.values()
        for part in ([runs] if len({variants[run].recipe.seed for run in runs}) == len(runs) else [[r] for r in runs])
    ]
    titles = {runs[0]: variants[runs[0]].training_title for runs in rows}
    names = told_apart(titles, variants.__getitem__)
    return {run: names[runs[0]] + f", {len(runs)} seeds" * (len(runs) > 1) for runs in rows for run in runs}


def _running_mean(values: Sequence[float], span: int) -> Float[np.ndarray, " steps"]:
    """Centred mean over `span` steps on each side, over what there is near the ends; NaN is left out."""
    y = np.asarray(values, dtype=float)
    parts = (y[max(0, i - span) : i + span + 1] for i in range(len(y)))
    return np.array([np.nanmean(part) if np.isfinite(part).any() else np.nan for part in parts])
