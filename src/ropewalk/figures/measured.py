"""Measurements → figures, one matplotlib figure a function. No pyplot, no global state, no torch.

in   measurements of one kind of row, each with its run; just made, or read back from a file
out  a matplotlib Figure; `save` writes one as SVG, PDF or PNG, `style.svg` makes it an element of a page

Perplexities drawn on one pair of axes were measured alike (same text, stride and convention): the caller sees to it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from ropewalk.evals.intervals import perplexity_over_seeds
from ropewalk.figures.axes import log_y, original_windows, window_axis
from ropewalk.figures.style import (
    CROWDED_OUT,
    INK,
    MUTED,
    STYLE,
    Colours,
    colour,
    crowded_out,
    inked,
    legend,
    markers_of,
    more,
    new,
    styled,
)
from ropewalk.records import Measurement, Passkey, Perplexity
from ropewalk.records import format as number_format
from ropewalk.records.variant import Variant, labels, last_steps, seeds_of_rows

_THIN: dict[str, Any] = {"linewidth": 0.6, "alpha": 0.6}  # a single seed
_ASIDE = 0.06  # of a doubling: from the first to the last of the lines that stand beside each other at a window
SUCCESS = LinearSegmentedColormap.from_list("success", ["#eceae5", "#a9c4e0", "#1d5fa8"])


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure; the ending of the path chooses the format. Text in SVG and PDF stays text."""
    with matplotlib.rc_context(STYLE | {"pdf.fonttype": 42}):
        figure.savefig(path, dpi=200, metadata={"Date": None} if str(path).endswith(".svg") else None)
    return Path(path)


def save_thrice(figure: Figure, directory: Path, name: str) -> None:
    """As SVG, PDF and PNG."""
    for ending in ("svg", "pdf", "png"):
        save(figure, directory / f"{name}.{ending}")
        figure.set_layout_engine(None)  # the first has laid it out


@styled
def perplexity(
    measurements: Sequence[Measurement[Perplexity]], *, closeup: bool = False, colours: Colours | None = None
) -> Figure:
    """Perplexity against the evaluation window, one line a variant, with 95 % intervals; the last step of each training. Seeds are thin lines about their mean, whose interval is that of tables.

    The base is drawn through: solid inside its window, dashed where it extrapolates. `closeup` limits the y axis to where
    the variants that work lie, since one extrapolation can flatten everything else; what lies outside is left out (`left_out` names it), and so are intervals, which are of documents and wider than that.
    """
    by_variant = _by_variant(measurements)
    figure, axes = new()
    crowd = crowded_out({v: rows[-1].perplexity for v, rows in by_variant.items()}, lambda variant: variant)
    names = labels(list(by_variant))
    names |= dict.fromkeys(crowd, more(len(seeds_of_rows(crowd))))
    asides = _asides(list(by_variant))
    limits = closeup_limits(measurements) if closeup else None
    markers = markers_of([(names[variant], variant) for variant in by_variant], colours)
    for variant, rows, seeds in _curves(by_variant):
        windows = [row.window * asides[variant] for row in rows]
        values = _drawn(rows, limits)
        if limits and not np.isfinite(values).any():
            continue
        tone = CROWDED_OUT if variant in crowd else colour(variant, colours)
        if inside := [row for other, those in by_variant.items() if _precedes(other, variant) for row in those]:
            last = max(inside, key=lambda row: row.window)
            axes.plot([last.window * asides[variant], windows[0]], [last.perplexity, values[0]], "--", color=tone)
        looks = inked(variant, colours) | {"color": tone, "zorder": 1 if variant in crowd else 2}
        marker = "" if variant in crowd else markers[names[variant]]
        axes.plot(windows, values, label=names[variant], marker=marker, **looks)
        for seed in seeds:
            axes.plot([row.window * asides[variant] for row in seed], _drawn(seed, limits), **looks, **_THIN)
        if not closeup and variant not in crowd:
            _intervals(axes, windows, values, rows, tone)
    if any(seeds for _, _, seeds in _curves(by_variant)):
        axes.plot([], [], color=MUTED, label="thin lines: single seeds", **_THIN)
    drawn = [row.perplexity for rows in by_variant.values() for row in rows if _can_be_drawn(row.perplexity)]
    window_axis(figure, axes, sorted({m.row.window for m in measurements}), aside=max(asides.values(), default=1.0))
    original_windows(axes, by_variant)
    axes.set(xlabel="evaluation window (tokens)", ylabel="perplexity")
    if limits:
        axes.set_ylim(limits)
    elif drawn and max(drawn) > 2.5 * min(drawn):
        log_y(axes, drawn)
    legend(figure, axes)
    return figure


