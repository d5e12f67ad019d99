"""Records → figures, one matplotlib figure a function. No pyplot, no global state, no torch.

in   rows of one kind as report.rows hands them over: dictionaries with the run's header under "header"
out  a matplotlib Figure; `save` writes one as SVG, PDF or PNG, `plot_style.svg` makes it an element of a page

Perplexities drawn on one pair of axes were measured alike (same text, stride and convention): the caller sees to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from ropewalk.figures.style import INK, MARKERS, MUTED, STYLE, colour, dashes, legend, log_y, new, styled, window_axis
from ropewalk.records import format as number_format
from ropewalk.records.variant import Variant, labels, last_steps, trained_variant, variant_of

Row = dict[str, Any]
Colours = Mapping[tuple, str]
SUCCESS = LinearSegmentedColormap.from_list("success", ["#eceae5", "#a9c4e0", "#1d5fa8"])


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure; the ending of the path chooses the format. Text in SVG and PDF stays text."""
    with matplotlib.rc_context(STYLE | {"pdf.fonttype": 42}):
        figure.savefig(path, dpi=200, metadata={"Date": None} if str(path).endswith(".svg") else None)
    return Path(path)


@styled
def perplexity(rows: Sequence[Row], *, closeup: bool = False, colours: Colours | None = None) -> Figure:
    """Perplexity against the evaluation window, one line a state, with 95 % intervals; the last step of each training.

    The base is drawn through: solid inside its window, dashed where it extrapolates. `closeup` limits the y axis to where
    the states that work lie, since one extrapolation can flatten everything else.
    """
    by_state = _by_state(rows)
    figure, axes = new()
    names = labels(list(by_state))
    asides = _asides(list(by_state))
    originals = sorted({state.original_window for state in by_state})
    for index, (state, series) in enumerate(by_state.items()):
        windows, values, low, high = _columns(series, "window", "perplexity", "low", "high")
        windows = [window * asides[state] for window in windows]
        style = {"color": colour(state, colours), "marker": MARKERS[index % len(MARKERS)], "linestyle": dashes(state)}
        if state.role == "extrapolation":
            join = [row for other, rest in by_state.items() if _precedes(other, state) for row in rest]
            if join:
                last = max(join, key=lambda row: row["window"])
                start = last["window"] * asides[state]
                axes.plot([start, windows[0]], [last["perplexity"], values[0]], "--", color=colour(state, colours))
        axes.plot(windows, values, label=names[state], **style)
        _intervals(axes, windows, values, low, high, style["color"])
    values = [
        row["perplexity"]
        for series in by_state.values()
        for row in series
        if number_format.is_finite(row["perplexity"])
    ]
    if closeup:
        axes.set_ylim(closeup_limits(rows))
    elif values and max(values) > 2.5 * min(values):
        log_y(axes, values)
    window_axis(axes, sorted({row["window"] for row in rows}))
    for original in originals:
        axes.axvline(original, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
    axes.set(xlabel="evaluation window (tokens)", ylabel="perplexity")
    legend(figure, axes)
    return figure


def closeup_limits(rows: Sequence[Row]) -> tuple[float, float] | None:
    """The y range of a close-up: up to 1.3 times the best figure; None where everything lies in it or too little does."""
    values = [row["perplexity"] for row in rows if number_format.is_finite(row["perplexity"])]
    if not values:
        return None
    top = 1.3 * min(values)
    near = [value for value in values if value <= top]
    if len(near) < 3 or len(near) == len(values):
        return None
    margin = 0.08 * (max(near) - min(near)) or 0.02 * min(near)
    return min(near) - margin, max(near) + margin


@styled
def passkey_map(rows: Sequence[Row], *, longest: int | None = None, k_max: dict[int, int] | None = None) -> Figure:
    """Passkey success of one state: the key's distance from the end (tokens) by the prompt's window.

    Each strip is a window, as long as the window is; each cell one depth. `longest` sets the x axis, so that the maps of
    several states can be compared; `k_max` (window → tokens) is printed at the end of each strip.
    """
    windows = sorted({row["window"] for row in rows})
    longest = longest or max(windows)
    figure, axes = new(height=1.05 + 0.33 * len(windows))
    shades = {"cmap": SUCCESS, "norm": Normalize(0, 1)}
    for place, window in enumerate(windows):
        cells = sorted((row for row in rows if row["window"] == window), key=lambda row: row["k"])
        edges = np.array([0, *(row["k"] for row in cells)], dtype=float)
        rate = np.array([[row["successes"] / row["trials"] if row["trials"] else math.nan for row in cells]])
        axes.pcolormesh(
            edges, [place - 0.4, place + 0.4], rate, **shades, edgecolors="white", linewidth=0.5 * window / longest
        )
        if k_max and window in k_max:
            reached = k_max[window]
            axes.plot([reached, reached], [place - 0.46, place + 0.46], color=INK, linewidth=1.6, clip_on=False)
            text = f"{reached}"
            axes.text(1.015, place, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    original = variant_of(rows[0]["header"]).original_window
    if original < longest:
        axes.axvline(original, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)), zorder=0)
    axes.set(xlim=(0, longest), ylim=(-0.6, len(windows) - 0.4), xlabel="key this many tokens before the end")
    axes.set_ylabel("window")
    axes.set_yticks(range(len(windows)), [str(window) for window in windows])
    axes.xaxis.set_major_locator(FixedLocator([longest * part / 4 for part in range(5)]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f}"))
    axes.grid(False)
    axes.spines["left"].set_visible(False)
    if k_max:
        axes.text(1.015, len(windows) - 0.45, "k_max", transform=axes.get_yaxis_transform(), fontsize=7.5, color=MUTED)
    # Few enough steps that they are drawn as paths: more would make the bar a bitmap.
    steps = np.linspace(0, 1, 21)
    bar = figure.colorbar(
        ScalarMappable(**shades),
        boundaries=steps,
        ax=axes,
        location="top",
        shrink=0.35,
        aspect=16,
        anchor=(0.0, 0.0),
        pad=0.03,
    )
    bar.set_ticks([0, 0.2, 1], labels=["0", "20 %", "all trials right"])
    bar.ax.tick_params(length=0, labelsize=7.5, pad=2)
    bar.outline.set_visible(False)
    return figure


@styled
def loss(rows: Sequence[Row], *, colours: Colours | None = None) -> Figure:
    """Training loss by step, one line a run: every step thin, a centred running mean over it."""
    figure, axes = new(height=2.7)
    runs: dict[str, list[Row]] = {}
    for row in rows:
        runs.setdefault(row["run"], []).append(row)
    states = {run: trained_variant(steps[0]["header"]) for run, steps in runs.items()}
    for run, steps in runs.items():
        steps = sorted(steps, key=lambda row: row["step"])
        x, y = _columns(steps, "step", "loss")
        tone = colour(states[run], colours)
        span = max(1, len(y) // 25)
        axes.plot(x, y, color=tone, linewidth=0.6 if span > 1 else 1.6, alpha=0.4 if span > 1 else 1.0)
        name = f"{states[run].method_and_factor} to {states[run].window}"
        smooth = {"color": tone, "label": name if len(runs) > 1 else "running mean"}
        if span > 1:
            axes.plot(x, _running_mean(y, span), **smooth)
        elif len(runs) > 1:
            axes.plot([], [], **smooth)  # its name in the legend
    axes.set(xlabel="optimiser step", ylabel="loss (nats a token)")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if len(runs) > 1:
        legend(figure, axes)
    return figure


def _by_state(rows: Sequence[Row]) -> dict[Variant, list[Row]]:
    """state → its rows by window, in the order of a legend; of each training only the last step."""
    found: dict[Variant, list[Row]] = {}
    for row in rows:
        found.setdefault(variant_of(row["header"], row["window"]), []).append(row)
    keep = sorted(last_steps(list(found)), key=lambda state: state.order)
    return {state: sorted(found[state], key=lambda row: row["window"]) for state in keep}


def _asides(states: Sequence[Variant]) -> dict[Variant, float]:
    """A factor for each state's windows, within a few per cent of 1, so that intervals at one window stand side by side."""
    lines = list(dict.fromkeys((state.name, state.series) if state.extended else (state.name,) for state in states))
    places = {state: lines.index((state.name, state.series) if state.extended else (state.name,)) for state in states}
    return {state: 2 ** (0.04 * (place - (len(lines) - 1) / 2)) for state, place in places.items()}


def _precedes(base: Variant, extrapolation: Variant) -> bool:
    return base.role == "base" and base.lineage == extrapolation.lineage and base.name == extrapolation.name


def _columns(rows: Sequence[Row], *names: str) -> list[list[float]]:
    """Columns of rows; what is not a finite number becomes NaN, which matplotlib leaves out."""
    return [[row[name] if number_format.is_finite(row[name]) else math.nan for row in rows] for name in names]


def _intervals(axes: Axes, x, y, low, high, tone: str) -> None:
    below = [max(0.0, value - bound) for value, bound in zip(y, low, strict=True)]
    above = [max(0.0, bound - value) for value, bound in zip(y, high, strict=True)]
    if not np.all(np.isnan(below)):
        axes.errorbar(x, y, yerr=[below, above], fmt="none", ecolor=tone, elinewidth=0.9, capsize=2.2, alpha=0.75)


def _running_mean(values: Sequence[float], span: int) -> np.ndarray:
    """Centred mean over `span` steps on each side, over what there is near the ends; NaN is left out."""
    y = np.asarray(values, dtype=float)
    parts = (y[max(0, i - span) : i + span + 1] for i in range(len(y)))
    return np.array([np.nanmean(part) if np.isfinite(part).any() else np.nan for part in parts])


__all__ = ["closeup_limits", "loss", "passkey_map", "perplexity", "save"]
