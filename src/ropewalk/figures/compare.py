"""Variants compared: by fine-tuning steps, by method and factor, and task by task in the original window.

in   what the report's sections work out from rows: curves, changes, points
out  a matplotlib Figure each
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from ropewalk.figures.style import (
    CROWDED_OUT,
    INK,
    MARKERS,
    MUTED,
    PAPER,
    Colours,
    colour,
    crowded_out,
    dashes,
    legend,
    log_y,
    more,
    new,
    styled,
    window_axis,
)
from ropewalk.records import ContextGain, paper
from ropewalk.records.variant import Variant, labels

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
    curves: Sequence[tuple[Variant, dict[int, float]]],
    *,
    base: float | None,
    colours: Colours | None = None,
    beside_paper: bool = True,
) -> Figure:
    """Perplexity in the new window by fine-tuning steps; relative to the base in its own window where that is known.

    `curves` holds (variant, steps → perplexity). With a base, the paper's table 3 stands beside it, relative to its own base, if asked for.
    """
    figure, axes = new(height=2.9)
    looks = _looks({variant: points[max(points)] for variant, points in curves}, colours)
    drawn: list[float] = []
    for index, (variant, points) in enumerate(curves):
        x = sorted(points)
        y = [points[step] / (base or 1.0) for step in x]
        drawn += y
        axes.plot(x, y, **looks[variant], marker=MARKERS[index % len(MARKERS)])
    if base:
        axes.axhline(1.0, color=MUTED, linewidth=0.8)
        if beside_paper and is_comparable(curves):
            drawn += _paper_by_steps(axes)
    axes.set(xlabel="fine-tuning steps", ylabel="perplexity / base in its window" if base else "perplexity")
    if max(drawn) > 2.5 * min(drawn):
        log_y(axes, drawn)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    legend(figure, axes)
    return figure


def _looks(last: dict[Variant, float], colours: Colours | None) -> dict[Variant, dict[str, Any]]:
    """Colour, place and name of each training's curve, by the last value of each, the lower the better."""
    names, crowd = labels(list(last)), crowded_out(last, lambda variant: variant)
    grey = {"color": CROWDED_OUT, "zorder": 1, "label": more(len(crowd))}
    return {
        variant: grey
        if variant in crowd
        else {
            "color": colour(variant, colours),
            "zorder": 2,
            "label": names[variant].replace(variant.label, variant.method_and_factor),
        }
        for variant in last
    }


def is_comparable(curves: Sequence[tuple[Variant, dict[int, Any]]]) -> bool:
    """Whether any of these runs is long enough to stand beside the paper's."""
    return max(step for _, points in curves for step in points) >= COMPARABLE


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
def k_max_by_steps(
    curves: Sequence[tuple[Variant, dict[int, int]]], *, colours: Colours | None = None, beside_paper: bool = True
) -> Figure:
    """k_max as a part of the window by fine-tuning steps, beside the paper's direct fine-tuning and PI (table 4, 7B) if asked for."""
    figure, axes = new(height=2.7)
    looks = _looks({variant: -points[max(points)] / variant.window for variant, points in curves}, colours)
    longest = max(step for _, points in curves for step in points)
    for index, (variant, points) in enumerate(curves):
        x = sorted(points)
        y = [points[step] / variant.window for step in x]
        axes.plot(x, y, **looks[variant], marker=MARKERS[index % len(MARKERS)])
    if beside_paper and is_comparable(curves):
        for row, line in ((paper.TABLE_4.rows[0], "-."), (paper.TABLE_4.rows[4], ":")):
            x = [step for step in row.values if isinstance(step, int) and step <= max(longest, 1000)]
            y = [row.values[step] / row.window for step in x]
            axes.plot(x, y, color=PAPER, linewidth=1.1, linestyle=line, label=f"paper: 7B {row.method} {row.window}")
    axes.set(xlabel="fine-tuning steps", ylabel="k_max / window", ylim=(0, 1.05))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    legend(figure, axes)
    return figure


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