def closeup_limits(measurements: Sequence[Measurement[Perplexity]]) -> tuple[float, float] | None:
    """The y range of a close-up: up to 1.3 times the best figure; None where everything lies in it or too little does."""
    values = [m.row.perplexity for m in measurements if _can_be_drawn(m.row.perplexity)]
    if not values:
        return None
    top = 1.3 * min(values)
    close = [value for value in values if value <= top]
    if len(close) < 3 or len(close) == len(values):
        return None
    margin = 0.08 * (max(close) - min(close)) or 0.02 * min(close)
    return min(close) - margin, max(close) + margin


def left_out(measurements: Sequence[Measurement[Perplexity]], *, closeup: bool = False) -> list[str]:
    """What has no point in `perplexity` of these, since it is no number or beyond a close-up's frame: lines, or seeds of them, and at which windows."""
    limits, by_variant = closeup_limits(measurements) if closeup else None, _by_variant(measurements)
    names, lines = labels(list(by_variant)), []
    for variant, rows, seeds in _curves(by_variant):
        without = _without_point(limits, rows)
        of_seeds = sorted({window for seed in seeds for window in _without_point(limits, seed)} - set(without))
        for windows, whose in ((without, ""), (of_seeds, "seeds of ")):
            lines += [f"{whose}{names[variant]} (at {', '.join(map(str, windows))})"] if windows else []
    return lines


@styled
def passkey_map(
    measurements: Sequence[Measurement[Passkey]], *, longest: int | None = None, k_max: dict[int, int] | None = None
) -> Figure:
    """Passkey success of one variant: the key's distance from the end (tokens) by the prompt's window.

    Each strip is a window, as long as the window is; each cell one depth. `longest` sets the x axis, so that the maps of
    several variants can be compared; `k_max` (window → tokens) is printed at the end of each strip.
    """
    windows = sorted({m.row.window for m in measurements})
    longest = longest or max(windows)
    figure, axes = new(height=1.05 + 0.33 * len(windows))
    shades = {"cmap": SUCCESS, "norm": Normalize(0, 1)}
    for place, window in enumerate(windows):
        depths = sorted((m.row for m in measurements if m.row.window == window), key=lambda row: row.k)
        edges = np.array([0, *(row.k for row in depths)], dtype=float)
        rate = np.array([[row.successes / row.trials for row in depths]])
        axes.pcolormesh(
            edges, [place - 0.4, place + 0.4], rate, **shades, edgecolors="white", linewidth=0.5 * window / longest
        )
        if k_max and window in k_max:
            reached = k_max[window]
            axes.plot([reached, reached], [place - 0.46, place + 0.46], color=INK, linewidth=1.6, clip_on=False)
            axes.text(1.015, place, str(reached), transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    original = measurements[0].run.model.original_window
    if original < longest:
        axes.axvline(original, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)), zorder=0)
    axes.set(ylim=(-0.6, len(windows) - 0.4), xlabel="key this many tokens before the end", ylabel="window")
    axes.set_yticks(range(len(windows)), [str(window) for window in windows])
    quarters = [longest * part / 4 for part in range(5)]
    axes.set_xticks(quarters, [f"{x:.0f}" for x in quarters])
    axes.set_xlim(0, longest)
    axes.grid(False)
    axes.spines["left"].set_visible(False)
    if k_max:
        axes.text(1.015, len(windows) - 0.45, "k_max", transform=axes.get_yaxis_transform(), fontsize=7.5, color=MUTED)
    _success_bar(figure, axes, shades)
    return figure


def _success_bar(figure: Figure, axes: Axes, shades: dict[str, Any]) -> None:
    # Few enough steps that they are drawn as paths: more would make the bar a bitmap.
    place: dict[str, Any] = {"location": "top", "shrink": 0.35, "aspect": 16, "anchor": (0.0, 0.0), "pad": 0.03}
    bar = figure.colorbar(ScalarMappable(**shades), boundaries=np.linspace(0, 1, 21), ax=axes, **place)
    bar.set_ticks([0, 0.2, 1], labels=["0", "20 %", "all trials right"])
    bar.ax.tick_params(length=0, labelsize=7.5, pad=2)
    bar.outline.set_visible(False)


