"""States compared: by fine-tuning steps, by method and factor, and task by task in the original window.

in   what the report's sections work out from rows: curves, changes, points
out  a matplotlib Figure each
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from ropewalk.figures.style import INK, MARKERS, MUTED, PAPER, colour, dashes, legend, log_y, new, styled, window_axis
from ropewalk.records import paper
from ropewalk.records.variant import Variant, labels

Colours = Mapping[tuple, str]
COMPARABLE = 100  # steps; a run that ends before would be a dot beside the paper's thousand
TASK_NAMES = {
    "boolq": "BoolQ",
    "piqa": "PIQA",
    "race-middle": "RACE-m",
    "race-high": "RACE-h",
    "winogrande": "WinoGrande",
}


@styled
def perplexity_by_steps(
    curves: Sequence[tuple[Variant, dict[int, float]]], *, base: float | None, colours: Colours | None = None
) -> Figure:
    """Perplexity in the new window by fine-tuning steps; relative to the base in its own window where that is known.

    `curves` holds (state, steps → perplexity). With a base, the paper's table 3 stands beside it, relative to its own base.
    """
    figure, axes = new(height=2.9)
    names = labels([state for state, _ in curves])
    seen: list[float] = []
    for index, (state, points) in enumerate(curves):
        x = sorted(points)
        y = [points[step] / (base or 1.0) for step in x]
        seen += y
        name = names[state].rpartition(", ")[0] or names[state]
        axes.plot(x, y, color=colour(state, colours), marker=MARKERS[index % len(MARKERS)], label=name)
    if base:
        axes.axhline(1.0, color=MUTED, linewidth=0.8)
        if max(step for _, points in curves for step in points) >= COMPARABLE:
            seen += _paper_by_steps(axes)
    if max(seen) > 2.5 * min(seen):
        log_y(axes, seen)
    axes.set(xlabel="fine-tuning steps", ylabel="perplexity / base in its window" if base else "perplexity")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    legend(figure, axes)
    return figure


def _paper_by_steps(axes: Axes) -> list[float]:
    """Table 3 relative to the paper's own base (table 1, 7B at 2048); what it drew."""
    reference = next(row for row in paper.TABLE_1.rows if row.model == "7B" and row.method == "none")
    drawn: list[float] = []
    for row, line in zip(paper.TABLE_3.rows, (":", "-."), strict=True):
        x = [step for step in row.values if isinstance(step, int)]
        y = [row.values[step] / reference.values[paper.WINDOW] for step in x]
        drawn += y
        axes.plot(x, y, color=PAPER, linewidth=1.1, linestyle=line, label=f"paper: 7B PI ×{row.factor:.0f}")
    return drawn


@styled
def k_max_by_steps(curves: Sequence[tuple[Variant, dict[int, float]]], *, colours: Colours | None = None) -> Figure:
    """k_max as a part of the window by fine-tuning steps, beside the paper's direct fine-tuning and PI (table 4, 7B)."""
    figure, axes = new(height=2.7)
    names = labels([state for state, _ in curves])
    longest = max(step for _, points in curves for step in points)
    for index, (state, points) in enumerate(curves):
        x = sorted(points)
        y = [points[step] / state.window for step in x]
        name = names[state].rpartition(", ")[0] or names[state]
        axes.plot(x, y, color=colour(state, colours), marker=MARKERS[index % len(MARKERS)], label=name)
    if longest >= COMPARABLE:
        for row, line in ((paper.TABLE_4.rows[0], "-."), (paper.TABLE_4.rows[4], ":")):
            x = [step for step in row.values if isinstance(step, int) and step <= max(longest, 1000)]
            y = [row.values[step] / row.window for step in x]
            axes.plot(x, y, color=PAPER, linewidth=1.1, linestyle=line, label=f"paper: 7B {row.method} {row.window}")
    axes.set(xlabel="fine-tuning steps", ylabel="k_max / window", ylim=(0, 1.05))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    legend(figure, axes)
    return figure