@styled
def benchmark_changes(changes: Sequence[Change], *, colours: Colours | None = None) -> Figure:
    """Change in accuracy by task, in points, with its paired interval; zero is the base. One colour a variant."""
    tasks = list(dict.fromkeys(change.task for change in changes))
    variants = list(dict.fromkeys(change.variant for change in changes))
    names = labels(variants)
    figure, axes = new(height=1.1 + 0.36 * len(tasks) * max(1.0, 0.55 * len(variants)))
    for index, variant in enumerate(variants):
        alike = [change for change in changes if change.variant == variant]
        below = [100 * (change.difference - change.low) for change in alike]
        above = [100 * (change.high - change.difference) for change in alike]
        axes.errorbar(
            [100 * change.difference for change in alike],
            [tasks.index(change.task) + _offset(index, len(variants)) for change in alike],
            xerr=[below, above],
            fmt=MARKERS[index % len(MARKERS)],
            color=colour(variant, colours),
            capsize=2.5,
            elinewidth=1.3,
            label=names[variant],
        )
    axes.axvline(0, color=INK, linewidth=0.9)
    axes.set_yticks(range(len(tasks)), [TASK_NAMES.get(task, task) for task in tasks])
    axes.set(ylim=(len(tasks) - 0.4, -0.6), xlabel="change in accuracy (points)")
    axes.grid(axis="x")
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    if len(variants) > 1:
        legend(figure, axes)
    return figure


def _offset(index: int, count: int) -> float:
    """Of one of several markers on a line of the y axis, so that none covers another."""
    return (index - (count - 1) / 2) * 0.7 / count


