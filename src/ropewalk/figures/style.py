"""How every figure looks, and how it becomes SVG that can stand inside a page.

Figures are small (4.3 inches wide) so that a phone shows them nearly one to one and a desktop shows two side by side.
Text stays text: it can be searched, read aloud and printed sharply. It is measured in DejaVu Sans, which is wide, and the
page shows it in its own, narrower face; so nothing that fits here overflows there.
"""

from __future__ import annotations

import functools
import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any, TypeVar

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from ropewalk.records.variant import Variant

K = TypeVar("K")

INK, MUTED, RULE, PAPER = "#1c2430", "#66707c", "#dde2e8", "#8d959f"
BLUE, RED, AMBER, SKY = "#1d5fa8", "#c2410c", "#d1931b", "#4aa8e0"
METHOD_COLOURS = {
    "plain": "#8a6a3c",
    "linear": BLUE,
    "ntk": "#7a4fa3",
    "abf": "#55702a",
    "dynamic": "#a06cc4",
    "yarn": "#2b8257",
    "llama3": "#b0457b",
    "interpolated-table": "#5c6bc0",
    "longrope": "#3a8f9e",
    "factors": "#2f6f7a",
    "proportional": "#9b6a2f",
    "p-rope": "#8c5a6e",
    "cope": "#5f8a1f",
}
_OTHER = "#4b5b6b"
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

#: Lines that can be told apart by colour, marker and dashes: as many as there are methods, with base and control; and the tone of all others.
MOST, CROWDED_OUT = 13, "#c9ced5"
_MORE = "more, in the table"
WIDTH = 4.3  # inches
_LEGEND_LINES = 3  # that a figure has room for; more are set smaller and make it higher
#: Size of a legend's text in points → inches of a line.
_LEGEND_SIZES = {8.0: 0.16, 7.0: 0.14}
_BESIDE_A_NAME = 4.6  # times that size: its line, and the blanks about it

#: `Variant.series` → colour, as `palette` makes it.
Colours = Mapping[tuple, str]

STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.labelsize": 8.5,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": "#aab2bb",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "xtick.color": "#aab2bb",
    "ytick.color": "#aab2bb",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "text.color": INK,
    "lines.linewidth": 1.7,
    "lines.markersize": 4.8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handlelength": 2.2,
    "figure.facecolor": "white",
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "ropewalk",  # the same figure gets the same ids on every machine
}


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Run a figure function under the house style and put matplotlib's settings back afterwards."""

    @functools.wraps(draw)
    def wrapper(*args: Any, **kwargs: Any) -> Figure:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapper


def new(height: float = 2.8, width: float = WIDTH) -> tuple[Figure, Axes]:
    """A figure with one pair of axes; sizes in inches. No pyplot, so nothing is kept anywhere else."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def palette(variants: Iterable[Variant]) -> dict[tuple, str]:
    """Variant.series → its colour in every figure and table of a page.

    One colour a method, lighter for a smaller factor; red for extrapolation, amber for PI before training. A colour is never
    the only sign: markers and dashes differ too, so that grey prints can be read.
    """
    groups: dict[tuple, list[Variant]] = {}
    for variant in sorted(variants, key=lambda variant: variant.order):
        alike = groups.setdefault((variant.lineage, variant.role, variant.method_label), [])
        if variant.series not in [other.series for other in alike]:
            alike.append(variant)
    colours = {}
    for alike in groups.values():
        for place, variant in enumerate(alike):
            # 0 is the plain colour; the largest factor has it, or a darker one where there are three and more.
            depth = place - (len(alike) - 1 if len(alike) < 3 else len(alike) - 2)
            colours[variant.series] = _shade(_plain_colour(variant), depth)
    return colours


def colour(variant: Variant, colours: Colours | None = None) -> str:
    """A variant's colour from a palette, or the one it has by itself."""
    return (colours or {}).get(variant.series) or _plain_colour(variant)


def _plain_colour(variant: Variant) -> str:
    if variant.role == "base":
        return (
            SKY if variant.steps or variant.recipe.facts else INK
        )  # a control, or a base that was trained on, is not the base
    if variant.role == "extrapolation":
        return RED
    if variant.method == "linear":
        return AMBER if variant.role == "untrained" else BLUE
    return METHOD_COLOURS.get(variant.recipe.word or variant.method, _OTHER)


