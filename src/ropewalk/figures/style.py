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
import textwrap
from collections.abc import Callable, Iterable, Mapping
from html import escape
from typing import Any, TypeVar

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from ropewalk.records.recipe import CONTROL
from ropewalk.records.variant import Variant

K = TypeVar("K")

INK, MUTED, RULE, PAPER = "#1c2430", "#66707c", "#dde2e8", "#8d959f"
BLUE, RED, AMBER, SKY = "#1d5fa8", "#c2410c", "#d1931b", "#4aa8e0"
#: Told apart with two of three cones as well, those that pages show together (tests/figures/test_figures.py).
METHOD_COLOURS = {
    "base": INK,
    "control": SKY,
    "plain": "#d69c60",
    "linear": BLUE,
    "ntk": "#5018d0",
    "abf": AMBER,
    "dynamic": "#a06cc4",
    "yarn": "#4f9f79",
    "llama3": "#86587f",
    "interpolated-table": "#5c6bc0",
    "longrope": "#78c2cc",
    "factors": "#2f6f7a",
    "proportional": "#9b6a2f",
    "p-rope": "#660f12",
    "cope": "#565c3a",
}
_OTHER = "#4b5b6b"
#: One a method, in every figure.
MARKERS = {
    "base": "o",
    "control": "p",
    "plain": "<",
    "linear": "s",
    "ntk": "^",
    "abf": "D",
    "dynamic": "h",
    "yarn": "v",
    "llama3": "P",
    "interpolated-table": "8",
    "longrope": "X",
    "factors": "H",
    "proportional": "d",
    "p-rope": "*",
    "cope": ">",
}

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

    One colour a method, lighter for a smaller factor, before training as after it; red for extrapolation. A colour is never
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
    return RED if variant.role == "extrapolation" else METHOD_COLOURS.get(_method(variant), _OTHER)


def _method(variant: Variant) -> str:
    """What decides colour and marker."""
    if not variant.extended:  # a control, or a base that was trained on, is not the base
        return CONTROL if variant.steps or variant.recipe.facts else "base"
    word = variant.recipe.word
    return word if word in METHOD_COLOURS else variant.method


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
    """Above the plot, where it covers nothing; in as many columns as fit, since each is as wide as its longest name, which may take lines."""
    by_name = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))  # seeds share a name
    if not by_name:
        return
    by_name = dict(sorted(by_name.items(), key=lambda item: item[0].endswith(_MORE)))
    columns = {size: _columns(list(by_name), size, figure.get_figwidth()) for size in _LEGEND_SIZES}
    lines = {size: math.ceil(len(by_name) / columns[size]) for size in columns}
    size = next((size for size in columns if lines[size] <= _LEGEND_LINES), min(columns))
    names = [_wrapped(name, size, figure.get_figwidth()) for name in by_name]
    more_lines = max(0, lines[size] + sum(name.count("\n") for name in names) - _LEGEND_LINES)
    figure.set_figheight(figure.get_figheight() + _LEGEND_SIZES[size] * more_lines)
    spaces = {"borderaxespad": 0.2, "columnspacing": 1.4, "labelspacing": 0.35}
    figure.legend(by_name.values(), names, loc="outside upper left", ncols=columns[size], fontsize=size, **spaces)


def _columns(names: list[str], size: float, width: float) -> int:
    """Of a legend that has this many inches."""
    points = [points_of(name, size) for name in names]

    def needed(columns: int) -> float:
        parts = np.array_split(points, columns)  # as matplotlib fills them
        return sum(_BESIDE_A_NAME * size + float(max(part)) for part in parts) / 72 + 0.1

    return next((columns for columns in (4, 3, 2) if columns <= len(names) and needed(columns) <= width), 1)


def _wrapped(name: str, size: float, width: float) -> str:
    """A name of a legend, on as many lines as it takes to fit."""
    share = (72 * (width - 0.1) - _BESIDE_A_NAME * size) / points_of(name, size)
    return name if share >= 1 else textwrap.fill(name, int(share * len(name)), break_on_hyphens=False)


def points_of(text: str, size: float) -> float:
    """The width of a text."""
    return size * _width(text)


@functools.lru_cache(maxsize=4096)
def _width(text: str) -> float:
    """At 1 pt; kept, since many legends of a page have the same names."""
    return TextPath((0, 0), text, size=1, prop=FontProperties("DejaVu Sans")).get_extents().width


def marked(marker: str, label: str, variant: Variant, colours: Colours | None, line: str = "none") -> dict[str, Any]:
    """How points with intervals look."""
    looks = inked(variant, colours) | {"marker": marker, "linestyle": line}
    return {**looks, "capsize": 2.2, "elinewidth": 1.2, "label": label}


def inked(variant: Variant, colours: Colours | None) -> dict[str, Any]:
    """Colour and dashes of a line; its markers are hollow where it is dashed."""
    tone, line = colour(variant, colours), dashes(variant)
    return {"color": tone, "linestyle": line, "markerfacecolor": tone if line == "-" else "white"}


def markers_of(lines: Iterable[tuple[str, Variant]], colours: Colours | None) -> dict[str, str]:
    """Name of a legend, which seeds share → its marker: that of its method; of lines of one method that look alike otherwise, the first one's alone."""
    named = dict(lines)
    spare = [each for each in MARKERS.values() if each not in {MARKERS.get(_method(v)) for v in named.values()}]
    found: dict[str, str] = {}
    taken: set[tuple[str, ...]] = set()
    for name, variant in named.items():
        own, look = MARKERS.get(_method(variant), "o"), (colour(variant, colours), dashes(variant))
        found[name] = next((marker for marker in (own, *spare) if (*look, marker) not in taken), own)
        taken.add((*look, found[name]))
    return found


def svg(figure: Figure, name: str, title: str, description: str = "") -> str:
    """A figure as one `<svg>` element for a page: scalable, described in words, its ids unique to `name`, no date in it."""
    with matplotlib.rc_context(STYLE):
        buffer = io.StringIO()
        # The canvas itself, since savefig lays a figure out twice: half of a page's time.
        FigureCanvasSVG(figure).print_svg(buffer, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
        figure.set_layout_engine(None)  # laid out it is: to write it to files as well takes no second time
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
