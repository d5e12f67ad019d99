"""The theory drawn: the paper's figures 2 and 5, what they look like when followed farther, and angular resolution.

in   a rotation and a window, or rows of rope/growth.py and rope/resolution.py
out  a matplotlib Figure each

The paper's own range and its honest continuation are two figures, so that each can be compared with what is printed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ropewalk.figures.style import AMBER, BLUE, INK, METHOD_COLOURS, MUTED, RED, RULE, WIDTH, legend, new, styled
from ropewalk.rope.bounds import abel_sum, check_reach
from ropewalk.rope.growth import Growth, features, fit
from ropewalk.rope.scaling import Plain, Rope, Scaling

#: One line and one dash pattern a solver: colour is never the only sign.
_SOLVERS = {
    "normal equations, float32": (RED, "-"),
    "normal equations, float64": (AMBER, "--"),
    "least squares, float64": (INK, ":"),
    "ridge 1.0, float64": (BLUE, "-"),
}
#: A curve of more points than this is drawn as the range it covers, bin by bin: no eye tells, and the SVG stays small.
_POINTS = 1024


@styled
def figure_2(rope: Rope, *, solver: str = "normal equations, float32", seed: int = 0) -> Figure:
    """The paper's figure 2: a fit to random targets in [0, L), followed to 2L, and looked at between the integers.

    Args:
        rope: the rotation; LLaMA's in the paper.
        solver: one of `rope.growth.SOLVERS`; the paper's is the first.
        seed: of the targets.
    """
    window = min(rope.window, 8192)
    inv_freq = rope.inv_freq()
    targets = np.random.default_rng(seed).standard_normal((window, 1))
    weights = fit(features(inv_freq, np.arange(window)), targets, solver)[:, 0]

    def a(s: np.ndarray) -> np.ndarray:
        return features(inv_freq, s) @ weights

    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    upper, middle, lower = figure.subplots(3)
    every = max(1, window // 512)
    upper.plot(np.arange(window)[::every], targets[::every, 0], ".", color=MUTED, markersize=1.2, alpha=0.5)
    _curve(upper, np.arange(window), a(np.arange(window)), BLUE)
    upper.set_ylabel("inside")
    s = np.arange(2 * window)
    _curve(middle, s, a(s), RED)
    middle.axvspan(0, window, color=RULE, alpha=0.6, linewidth=0)
    middle.set_ylabel("to twice the window")
    # The paper's excerpt; a tiny window has its own.
    start, stop = (25, 75) if window > 75 else (window // 4, window // 2)
    fine = np.arange(start, stop + 0.0625, 0.125)
    whole = np.arange(start, stop + 1)
    lower.plot(fine, a(fine), color=BLUE, linewidth=1.2)
    lower.plot(whole, a(whole), "o", color=INK, markersize=2.2)
    lower.set(ylabel="between tokens", xlabel="distance s (tokens)")
    figure.align_ylabels([upper, middle, lower])
    return figure


@styled
def growth(rows: Sequence[Growth]) -> Figure:
    """Figure 2 followed farther, by solver: the running maximum of |a(s)|, median over seeds, both axes logarithmic."""
    figure, axes = new(height=3.2)
    for row in rows:
        tone, dash = _SOLVERS.get(row.solver, (MUTED, "-."))
        if math.isfinite(row.outside):
            axes.plot(np.add(row.distances, 1), row.envelope, color=tone, linestyle=dash, label=row.solver)
    if rows:
        axes.axvline(rows[0].window, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
        axes.set_xlim(max(1, rows[0].window / 16), rows[0].reach)
    axes.set(xscale="log", yscale="log", xlabel="distance s (tokens)", ylabel="largest |a| up to s")
    _powers_of_two(axes)
    legend(figure, axes)
    return figure


@styled
def figure_5(rope: Rope, *, reach: int | None = None) -> Figure:
    """The paper's figure 5, B(s)/d with a line at 1; out to `reach` it is the honest version, with a line at 1/4 too.

    Below 1 the paper's reading "B(s) >= d" fails. Only below 1/4 would the extrapolation bound 2 max|h_j| B(s) be less than
    the trivial (d/2) max|h_j|.

    Args:
        rope: the rotation.
        reach: tokens; 2L, the paper's range, if not given.
    """
    honest = reach is not None
    reach = reach or 2 * rope.window
    check_reach(reach)
    s = np.arange(0, reach, max(1, math.ceil(reach / (1 << 18))))
    curve = abel_sum(rope.inv_freq(), s) / rope.head_dim
    figure, axes = new(height=2.9)
    _curve(axes, s, curve, BLUE, label="B(s)/d")
    axes.axhline(1, color=RED, linewidth=1.0, linestyle="--", label="1: the paper's reading")
    if honest:
        axes.axhline(0.25, color=INK, linewidth=1.0, linestyle=":", label="1/4: level of the trivial bound")
        lowest = int(curve.argmin())
        axes.plot(
            s[lowest], curve[lowest], "o", color=INK, markersize=4, label=f"lowest: {curve[lowest]:.3f} at {s[lowest]}"
        )
    beyond = curve[s >= 8] if reach > 8 else curve
    axes.set(ylim=(0, float(beyond.max()) * 1.05), xlim=(0, reach), xlabel="distance s (tokens)", ylabel="B(s)/d")
    legend(figure, axes)
    return figure


@styled
def resolution(rope: Rope, scalings: Sequence[Scaling]) -> Figure:
    """How far one token turns each pair, in radians, by scaling; shaded: pairs that never complete a turn in training."""
    figure, axes = new(height=3.2)
    pairs = np.arange(rope.head_dim // 2)
    incomplete = pairs[rope.window * rope.inv_freq() < 2 * math.pi]
    if incomplete.size:
        axes.axvspan(incomplete[0] - 0.5, pairs[-1] + 0.5, color=RULE, alpha=0.7, linewidth=0)
    dash = ("-", "-", "--", "-.", ":")
    for index, scaling in enumerate(scalings):
        plain = isinstance(scaling, Plain)
        name = "unscaled" if plain else f"{scaling.label} ×{scaling.factor:.4g}"
        tone = INK if plain else METHOD_COLOURS.get(scaling.method, MUTED)
        axes.plot(pairs, scaling.inv_freq(rope), color=tone, linestyle=dash[index % 5], label=name)
    axes.set(yscale="log", xlabel="pair of coordinates", ylabel="radians a token", xlim=(-0.5, pairs[-1] + 0.5))
    legend(figure, axes)
    return figure


def _curve(axes: Axes, x: np.ndarray, y: np.ndarray, tone: str, label: str | None = None) -> None:
    """A line; where it has too many points, the band between the lowest and highest of each bin."""
    if len(x) <= 4 * _POINTS:
        axes.plot(x, y, color=tone, linewidth=0.9, label=label)
        return
    parts = np.array_split(np.arange(len(x)), _POINTS)
    low, high = (np.array([f(y[part]) for part in parts]) for f in (np.min, np.max))
    axes.fill_between(x[[part[0] for part in parts]], low, high, color=tone, linewidth=0.5, label=label)


def _powers_of_two(axes: Axes) -> None:
    axes.xaxis.set_major_locator(LogLocator(base=2, numticks=9))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
