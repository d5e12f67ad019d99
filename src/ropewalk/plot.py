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
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from ropewalk import numerals, paper
from ropewalk.plot_style import INK, MARKERS, MUTED, PAPER, STYLE, colour, dashes, legend, new, styled
from ropewalk.states import State, labels, last_steps, state_of, trained_state

Row = dict[str, Any]
Colours = Mapping[tuple, str]
TASK_NAMES = {
    "boolq": "BoolQ",
    "piqa": "PIQA",
    "race-middle": "RACE-m",
    "race-high": "RACE-h",
    "winogrande": "WinoGrande",
}
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
    originals = sorted({state.original_window for state in by_state})
    for index, (state, series) in enumerate(by_state.items()):
        windows, values, low, high = _columns(series, "window", "perplexity", "low", "high")
        style = {"color": colour(state, colours), "marker": MARKERS[index % len(MARKERS)], "linestyle": dashes(state)}
        if state.role == "extrapolation":
            join = [row for other, rest in by_state.items() if _precedes(other, state) for row in rest]
            if join:
                last = max(join, key=lambda row: row["window"])
                axes.plot([last["window"], windows[0]], [last["perplexity"], values[0]], "--", color=colour(state))
        axes.plot(windows, values, label=names[state], **style)
        _intervals(axes, windows, values, low, high, style["color"])
    values = [
        row["perplexity"] for series in by_state.values() for row in series if numerals.is_finite(row["perplexity"])
    ]
    if closeup:
        axes.set_ylim(*closeup_limits(rows))
    elif values and max(values) > 2.5 * min(values):
        _log_y(axes, values)
    _window_axis(axes, sorted({row["window"] for row in rows}))
    for original in originals:
        axes.axvline(original, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
    axes.set(xlabel="evaluation window (tokens)", ylabel="perplexity")
    legend(figure, axes)
    return figure


def closeup_limits(rows: Sequence[Row]) -> tuple[float, float] | None:
    """The y range of a close-up: up to 1.3 times the best figure; None where everything lies in it or too little does."""
    values = [row["perplexity"] for row in rows if numerals.is_finite(row["perplexity"])]
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
    mesh = None
    for place, window in enumerate(windows):
        cells = sorted((row for row in rows if row["window"] == window), key=lambda row: row["k"])
        edges = np.array([0, *(row["k"] for row in cells)], dtype=float)
        rate = np.array([[row["successes"] / row["trials"] if row["trials"] else math.nan for row in cells]])
        mesh = axes.pcolormesh(
            edges,
            [place - 0.4, place + 0.4],
            rate,
            cmap=SUCCESS,
            vmin=0,
            vmax=1,
            edgecolors="white",
            linewidth=0.5 * window / longest,
        )
        if k_max and window in k_max:
            reached = k_max[window]
            axes.plot([reached, reached], [place - 0.46, place + 0.46], color=INK, linewidth=1.6, clip_on=False)
            text = f"{reached}"
            axes.text(1.015, place, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    original = state_of(rows[0]["header"]).original_window
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
    bar = figure.colorbar(mesh, ax=axes, location="top", shrink=0.35, aspect=16, anchor=(0.0, 0.0), pad=0.03)
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
    states = {run: trained_state(steps[0]["header"]) for run, steps in runs.items()}
    for run, steps in runs.items():
        steps = sorted(steps, key=lambda row: row["step"])
        x, y = _columns(steps, "step", "loss")
        tone = colour(states[run], colours)
        span = max(1, len(y) // 25)
        axes.plot(x, y, color=tone, linewidth=0.6 if span > 1 else 1.6, alpha=0.4 if span > 1 else 1.0)
        name = f"{states[run].method_and_factor} to {states[run].window}"
        axes.plot(x, _running_mean(y, span), color=tone, label=name if len(runs) > 1 else "running mean")
    axes.set(xlabel="optimiser step", ylabel="loss (nats a token)")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if len(runs) > 1:
        legend(figure, axes)
    return figure


@styled
def perplexity_by_steps(
    curves: Sequence[tuple[State, dict[int, float]]], *, base: float | None, colours: Colours | None = None
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
        reference = next(row for row in paper.TABLE_1.rows if row.model == "7B" and row.method == "none")
        longest = max(step for _, points in curves for step in points)
        for row, line in zip(paper.TABLE_3.rows, (":", "-."), strict=True):
            x = [step for step in row.values if isinstance(step, int)]
            y = [row.values[step] / reference.values[paper.WINDOW] for step in x]
            seen += y
            axes.plot(x, y, color=PAPER, linewidth=1.1, linestyle=line, label=f"paper: 7B PI ×{row.factor:.0f}")
        axes.axhline(1.0, color=MUTED, linewidth=0.8)
        axes.set_xlim(right=max(longest, 1000) * 1.03)
    if max(seen) > 2.5 * min(seen):
        _log_y(axes, seen)
    axes.set(xlabel="fine-tuning steps", ylabel="perplexity / base in its window" if base else "perplexity")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    legend(figure, axes)
    return figure


@styled
def k_max_by_steps(curves: Sequence[tuple[State, dict[int, float]]], *, colours: Colours | None = None) -> Figure:
    """k_max as a part of the window by fine-tuning steps, beside the paper's direct fine-tuning and PI (table 4, 7B)."""
    figure, axes = new(height=2.7)
    names = labels([state for state, _ in curves])
    longest = max(step for _, points in curves for step in points)
    for row, line in ((paper.TABLE_4.rows[0], "-."), (paper.TABLE_4.rows[4], ":")):
        x = [step for step in row.values if isinstance(step, int) and step <= max(longest, 1000)]
        y = [row.values[step] / row.window for step in x]
        axes.plot(x, y, color=PAPER, linewidth=1.1, linestyle=line, label=f"paper: 7B {row.method} {row.window}")
    for index, (state, points) in enumerate(curves):
        x = sorted(points)
        y = [points[step] / state.window for step in x]
        name = names[state].rpartition(", ")[0] or names[state]
        axes.plot(x, y, color=colour(state, colours), marker=MARKERS[index % len(MARKERS)], label=name)
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
def ablation(points: Sequence[tuple[State, str, float]], *, base: float | None) -> Figure:
    """Perplexity in the new window by factor, one line a method and budget; relative to the base where it is known.

    `points` holds (state, budget in words, perplexity).
    """
    figure, axes = new(height=2.9)
    lines: dict[tuple[str, str], list[tuple[State, float]]] = {}
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
        _log_y(axes, values)
    if base:
        axes.axhline(1.0, color=MUTED, linewidth=0.8)
    _window_axis(axes, sorted({state.factor for state, _, _ in points}))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"×{x:g}"))
    axes.set(xlabel="factor", ylabel="perplexity / base in its window" if base else "perplexity")
    legend(figure, axes)
    return figure


def _by_state(rows: Sequence[Row]) -> dict[State, list[Row]]:
    """state → its rows by window, in the order of a legend; of each training only the last step."""
    found: dict[State, list[Row]] = {}
    for row in rows:
        found.setdefault(state_of(row["header"], row["window"]), []).append(row)
    keep = sorted(last_steps(list(found)), key=lambda state: state.order)
    return {state: sorted(found[state], key=lambda row: row["window"]) for state in keep}


def _precedes(base: State, extrapolation: State) -> bool:
    return base.role == "base" and base.lineage == extrapolation.lineage and base.name == extrapolation.name


def _columns(rows: Sequence[Row], *names: str) -> list[list[float]]:
    """Columns of rows; what is not a finite number becomes NaN, which matplotlib leaves out."""
    return [[row[name] if numerals.is_finite(row[name]) else math.nan for row in rows] for name in names]


def _intervals(axes: Axes, x, y, low, high, tone: str) -> None:
    below = [max(0.0, value - bound) for value, bound in zip(y, low, strict=True)]
    above = [max(0.0, bound - value) for value, bound in zip(y, high, strict=True)]
    if not np.all(np.isnan(below)):
        axes.errorbar(x, y, yerr=[below, above], fmt="none", ecolor=tone, elinewidth=0.9, capsize=2.2, alpha=0.75)


def _log_y(axes: Axes, values: Sequence[float]) -> None:
    """A log axis whose labels are plain numbers; 1, 2 and 5 of each decade where there are few decades."""
    axes.set_yscale("log")
    decades = math.log10(max(values) / min(values))
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2.5 else (1.0,), numticks=12))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}" if y < 1e5 else f"{y:.0e}"))


def _window_axis(axes: Axes, windows: Sequence[int]) -> None:
    """Windows double, so the axis is logarithmic, with a tick at each window that was measured."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(list(windows)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f}"))
    axes.set_xlim(min(windows) / 1.12, max(windows) * 1.12)


def _running_mean(values: Sequence[float], span: int) -> np.ndarray:
    """Centred mean over `span` steps on each side, over what there is near the ends; NaN is left out."""
    y = np.asarray(values, dtype=float)
    parts = (y[max(0, i - span) : i + span + 1] for i in range(len(y)))
    return np.array([np.nanmean(part) if np.isfinite(part).any() else np.nan for part in parts])


__all__ = [
    "ablation",
    "benchmark_changes",
    "closeup_limits",
    "k_max_by_steps",
    "loss",
    "passkey_map",
    "perplexity",
    "perplexity_by_steps",
    "save",
]
