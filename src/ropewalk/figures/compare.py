"""Variants compared: by fine-tuning steps, by length, place and distance, by method and factor.

in   what the report's sections work out from rows: curves, changes, points
out  a matplotlib Figure each
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ropewalk.figures.axes import doubling_ticks, log_y, original_windows, window_axis
from ropewalk.figures.style import (
    CROWDED_OUT,
    INK,
    MUTED,
    PAPER,
    Colours,
    colour,
    crowded_out,
    dashes,
    inked,
    legend,
    marked,
    markers_of,
    more,
    new,
    styled,
)
from ropewalk.records import ContextGain, paper
from ropewalk.records.recipe import differing
from ropewalk.records.variant import Variant, labels

COMPARABLE = 100  # steps; a run that ends before would be a dot beside the paper's thousand


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
    relative = [(variant, {step: y / (base or 1.0) for step, y in points.items()}) for variant, points in curves]
    _by_steps(axes, relative, {variant: points[max(points)] for variant, points in curves}, colours)
    drawn = [y for _, points in relative for y in points.values()]
    if base and beside_paper and is_comparable(curves):
        drawn += _paper_by_steps(axes)
    _perplexity_axis(axes, drawn, base)
    legend(figure, axes)
    return figure


def _by_steps(
    axes: Axes, curves: Iterable[tuple[Variant, dict[int, float]]], last: dict[Variant, float], colours: Colours | None
) -> None:
    """A line a variant through (steps, figure). last: the last figure of each, the lower the better."""
    curves, looks = list(curves), _looks(last, colours)
    markers = markers_of([(looks[variant]["label"], variant) for variant, _ in curves], colours)
    for variant, points in curves:
        marker = markers[looks[variant]["label"]]
        axes.plot(*zip(*sorted(points.items()), strict=True), **looks[variant], marker=marker)
    axes.set_xlabel("fine-tuning steps")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def _perplexity_axis(axes: Axes, drawn: Sequence[float], base: float | None) -> None:
    """The y axis of perplexities that are relative to the base's where that is known, with a line at 1."""
    axes.set_ylabel("perplexity / base\nin its window" if base else "perplexity")
    if base:
        axes.axhline(1.0, color=MUTED, linewidth=0.8)
    if max(drawn) > 2.5 * min(drawn):
        log_y(axes, drawn)


def _looks(last: dict[Variant, float], colours: Colours | None) -> dict[Variant, dict[str, Any]]:
    """Colour, place and name of each training's curve, by the last value of each, the lower the better."""
    names = labels(list(last), called=lambda variant: variant.method_and_factor + variant.recipe.after)
    crowd = crowded_out(last, lambda variant: variant)
    grey = {"color": CROWDED_OUT, "zorder": 1, "label": more(len(crowd))}
    return {
        variant: grey
        if variant in crowd
        else {
            "color": colour(variant, colours),
            "zorder": 2,
            "label": names[variant],
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
    shares = [(variant, {step: k / variant.window for step, k in points.items()}) for variant, points in curves]
    _by_steps(axes, shares, {variant: -points[max(points)] for variant, points in shares}, colours)
    longest = max(step for _, points in curves for step in points)
    if beside_paper and is_comparable(curves):
        for row, line in ((paper.TABLE_4.rows[0], "-."), (paper.TABLE_4.rows[4], ":")):
            x = [step for step in row.values if isinstance(step, int) and step <= max(longest, 1000)]
            y = [row.values[step] / row.window for step in x]
            axes.plot(x, y, color=PAPER, linewidth=1.1, linestyle=line, label=f"paper: 7B {row.method} {row.window}")
    axes.set(ylabel="k_max / window", ylim=(0, 1.05))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
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
    markers = markers_of([(label, variant) for label, variant, _ in series], colours)
    for label, variant, points in series:
        lengths, scores, low, high = (np.array(column) for column in zip(*points, strict=True))
        interval = [np.maximum(0, scores - low), np.maximum(0, high - scores)]
        axes.errorbar(
            lengths, scores, yerr=interval, **marked(markers[label], label, variant, colours, dashes(variant))
        )
    axes.axhline(threshold, color=INK, linewidth=0.9, linestyle="--")
    original_windows(axes, [variant for _, variant, _ in series])
    doubling_ticks(figure, axes, {point[0] for _, _, points in series for point in points})
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
    markers = markers_of([(label, variant) for label, variant, _ in series], colours)
    for label, variant, row in series:
        start, stop, gain, low, high = (
            np.array([part[name] for part in row.by_place], dtype=float)
            for name in ("start", "stop", "gain", "low", "high")
        )
        interval = [np.maximum(0, np.nan_to_num(length)) for length in (gain - low, high - gain)]
        axes.errorbar(
            np.sqrt(start * stop),
            gain,
            yerr=None if row.estimate else interval,
            **marked(markers[label], label, variant, colours, dashes(variant)),
        )
    axes.axhline(0, color=INK, linewidth=0.9)
    edges = {edge for _, _, row in series for part in row.by_place for edge in (part["start"], part["stop"])}
    original_windows(axes, [variant for _, variant, _ in series])
    doubling_ticks(figure, axes, edges)
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
    markers = markers_of([(label, variant) for label, variant, *_ in series], colours)
    for label, variant, edges, share in series:
        middle = [(low + high) / 2 for low, high in zip(edges[:-1], edges[1:], strict=True)]
        axes.plot(middle, share, label=label, marker=markers[label], **inked(variant, colours))
    original_windows(axes, [variant for _, variant, *_ in series])
    axes.set(
        xlim=(0, None), ylim=(-0.03, 1.03), xlabel="tokens from what was asked to the end", ylabel="answered right"
    )
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    legend(figure, axes)
    return figure


@styled
def ablation(points: Sequence[tuple[Variant, str, float]], *, base: float | None) -> Figure:
    """Perplexity in the new window by factor, one line a method, budget and setting of its training, seeds by their mean; relative to the base where it is known.

    `points` holds (variant, budget in words, perplexity).
    """
    figure, axes = new(height=2.9)
    lines: dict[str, list[tuple[Variant, float]]] = {}
    apart = differing([variant.recipe for variant, _, _ in points])
    for variant, budget, value in points:
        told = filter(None, map(variant.recipe.told, apart))
        lines.setdefault(", ".join([variant.method_label, budget, *told]), []).append((variant, value / (base or 1.0)))
    markers = markers_of([(name, line[0][0]) for name, line in lines.items()], None)
    for name, line in lines.items():
        first, by_factor = line[0][0], dict[float, list[float]]()
        for variant, value in sorted(line, key=lambda point: point[0].factor):
            by_factor.setdefault(variant.factor, []).append(math.log(value))
        axes.plot(
            list(by_factor),
            [math.exp(fmean(values)) for values in by_factor.values()],
            **inked(first, None),
            marker=markers[name],
            label=name,
        )
    window_axis(figure, axes, sorted({variant.factor for variant, _, _ in points}), written="×{:g}")
    axes.set_xlabel("factor")
    _perplexity_axis(axes, [value for line in lines.values() for _, value in line], base)
    legend(figure, axes)
    return figure
