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
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from ropewalk.records.variant import Variant

INK, MUTED, RULE, PAPER = "#1c2430", "#66707c", "#dde2e8", "#8d959f"
BLUE, RED, AMBER = "#1d5fa8", "#c2410c", "#d1931b"
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

WIDTH = 4.3  # inches
_LEGEND_LINES = 3  # that a figure has room for; more make it higher
_HALF_A_LINE = 27  # signs of a legend; two names of more do not fit beside each other

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
        return INK
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


def dashes(variant: Variant) -> str:
    """Dashed where the model was never trained to read like this."""
    return "--" if variant.role in ("extrapolation", "untrained") else "-"


def legend(figure: Figure, axes: Axes, columns: int = 2) -> None:
    """Above the plot, where it covers nothing."""
    by_name = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))  # seeds share a name
    if by_name:
        longest = max(map(len, by_name))
        columns = min(columns, len(by_name), 1 if longest > _HALF_A_LINE else columns)
        more = math.ceil(len(by_name) / columns) - _LEGEND_LINES
        figure.set_figheight(figure.get_figheight() + 0.16 * max(0, more))
        figure.legend(
            by_name.values(), by_name, loc="outside upper left", ncols=columns, borderaxespad=0.2, columnspacing=1.4
        )


def log_y(axes: Axes, values: Sequence[float]) -> None:
    """A log axis whose labels are plain numbers; 1, 2 and 5 of each decade where there are few decades."""
    axes.set_yscale("log")
    decades = math.log10(max(values) / min(values))
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2.5 else (1.0,), numticks=12))
    axes.yaxis.set_minor_locator(NullLocator())
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
