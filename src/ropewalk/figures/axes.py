"""Logarithmic axes whose labels are plain numbers, as many as have room; the windows before extension on them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ropewalk.figures.style import MUTED, STYLE, points_of
from ropewalk.records.variant import Variant

#: Points: what stands left of an x axis, about; and from one of its labels to the next.
_LEFT_OF_AXES, _BETWEEN_LABELS = 45, 4
#: Decades of a log axis → which digits of each are labelled.
_LABELLED: dict[float, tuple[float, ...]] = {
    0.8: (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0),
    1.3: (1.0, 2.0, 3.0, 5.0, 7.0),
    2.5: (1.0, 2.0, 5.0),
    math.inf: (1.0,),
}


def log_y(axes: Axes, values: Sequence[float]) -> None:
    """A log axis that says so, whose labels are plain numbers: as many a decade as have room; a short tick at every other digit."""
    axes.set_yscale("log")
    decades = math.log10(max(values) / min(values))
    labelled = next(subs for most, subs in _LABELLED.items() if decades < most)
    axes.yaxis.set_major_locator(LogLocator(subs=labelled, numticks=30))
    axes.yaxis.set_minor_locator(LogLocator(subs=range(1, 10), numticks=30))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="y", which="minor", length=2)
    axes.set_ylabel(f"{axes.get_ylabel()} (logarithmic)")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}" if y < 1e5 else f"{y:.0e}"))


def window_axis(
    figure: Figure, axes: Axes, windows: Sequence[float], *, aside: float = 1.0, written: str = "{:.0f}"
) -> None:
    """Windows double, so the axis is logarithmic, with a tick at each window that was measured; `aside`: by which factor points stand beside theirs."""
    axes.set_xlim(min(windows) / (1.12 * aside), max(windows) * 1.12 * aside)
    doubling_ticks(figure, axes, windows, written)


def doubling_ticks(figure: Figure, axes: Axes, places: Iterable[float], written: str = "{:.0f}") -> None:
    """A logarithmic x axis with a tick at each of these places; those have a label for which there is room, the ends and powers of two first."""
    axes.set_xscale("log", base=2)
    low, high = np.log2(axes.get_xlim())
    grid = axes.get_gridspec()
    width = 72 * figure.get_figwidth() / (grid.ncols if grid else 1)
    a_doubling = (width - _LEFT_OF_AXES) / (high - low)
    ticks = sorted({place for place in places if place > 0})
    halves: dict[float, float] = {}  # of the labels so far: their widths
    for tick in sorted(ticks, key=lambda tick: (tick not in (ticks[0], ticks[-1]), _bits(tick))):
        half = points_of(written.format(tick), STYLE["xtick.labelsize"]) / 2 + _BETWEEN_LABELS / 2
        if all(abs(math.log2(tick / other)) * a_doubling >= half + halves[other] for other in halves):
            halves[tick] = half
    axes.set_xticks(ticks, [written.format(tick) if tick in halves else "" for tick in ticks])
    axes.minorticks_off()


def _bits(number: float) -> int:
    """Ones in its binary digits: one in a power of two, two in one and a half of it."""
    return float(number).as_integer_ratio()[0].bit_count()


def original_windows(axes: Axes, variants: Iterable[Variant]) -> None:
    """Dotted lines at the windows before extension."""
    for window in sorted({variant.original_window for variant in variants}):
        axes.axvline(window, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