@styled
def benchmark_changes(changes: Sequence[Any], *, colours: Colours | None = None) -> Figure:
    """Change in accuracy by task, in points, with its paired interval; zero is the base. One colour a state."""
    tasks = list(dict.fromkeys(change.task for change in changes))
    states = list(dict.fromkeys(change.state for change in changes))
    names = labels(states)
    figure, axes = new(height=1.1 + 0.36 * len(tasks) * max(1.0, 0.55 * len(states)))
    for index, state in enumerate(states):
        own = [change for change in changes if change.state == state]
        offset = (index - (len(states) - 1) / 2) * 0.7 / len(states)
        y = [tasks.index(change.task) + offset for change in own]
        x = [100 * change.difference for change in own]
        below = [100 * (change.difference - change.low) for change in own]
        above = [100 * (change.high - change.difference) for change in own]
        tone = colour(state, colours)
        axes.errorbar(
            x,
            y,
            xerr=[below, above],
            fmt=MARKERS[index % len(MARKERS)],
            color=tone,
            capsize=2.5,
            elinewidth=1.3,
            label=names[state],
        )
    axes.axvline(0, color=INK, linewidth=0.9)
    axes.set_yticks(range(len(tasks)), [TASK_NAMES.get(task, task) for task in tasks])
    axes.set(ylim=(len(tasks) - 0.4, -0.6), xlabel="change in accuracy (points)")
    axes.grid(axis="x")
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    if len(states) > 1:
        legend(figure, axes)
    return figure


@styled
def retrieval(
    series: Sequence[tuple[str, Variant, dict[str, tuple[float, float, float]]]], *, colours: Colours | None = None
) -> Figure:
    """Share of prompts answered right, by family, with Wilson's 95 % interval.

    `series` holds (label, state, family → (share, low, high)).
    """
    families = list(dict.fromkeys(family for _, _, found in series for family in found))
    figure, axes = new(height=1.0 + len(families) * max(0.4, 0.17 * len(series)))
    for index, (label, state, found) in enumerate(series):
        offset = (index - (len(series) - 1) / 2) * 0.7 / len(series)
        y = [families.index(family) + offset for family in found]
        x, low, high = (np.array([values[i] for values in found.values()]) for i in range(3))
        axes.errorbar(
            x,
            y,
            xerr=[np.maximum(0, x - low), np.maximum(0, high - x)],
            fmt=MARKERS[index % len(MARKERS)],
            color=colour(state, colours),
            capsize=2.2,
            elinewidth=1.2,
            label=label,
        )
    axes.set_yticks(range(len(families)), families)
    axes.set(ylim=(len(families) - 0.4, -0.6), xlim=(-0.02, 1.02), xlabel="prompts answered right")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.grid(visible=True, axis="x")
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    legend(figure, axes)
    return figure


@styled
def by_distance(
    series: Sequence[tuple[str, Variant, Sequence[int], Sequence[float]]], *, colours: Colours | None = None
) -> Figure:
    """Share of prompts answered right by the distance of what was asked from the end.

    `series` holds (label, state, edges of the bins in tokens, share in each bin; NaN where a bin is empty).
    """
    figure, axes = new(height=2.7)
    for index, (label, state, edges, share) in enumerate(series):
        middle = [(low + high) / 2 for low, high in zip(edges[:-1], edges[1:], strict=True)]
        style = {"linestyle": dashes(state), "marker": MARKERS[index % len(MARKERS)], "color": colour(state, colours)}
        axes.plot(middle, share, label=label, **style)
        axes.axvline(state.original_window, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
    axes.set(
        xlim=(0, None), ylim=(-0.03, 1.03), xlabel="tokens from what was asked to the end", ylabel="answered right"
    )
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    legend(figure, axes)
    return figure


@styled
def ablation(points: Sequence[tuple[Variant, str, float]], *, base: float | None) -> Figure:
    """Perplexity in the new window by factor, one line a method and budget; relative to the base where it is known.

    `points` holds (state, budget in words, perplexity).
    """
    figure, axes = new(height=2.9)
    lines: dict[tuple[str, str], list[tuple[Variant, float]]] = {}
    for state, budget, value in points:
        lines.setdefault((state.method_name, budget), []).append((state, value / (base or 1.0)))
    for index, ((method, budget), line) in enumerate(lines.items()):
        line.sort(key=lambda point: point[0].factor)
        state = line[0][0]
        x, y = [s.factor for s, _ in line], [value for _, value in line]
        axes.plot(
            x,
            y,
            color=colour(state),
            linestyle=dashes(state),
            marker=MARKERS[index % len(MARKERS)],
            label=f"{method}, {budget}",
        )
    values = [value for line in lines.values() for _, value in line]
    if max(values) > 2.5 * min(values):
        log_y(axes, values)
    if base:
        axes.axhline(1.0, color=MUTED, linewidth=0.8)
    window_axis(axes, sorted({state.factor for state, _, _ in points}))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"×{x:g}"))
    axes.set(xlabel="factor", ylabel="perplexity / base in its window" if base else "perplexity")
    legend(figure, axes)
    return figure
