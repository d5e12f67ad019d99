"""Attention rows → figures: scores by distance, deviations beside their bounds, neighbours told apart. One a function.

in   measurements of AttentionScores or Adjacent rows, each with its run
out  a matplotlib Figure
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from ropewalk.figures.axes import original_windows
from ropewalk.figures.style import INK, RED, WIDTH, Colours, inked, legend, markers_of, new, styled
from ropewalk.records import Adjacent, AttentionScores, Measurement
from ropewalk.records.variant import Variant, labels, last_steps

R = TypeVar("R", AttentionScores, Adjacent)
SumUp = Callable[[Any], Any]


@styled
def scores(measurements: Sequence[Measurement[AttentionScores]], colours: Colours | None = None) -> Figure:
    """Scores before the softmax by distance, a line a variant: the highest of any head, and the median head's 99.9 % quantile.

    Layers that look back only so far are left out of the lower panel's median where they see nothing.
    """
    by_variant = by_variants(measurements)
    names = labels(list(by_variant))
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True)
    markers = markers_of([(names[variant], variant) for variant in by_variant], colours)
    for variant, alike in by_variant.items():
        style = inked(variant, colours) | {"marker": markers[names[variant]], "markersize": 3, "linewidth": 1.3}
        upper.plot(
            *_over_heads([(m.row.edges, m.row.maximum) for m in alike], np.nanmax), label=names[variant], **style
        )
        lower.plot(*_over_heads([(m.row.edges, m.row.quantile) for m in alike], np.nanmedian), **style)
    for axes in (upper, lower):
        original_windows(axes, by_variant)
    upper.set_ylabel("highest score")
    lower.set(ylabel="99.9 %, median head", xlabel="distance (tokens)")
    _distance_axis(lower, max(m.row.window for m in measurements))
    legend(figure, upper)
    return figure


@styled
def bounds(measurements: Sequence[Measurement[AttentionScores]], colours: Colours | None = None) -> Figure:
    """How far scores were from their chord, a point a head, beside what theorem 2.1 allows as printed and as it holds."""
    by_variant = by_variants(measurements)
    names = labels(list(by_variant))
    figure, axes = new(height=3.4)
    ends: list[float] = []
    share = 1.0
    markers = markers_of([(names[variant], variant) for variant in by_variant], colours)
    for variant, alike in by_variant.items():
        printed = np.array([value for m in alike for value in m.row.printed], dtype=float)
        deviation = np.array([value for m in alike for value in m.row.deviation], dtype=float)
        corrected = np.array([value for m in alike for value in m.row.corrected], dtype=float)
        good = np.isfinite(printed) & np.isfinite(deviation) & (printed > 0) & (deviation > 0)
        if not good.any():
            continue
        ends += [printed[good].min(), printed[good].max()]
        share = float(np.nanmax(corrected[good] / printed[good]))
        style = inked(variant, colours) | {"marker": markers[names[variant]], "linestyle": "none", "markersize": 3}
        axes.plot(printed[good], deviation[good], alpha=0.7, label=names[variant], **style)
    if ends:
        edge = np.array([min(ends), max(ends)])
        axes.plot(edge, edge, color=RED, linewidth=1.0, linestyle="--", label="as printed")
        axes.plot(edge, share * edge, color=INK, linewidth=1.0, label="as it holds")
    _bounds_axes(axes)
    legend(figure, axes)
    return figure


def _bounds_axes(axes: Axes) -> None:
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="bound as printed, with the head's max|h|",
        ylabel="found, halfway between tokens",
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axis.set_minor_locator(NullLocator())


@styled
def adjacent(measurements: Sequence[Measurement[Adjacent]], colours: Colours | None = None) -> Figure:
    """Neighbours told apart, layer by layer, one line a variant: a score's change per token over the spread of scores (median
    head), and the attention on the token before (strongest head)."""
    by_variant = by_variants(measurements)
    # Queries of the original window are asked, which an extrapolating base answers as ever: its line would hide the base's.
    if any(variant.role == "base" for variant in by_variant):
        by_variant = {variant: alike for variant, alike in by_variant.items() if variant.role != "extrapolation"}
    names = labels(list(by_variant))
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True)
    markers = markers_of([(names[variant], variant) for variant in by_variant], colours)
    for variant, alike in by_variant.items():
        rows = sorted((m.row for m in alike), key=lambda row: row.layer)
        layers = [row.layer for row in rows]
        style = inked(variant, colours) | {"marker": markers[names[variant]], "markersize": 3.5}
        upper.plot(layers, [_summed(row.resolution, np.nanmedian) for row in rows], label=names[variant], **style)
        lower.plot(layers, [_summed(row.previous, np.nanmax) for row in rows], **style)
    upper.set(ylabel="change / spread", ylim=(0, None))
    lower.set(ylabel="on the token before", xlabel="layer", ylim=(0, None))
    lower.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    legend(figure, upper)
    return figure


def by_variants(measurements: Sequence[Measurement[R]]) -> dict[Variant, list[Measurement[R]]]:
    """Variant → its measurements, in a legend's order; of one training only the last step, of one variant only the newest run."""
    by_run: dict[Variant, dict[str, list[Measurement[R]]]] = {}
    for m in measurements:
        by_run.setdefault(m.variant, {}).setdefault(m.run.id, []).append(m)
    keep = sorted(last_steps(list(by_run)), key=lambda variant: variant.order)
    return {variant: max(by_run[variant].values(), key=lambda alike: alike[0].run.started) for variant in keep}


def _summed(heads: Sequence[float], sum_up: SumUp) -> float:
    values = np.array(heads, dtype=float)
    return float(sum_up(values)) if np.isfinite(values).any() else float("nan")


def _over_heads(
    tables: Sequence[tuple[Sequence[int], Sequence[Sequence[float]]]], sum_up: SumUp
) -> tuple[np.ndarray, np.ndarray]:
    """(distance + 1, figure) by bucket over all layers' heads; each bucket stands at the middle of its distances.

    `tables` holds a layer's edges and its figures [head][bucket].
    """
    columns: dict[tuple[int, int], list[float]] = {}
    for edges, table in tables:
        buckets = list(zip(edges, edges[1:], strict=False))
        for bucket, values in zip(buckets, zip(*table, strict=True), strict=True):
            columns.setdefault(bucket, []).extend(value for value in values if np.isfinite(value))
    # A layer that looks back only so far ends in a bucket of its own; where it is shorter than the others', it is left out.
    longest = {start: max(stop for begin, stop in columns if begin == start) for start, _ in columns}
    kept = sorted((start, stop) for (start, stop), values in columns.items() if values and stop == longest[start])
    places = np.array([(start + stop - 1) / 2 + 1 for start, stop in kept])
    return places, np.array([sum_up(columns[bucket]) for bucket in kept])


def _distance_axis(axes: Axes, longest: int) -> None:
    """Logarithmic in distance + 1, so that a token's score with itself has a place; labelled by distance."""
    axes.set(xscale="log", xlim=(0.9, longest * 1.05))
    marks = [0, 1, 3] + [4**power for power in range(2, 12) if 4**power < longest * 1.5]
    axes.xaxis.set_major_locator(FixedLocator([mark + 1 for mark in marks]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x - 1:.0f}"))
