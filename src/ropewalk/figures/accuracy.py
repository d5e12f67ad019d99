"""Accuracies with their intervals, a row a task or family: changes in the original window, and what retrieval finds.

in   what the report's sections work out from rows
out  a matplotlib Figure each
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ropewalk.figures.style import INK, Colours, legend, marked, markers_of, new, styled
from ropewalk.records.variant import Variant, labels

TASK_NAMES = {
    "boolq": "BoolQ",
    "piqa": "PIQA",
    "race-middle": "RACE-m",
    "race-high": "RACE-h",
    "winogrande": "WinoGrande",
}


@dataclass(frozen=True)
class Change:
    """One task before and after on the same items: accuracies, their difference with its interval, McNemar's p."""

    task: str
    variant: Variant
    before: float
    after: float
    difference: float
    low: float
    high: float
    p_value: float
    items: int

    @property
    def is_loss(self) -> bool:
        return self.high < 0


#: A legend's name, what it shows, and row → (figure, its interval).
ByRow = tuple[str, Variant, dict[str, tuple[float, float, float]]]


@styled
def benchmark_changes(changes: Sequence[Change], *, colours: Colours | None = None) -> Figure:
    """Change in accuracy by task, in points, with its paired interval; zero is the base. One colour a variant."""
    tasks = list(dict.fromkeys(change.task for change in changes))
    names = labels(list(dict.fromkeys(change.variant for change in changes)))
    series: list[ByRow] = [
        (
            name,
            variant,
            {c.task: (100 * c.difference, 100 * c.low, 100 * c.high) for c in changes if c.variant == variant},
        )
        for variant, name in names.items()
    ]
    figure, axes = new(height=1.1 + 0.36 * len(tasks) * max(1.0, 0.55 * len(series)))
    _by_row(axes, tasks, series, colours)
    axes.axvline(0, color=INK, linewidth=0.9)
    axes.set_yticks(range(len(tasks)), [TASK_NAMES.get(task, task) for task in tasks])
    axes.set_xlabel("change in accuracy (points)")
    if len(series) > 1:
        legend(figure, axes)
    return figure


@styled
def retrieval(series: Sequence[ByRow], *, colours: Colours | None = None) -> Figure:
    """Share of prompts answered right, by family, with its 95 % interval.

    `series` holds (label, variant, family → (share, low, high)).
    """
    families = list(dict.fromkeys(family for _, _, shares in series for family in shares))
    figure, axes = new(height=1.0 + len(families) * max(0.4, 0.17 * len(series)))
    _by_row(axes, families, series, colours)
    axes.set(xlim=(-0.02, 1.02), xlabel="prompts answered right")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    legend(figure, axes)
    return figure


def _by_row(axes: Axes, rows: list[str], series: Sequence[ByRow], colours: Colours | None) -> None:
    """Figures with their intervals on a horizontal line a row, side by side so that no marker covers another."""
    markers = markers_of([(label, variant) for label, variant, _ in series], colours)
    for index, (label, variant, points) in enumerate(series):
        x, low, high = np.array(list(points.values())).T
        aside = (index - (len(series) - 1) / 2) * 0.7 / len(series)
        axes.errorbar(
            x,
            [rows.index(row) + aside for row in points],
            xerr=[np.maximum(0, x - low), np.maximum(0, high - x)],
            **marked(markers[label], label, variant, colours),
        )
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=True, axis="x")
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