@styled
def retrieval(
    series: Sequence[tuple[str, Variant, dict[str, tuple[float, float, float]]]], *, colours: Colours | None = None
) -> Figure:
    """Share of prompts answered right, by family, with its 95 % interval.

    `series` holds (label, variant, family → (share, low, high)).
    """
    families = list(dict.fromkeys(family for _, _, shares in series for family in shares))
    figure, axes = new(height=1.0 + len(families) * max(0.4, 0.17 * len(series)))
    for index, (label, variant, shares) in enumerate(series):
        x, low, high = (np.array([values[i] for values in shares.values()]) for i in range(3))
        axes.errorbar(
            x,
            [families.index(family) + _offset(index, len(series)) for family in shares],
            xerr=[np.maximum(0, x - low), np.maximum(0, high - x)],
            fmt=MARKERS[index % len(MARKERS)],
            color=colour(variant, colours),
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
def score_by_length(
    series: Sequence[tuple[str, Variant, Sequence[tuple[int, float, float, float]]]],
    *,
    threshold: float,
    colours: Colours | None = None,
) -> Figure:
    """Mean score by length in tokens, with 95 % intervals, and a threshold.

    `series` holds (label, variant, (length, score, low, high) of each length).
    """
    figure, axes = new()
    for index, (label, variant, points) in enumerate(series):
        lengths, scores, low, high = (np.array(column) for column in zip(*points, strict=True))
        axes.errorbar(
            lengths,
            scores,
            yerr=[np.maximum(0, scores - low), np.maximum(0, high - scores)],
            marker=MARKERS[index % len(MARKERS)],
            linestyle=dashes(variant),
            color=colour(variant, colours),
            capsize=2.2,
            elinewidth=1.2,
            label=label,
        )
    axes.axhline(threshold, color=INK, linewidth=0.9, linestyle="--")
    for original in {variant.original_window for _, variant, _ in series}:
        axes.axvline(original, color=MUTED, linestyle=":", linewidth=1)
    ticks = sorted({point[0] for _, _, points in series for point in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set(ylim=(-0.03, 1.03), xlabel="length (tokens)", ylabel="mean score")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    legend(figure, axes)
    return figure


@styled
def gain_by_place(series: Sequence[tuple[str, Variant, ContextGain]], *, colours: Colours | None = None) -> Figure:
    """Context gain by place in a document: a range of places at its geometric middle, with its 95 % interval.

    `series` holds (label, variant, row).
    """
    figure, axes = new()
    for index, (label, variant, row) in enumerate(series):
        parts = row.by_place
        gains = np.array([part["gain"] for part in parts])
        below = np.nan_to_num([part["gain"] - part["low"] for part in parts])
        above = np.nan_to_num([part["high"] - part["gain"] for part in parts])
        axes.errorbar(
            [math.sqrt(part["start"] * part["stop"]) for part in parts],
            gains,
            yerr=[np.maximum(0, below), np.maximum(0, above)] if not row.estimate else None,
            marker=MARKERS[index % len(MARKERS)],
            linestyle=dashes(variant),
            color=colour(variant, colours),
            capsize=2.2,
            elinewidth=1.2,
            label=label,
        )
    axes.axhline(0, color=INK, linewidth=0.9)
    for original in {variant.original_window for _, variant, _ in series}:
        axes.axvline(original, color=MUTED, linestyle=":", linewidth=1)
    edges = sorted({edge for _, _, row in series for part in row.by_place for edge in (part["start"], part["stop"])})
    axes.set_xscale("log", base=2)
    axes.set_xticks(edges, [str(edge) for edge in edges])
    axes.minorticks_off()
    axes.set(xlabel="place in the document (tokens)", ylabel="context gain (nats a token)")
    legend(figure, axes)
    return figure


@styled
def by_distance(
    series: Sequence[tuple[str, Variant, Sequence[float], Sequence[float]]], *, colours: Colours | None = None
) -> Figure:
    """Share of prompts answered right by the distance of what was asked from the end.

    `series` holds (label, variant, edges of the bins in tokens, share in each bin; NaN where a bin is empty).
    """
    figure, axes = new(height=2.7)
    for index, (label, variant, edges, share) in enumerate(series):
        middle = [(low + high) / 2 for low, high in zip(edges[:-1], edges[1:], strict=True)]
        marker, tone = MARKERS[index % len(MARKERS)], colour(variant, colours)
        axes.plot(middle, share, label=label, linestyle=dashes(variant), marker=marker, color=tone)
        axes.axvline(variant.original_window, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
    axes.set(
        xlim=(0, None), ylim=(-0.03, 1.03), xlabel="tokens from what was asked to the end", ylabel="answered right"
    )
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    legend(figure, axes)
    return figure


@styled
def ablation(points: Sequence[tuple[Variant, str, float]], *, base: float | None) -> Figure:
    """Perplexity in the new window by factor, one line a method and budget; relative to the base where it is known.

    `points` holds (variant, budget in words, perplexity).
    """
    figure, axes = new(height=2.9)
    lines: dict[tuple[str, str], list[tuple[Variant, float]]] = {}
    for variant, budget, value in points:
        lines.setdefault((variant.method_label, budget), []).append((variant, value / (base or 1.0)))
    for index, ((method, budget), line) in enumerate(lines.items()):
        line.sort(key=lambda point: point[0].factor)
        first = line[0][0]
        axes.plot(
            [variant.factor for variant, _ in line],
            [value for _, value in line],
            color=colour(first),
            linestyle=dashes(first),
            marker=MARKERS[index % len(MARKERS)],
            label=f"{method}, {budget}",
        )
    if base:
        axes.axhline(1.0, color=MUTED, linewidth=0.8)
    window_axis(axes, sorted({variant.factor for variant, _, _ in points}))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"×{x:g}"))
    axes.set(xlabel="factor", ylabel="perplexity / base in its window" if base else "perplexity")
    values = [value for line in lines.values() for _, value in line]
    if max(values) > 2.5 * min(values):
        log_y(axes, values)
    legend(figure, axes)
    return figure