def _shade(tone: str, depth: int) -> str:
    """Lighter for negative depths (towards white), darker for positive ones; half the way at most, so that it stays visible."""
    target, part = ((255, 255, 255), 1 - 0.65**-depth) if depth < 0 else ((0, 0, 0), 0.42 * depth)
    part = min(part, 0.6)
    mixed = (
        round((1 - part) * int(tone[i : i + 2], 16) + part * goal) for i, goal in zip((1, 3, 5), target, strict=True)
    )
    return "#" + "".join(f"{value:02x}" for value in mixed)


def crowded_out(values: Mapping[K, float], variant_of: Callable[[K], Variant]) -> list[K]:
    """Of more lines than can be told apart those to draw grey under one name: all but what was not extended and the best of each method and factor.

    Args:
        values: of each line, or of each seed of one; the lower the better.
        variant_of: what a line shows.
    """
    lines = {key: (variant.series, variant.steps) for key in values for variant in [variant_of(key)]}
    if len(set(lines.values())) <= MOST:
        return []
    best = dict[tuple, tuple]()
    for key in sorted(values, key=lambda key: (variant_of(key).extended, math.isnan(values[key]), values[key])):
        variant = variant_of(key)
        best.setdefault((variant.lineage, variant.role, variant.method_and_factor), lines[key])
    shown = list(best.values())[:MOST]
    return [key for key in values if lines[key] not in shown]


def more(number: int) -> str:
    """The one name of what is crowded out."""
    return f"{number} {_MORE}"


def dashes(variant: Variant) -> str:
    """Dashed where the model was never trained to read like this."""
    return "--" if variant.role in ("extrapolation", "untrained") else "-"


def legend(figure: Figure, axes: Axes) -> None:
    """Above the plot, where it covers nothing; in as many columns as fit, since each is as wide as its longest name."""
    by_name = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))  # seeds share a name
    if not by_name:
        return
    by_name = dict(sorted(by_name.items(), key=lambda item: item[0].endswith(_MORE)))
    columns = {size: _columns(list(by_name), size, figure.get_figwidth()) for size in _LEGEND_SIZES}
    lines = {size: math.ceil(len(by_name) / columns[size]) for size in columns}
    size = next((size for size in columns if lines[size] <= _LEGEND_LINES), min(columns))
    figure.set_figheight(figure.get_figheight() + _LEGEND_SIZES[size] * max(0, lines[size] - _LEGEND_LINES))
    spaces = {"borderaxespad": 0.2, "columnspacing": 1.4, "labelspacing": 0.35}
    figure.legend(by_name.values(), by_name, loc="outside upper left", ncols=columns[size], fontsize=size, **spaces)


def _columns(names: list[str], size: float, width: float) -> int:
    """Of a legend that has this many inches."""
    points = [
        TextPath((0, 0), name, size=size, prop=FontProperties("DejaVu Sans")).get_extents().width for name in names
    ]

    def needed(columns: int) -> float:
        parts = np.array_split(points, columns)  # as matplotlib fills them
        return sum(_BESIDE_A_NAME * size + float(max(part)) for part in parts) / 72 + 0.1

    return next((columns for columns in (4, 3, 2) if columns <= len(names) and needed(columns) <= width), 1)


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


def window_axis(axes: Axes, windows: Sequence[int] | Sequence[float], aside: float = 1.0) -> None:
    """Windows double, so the axis is logarithmic, with a tick at each window that was measured; `aside`: by which factor points stand beside theirs."""
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(list(windows)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f}"))
    axes.set_xlim(min(windows) / (1.12 * aside), max(windows) * 1.12 * aside)


def svg(figure: Figure, name: str, title: str, description: str = "") -> str:
    """A figure as one `<svg>` element for a page: scalable, described in words, its ids unique to `name`, no date in it."""
    with matplotlib.rc_context(STYLE):
        buffer = io.StringIO()
        # The canvas itself, since savefig lays a figure out twice: half of a page's time.
        FigureCanvasSVG(figure).print_svg(buffer, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    # The page's own face: the family is dropped, the size stays.
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--sans, sans-serif)", text)
    view = re.search(r'viewBox="[^"]+"', text[: text.index(">")])
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {view[0] if view else ""} '
        f'role="img" aria-labelledby="{name}-title {name}-desc">'
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description or title)}</desc>'
    )
    return head + text[text.index(">") + 1 :].strip()
