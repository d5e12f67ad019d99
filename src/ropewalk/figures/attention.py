"""Attention rows → figures: scores by distance, deviations beside their bounds, neighbours told apart. One a function.

in   rows of kinds "attention" or "adjacent" as report.rows hands them over: dictionaries with the run's header under "header"
out  a matplotlib Figure
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from ropewalk.figures.style import INK, MARKERS, MUTED, RED, WIDTH, colour, dashes, legend, new, styled
from ropewalk.records.variant import Variant, labels, last_steps, variant_of

Row = dict[str, Any]


@styled
def scores(rows: Sequence[Row], colours: Mapping[tuple, str] | None = None) -> Figure:
    """Scores before the softmax by distance, one line a state: the largest of any head, and the median head's 99.9 % quantile.

    Layers that look back only so far are left out of the lower panel's median where they see nothing.
    """
    by_state = by_states(rows)
    names = labels(list(by_state))
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True)
    for index, (state, mine) in enumerate(by_state.items()):
        style: dict[str, Any] = {
            "color": colour(state, colours),
            "linestyle": dashes(state),
            "marker": MARKERS[index % len(MARKERS)],
            "markersize": 3,
            "linewidth": 1.3,
        }
        upper.plot(*_over_heads(mine, "maximum", np.nanmax), label=names[state], **style)
        lower.plot(*_over_heads(mine, "quantile", np.nanmedian), **style)
    for axes in (upper, lower):
        for original in sorted({state.original_window for state in by_state}):
            axes.axvline(original, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
    upper.set_ylabel("largest score")
    lower.set(ylabel="99.9 %, median head", xlabel="distance (tokens)")
    _distance_axis(lower, max(row["window"] for row in rows))
    legend(figure, upper)
    return figure


@styled
def bounds(rows: Sequence[Row], colours: Mapping[tuple, str] | None = None) -> Figure:
    """How far scores were found from their chord, a point a head, beside what theorem 2.1 allows as printed and as it holds."""
    by_state = by_states(rows)
    names = labels(list(by_state))
    figure, axes = new(height=3.4)
    seen: list[float] = []
    share = 1.0
    for index, (state, mine) in enumerate(by_state.items()):
        x, y, corrected = (np.array([v for row in mine for v in row[name]], dtype=float) for name in _BOUNDS)
        good = np.isfinite(x) & np.isfinite(y) & (x > 0) & (y > 0)
        if not good.any():
            continue
        seen += [x[good].min(), x[good].max()]
        share = float(np.nanmax(corrected[good] / x[good]))
        style = {"color": colour(state, colours), "marker": MARKERS[index % len(MARKERS)], "linestyle": "none"}
        axes.plot(x[good], y[good], markersize=3, alpha=0.7, label=names[state], **style)
    if seen:
        edge = np.array([min(seen), max(seen)])
        axes.plot(edge, edge, color=RED, linewidth=1.0, linestyle="--", label="as printed")
        axes.plot(edge, share * edge, color=INK, linewidth=1.0, label="as it holds")
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
    legend(figure, axes)
    return figure


_BOUNDS = ("printed", "deviation", "corrected")


@styled
def adjacent(rows: Sequence[Row], colours: Mapping[tuple, str] | None = None) -> Figure:
    """Neighbours told apart, layer by layer, one line a state: a score's change per token over the spread of scores (median
    head), and the attention on the token before (strongest head)."""
    by_state = by_states(rows)
    # Queries of the original window are asked, which an extrapolating base answers as ever: its line would hide the base's.
    if any(state.role == "base" for state in by_state):
        by_state = {state: mine for state, mine in by_state.items() if state.role != "extrapolation"}
    names = labels(list(by_state))
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True)
    for index, (state, mine) in enumerate(by_state.items()):
        mine = sorted(mine, key=lambda row: row["layer"])
        layers = [row["layer"] for row in mine]
        style: dict[str, Any] = {
            "color": colour(state, colours),
            "linestyle": dashes(state),
            "marker": MARKERS[index % len(MARKERS)],
            "markersize": 3.5,
        }
        upper.plot(layers, [_of(row, "resolution", np.nanmedian) for row in mine], label=names[state], **style)
        lower.plot(layers, [_of(row, "previous", np.nanmax) for row in mine], **style)
    upper.set(ylabel="change / spread", ylim=(0, None))
    lower.set(ylabel="on the token before", xlabel="layer", ylim=(0, None))
    lower.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    legend(figure, upper)
    return figure


def by_states(rows: Sequence[Row]) -> dict[Variant, list[Row]]:
    """State → its rows, in a legend's order; of one training only the last step, of one state only the newest run."""
    found: dict[Variant, dict[str, list[Row]]] = {}
    for row in rows:
        state = variant_of(row["header"], row["window"])
        found.setdefault(state, {}).setdefault(row["run"], []).append(row)
    keep = sorted(last_steps(list(found)), key=lambda state: state.order)
    return {state: max(found[state].values(), key=lambda run: run[0]["header"].get("started", "")) for state in keep}


def _of(row: Row, name: str, sum_up: Any) -> float:
    values = np.array(row[name], dtype=float)
    return float(sum_up(values)) if np.isfinite(values).any() else float("nan")


def _over_heads(rows: Sequence[Row], name: str, sum_up: Any) -> tuple[np.ndarray, np.ndarray]:
    """(distance + 1, figure) by bucket over all layers' heads; each bucket stands at the middle of its distances."""
    columns: dict[tuple[int, int], list[float]] = {}
    for row in rows:
        for bucket in zip(row["edges"], row["edges"][1:], strict=False):
            columns.setdefault(bucket, [])
        for bucket, values in zip(
            zip(row["edges"], row["edges"][1:], strict=False), zip(*row[name], strict=True), strict=True
        ):
            columns[bucket] += [value for value in values if value is not None and np.isfinite(value)]
    # A layer that looks back only so far ends in a bucket of its own; where it is shorter than the others', it is left out.
    longest = {start: max(stop for begin, stop in columns if begin == start) for start, _ in columns}
    buckets = sorted((start, stop) for (start, stop), values in columns.items() if values and stop == longest[start])
    places = np.array([(start + stop - 1) / 2 + 1 for start, stop in buckets])
    return places, np.array([sum_up(columns[bucket]) for bucket in buckets])


def _distance_axis(axes: Axes, longest: int) -> None:
    """Logarithmic in distance + 1, so that a token's score with itself has a place; labelled by distance."""
    axes.set(xscale="log", xlim=(0.9, longest * 1.05))
    marks = [0, 1, 3] + [4**power for power in range(2, 12) if 4**power < longest * 1.5]
    axes.xaxis.set_major_locator(FixedLocator([mark + 1 for mark in marks]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x - 1:.0f}"))
