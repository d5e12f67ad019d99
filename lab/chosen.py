"""The README's table and figure: what each method costs in the old window, and what it finds in the new one, on the one real model at factor 4.

in   by method and training tokens, the `Figures` of records/evidence.json
out  Markdown; a figure
"""

from __future__ import annotations

from collections.abc import Mapping

from tables import table

from ropewalk.figures import style
from ropewalk.records.evidence import Figures
from ropewalk.records.format import signed
from ropewalk.rope.scaling import EXTENDING, SCALINGS

Methods = Mapping[str, Mapping[int, Figures]]
#: Training tokens that are shown.
BUDGETS = {0: "untrained", 5 * 2**20: "after 5 M tokens", 20 * 2**20: "after 20 M tokens"}


def lines(methods: Methods) -> str:
    """The table: a line a method of the command line, those that find most untrained first."""
    heads = [f"{words}: {what}" for words in BUDGETS.values() for what in ("nats", "passkeys")]
    cells = {method: [cell for tokens in BUDGETS for cell in _cells(found.get(tokens))] for method, found in _offered(methods)}  # fmt: skip
    return table(("method", *heads), [(f"{SCALINGS[name].label} (`{name}`)", *row) for name, row in cells.items()])


@style.styled
def figure(methods: Methods):
    """Each method's way from untrained (hollow) to the most tokens: left is better in the old window, up finds more in the new one."""
    drawn, axes = style.new(height=3.1, width=1.5 * style.WIDTH)
    for method, found in _offered(methods):
        points = [(found[tokens].damage, 100 * found[tokens].passkeys) for tokens in BUDGETS if tokens in found]
        looks = dict(color=style.METHOD_COLOURS[method], marker=style.MARKERS[method])
        axes.plot(*zip(*points, strict=True), label=SCALINGS[method].label, **looks)
        axes.plot(*points[0], markerfacecolor="white", **looks)
    axes.axvline(0, color=style.PAPER, linewidth=0.8, zorder=0)
    axes.set_xlabel("loss in the old window above the base's, nats; hollow: untrained, then 5 M and 20 M tokens")
    axes.set_title("passkeys found in the new window, %", loc="left")
    axes.set_ylim(-4, 104)
    style.legend(drawn, axes)
    return drawn


def _offered(methods: Methods) -> list[tuple[str, Mapping[int, Figures]]]:
    offered = [(method, found) for method, found in methods.items() if method in EXTENDING]
    return sorted(offered, key=lambda each: -each[1][0].passkeys if 0 in each[1] else 0)


def _cells(figures: Figures | None) -> tuple[str, str]:
    return (signed(figures.damage, 2), figures.found) if figures else ("", "")