def _by_variant(measurements: Sequence[Measurement[Perplexity]]) -> dict[Variant, list[Perplexity]]:
    """variant → its rows by window, in the order of a legend; of each training only the last step."""
    rows: dict[Variant, list[Perplexity]] = {}
    for m in measurements:
        rows.setdefault(m.variant, []).append(m.row)
    keep = sorted(last_steps(list(rows)), key=lambda variant: variant.order)
    return {variant: sorted(rows[variant], key=lambda row: row.window) for variant in keep}


def _asides(variants: Sequence[Variant]) -> dict[Variant, float]:
    """A factor for each variant's windows, within 2 per cent of 1, so that intervals at one window stand side by side and nobody reads another window."""
    lines = list(dict.fromkeys(map(_line, variants)))
    step = min(0.02, _ASIDE / max(1, len(lines) - 1))
    places = {variant: lines.index(_line(variant)) for variant in variants}
    return {variant: 2 ** (step * (place - (len(lines) - 1) / 2)) for variant, place in places.items()}


def _line(variant: Variant) -> tuple:
    """What is drawn through: a base and its extrapolation are one line, and so are seeds."""
    word = variant.recipe.word
    return variant.series if variant.extended else (word, variant.steps, word or variant.name)


def _curves(
    by_variant: dict[Variant, list[Perplexity]],
) -> Iterator[tuple[Variant, list[Perplexity], list[list[Perplexity]]]]:
    """(variant, rows, rows of each seed) of each line; of several seeds the rows are means, of one there are no others."""
    for seeds in seeds_of_rows(list(by_variant)):
        each = [by_variant[seed] for seed in seeds]
        yield seeds[0], *((_means(each), each) if len(each) > 1 else (each[0], []))


def _means(seeds: Sequence[Sequence[Perplexity]]) -> list[Perplexity]:
    """Window by window the mean over seeds, with its interval for other documents and other seeds."""
    by_window: dict[int, list[Perplexity]] = {}
    for row in sorted((row for rows in seeds for row in rows), key=lambda row: row.window):
        by_window.setdefault(row.window, []).append(row)
    figures = {
        window: perplexity_over_seeds([(r.perplexity, *r.bounds) for r in rows]) for window, rows in by_window.items()
    }
    return [
        dataclasses.replace(by_window[window][0], perplexity=mean, low=low, high=high)
        for window, (mean, low, high) in figures.items()
    ]


def _precedes(base: Variant, other: Variant) -> bool:
    """Whether the other is the same model where it extrapolates."""
    roles = (base.role, other.role)
    return roles == ("base", "extrapolation") and (base.lineage, base.name) == (other.lineage, other.name)


def finite(values: Sequence[float]) -> list[float]:
    """What cannot be drawn becomes NaN, which matplotlib leaves out."""
    return [value if _can_be_drawn(value) else math.nan for value in values]


def _drawn(rows: Sequence[Perplexity], limits: tuple[float, float] | None) -> list[float]:
    """The perplexities; what lies outside the limits becomes NaN too, so that no line leaves its frame."""
    low, high = limits or (-math.inf, math.inf)
    return [value if low <= value <= high else math.nan for value in finite([row.perplexity for row in rows])]


def _without_point(limits: tuple[float, float] | None, rows: Sequence[Perplexity]) -> list[int]:
    """The windows at which a line has no point."""
    return [row.window for row, value in zip(rows, _drawn(rows, limits), strict=True) if math.isnan(value)]


def _can_be_drawn(value: float) -> bool:
    """Finite, and far enough from the largest float that an axis can be laid around it."""
    return number_format.is_finite(value) and abs(value) < 1e200


def _intervals(
    axes: Axes, windows: Sequence[float], values: Sequence[float], rows: Sequence[Perplexity], tone: str
) -> None:
    lows, highs = (finite([row.bounds[end] for row in rows]) for end in (0, 1))
    below = [max(0.0, y - low) for y, low in zip(values, lows, strict=True)]  # 0 where it is not known
    above = [max(0.0, high - y) for y, high in zip(values, highs, strict=True)]
    style: dict[str, Any] = {"fmt": "none", "ecolor": tone, "elinewidth": 0.9, "capsize": 2.2, "alpha": 0.75}
    axes.errorbar(windows, values, yerr=[below, above], **style)


__all__ = ["closeup_limits", "left_out", "passkey_map", "perplexity", "save"]
