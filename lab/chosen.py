"""The README's table and figure: what each method costs in the old window, and what it finds in the new one, on the one real model at factor 4.

in   by method and training tokens, the `Figures` of records/evidence.json
out  Markdown; a figure
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rows import FINDS, Row
from tables import grouped, order, table

from ropewalk.figures import style
from ropewalk.records import Passkey
from ropewalk.records.evidence import Figures
from ropewalk.records.format import signed
from ropewalk.records.retrieval import CHANCE, FIRST_DIGIT
from ropewalk.rope.scaling import EXTENDING, SCALINGS
from ropewalk.sentences import counted, joined, share

Methods = Mapping[str, Mapping[int, Figures]]
#: Of figures at another learning rate than the method's best; a star that is not Markdown's.
_MARK = "†"
#: Training tokens that are shown.
BUDGETS = {0: "untrained", 5 * 2**20: "after 5 M tokens", 20 * 2**20: "after 20 M tokens"}


def lines(methods: Methods, best: Mapping[str, float]) -> str:
    """The table: a line a method of the command line, those that find most untrained first.

    best: method → its best rate of those tried on validation; figures at another are marked.
    """
    heads = [f"{words}: {what}" for words in BUDGETS.values() for what in ("nats", "passkeys, k_max")]
    cells = {method: [cell for tokens in BUDGETS for cell in _cells(found.get(tokens), best[method])] for method, found in _offered(methods)}  # fmt: skip
    return table(("method", *heads), [(f"{SCALINGS[name].label} (`{name}`)", *row) for name, row in cells.items()])


def notes(methods: Methods, best: Mapping[str, float], at_rates: Mapping[tuple, Figures], rows: Sequence[Row]) -> str:
    """What the marks say, what the unmarked have at the rate of the marked, where k_max is a wall, and what is left out.

    at_rates: (method, training tokens, rate) → figures of seed 0. rows: of this model, at the rates of the table.
    """
    return " ".join([*_marked(methods, best, at_rates), *_digits(methods), *_walls(rows), *_left_out(rows)])


def _marked(methods: Methods, best: Mapping[str, float], at_rates: Mapping[tuple, Figures]) -> Iterable[str]:
    for tokens in BUDGETS:
        shown = {method: found[tokens] for method, found in _offered(methods) if tokens in found}
        marked = {method for method, each in shown.items() if _mark(each, best[method])}
        for rate in sorted({shown[method].learning_rate for method in marked}):
            known = {method: at_rates.get((method, tokens, rate)) for method in shown if method not in marked}
            beside = joined([f"{SCALINGS[method].label} has {signed(each.damage, 2)} nats and finds {each.found}" for method, each in known.items() if each] or ["no other was measured"])  # fmt: skip
            yield f"{_MARK}: trained at {rate:g}, which is not the best rate of those tried for that method; at {rate:g} too {beside} (seed 0)."


def _digits(methods: Methods) -> Iterable[str]:
    """Of methods that after most tokens shown find fewer than half of the keys, the digits of those keys."""
    last = {SCALINGS[method].label: found[max({*found} & {*BUDGETS})] for method, found in _offered(methods)}
    few = {label: each for label, each in last.items() if each.digits is not None and each.passkeys < FINDS}
    if few:
        told = joined(f"{label} has {share(each.digits)} (keys: {share(each.passkeys)})" for label, each in few.items())
        yield f"Those shares are of whole keys. Of single digits, of which {share(CHANCE)} are right by chance, {told} after most tokens shown: {FIRST_DIGIT}."


def _walls(rows: Sequence[Row]) -> Iterable[str]:
    """Of the longest training shown of a method: where every key up to k_max is found and none beyond, in every seed."""
    longest = [row for row in rows if row.asked["tokens"] == max(BUDGETS) and row.asked["method"] in EXTENDING]
    for seeds in grouped(longest, lambda row: row.asked["method"]):
        window, reached = seeds[0].new_window, {row.passkeys[row.new_window].k_max for row in seeds}
        depths = [m.row for row in seeds for m in row.records.of(Passkey) if m.row.window == window]
        if len(reached) == 1 and {window} != reached and all(each.successes == each.trials * (each.k <= min(reached)) for each in depths):  # fmt: skip
            yield f"{seeds[0].method}'s {share(seeds[0].passkeys[window].accuracy)} {BUDGETS[max(BUDGETS)]} are a wall: of {counted(len(seeds), 'seed')} each finds every key up to {min(reached)} tokens from the end and none farther away."


def _left_out(rows: Sequence[Row]) -> Iterable[str]:
    """Methods that were measured and are none of the command line."""
    left = [row for row in rows if row.asked["method"] not in (*EXTENDING, "none", "control") and row.asked["tokens"] in BUDGETS]  # fmt: skip
    if left:
        most = max(row.passkeys[row.new_window].accuracy for row in left)
        names = joined(dict.fromkeys(row.method for row in sorted(left, key=order)))
        yield f"Left out, as `extend` has no `--method` for them: {names}, which find {f'at most {share(most)}' if most else 'none'} of the passkeys at these budgets."


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


def _mark(figures: Figures, best: float) -> str:
    """Of what was trained at another rate than the method's best."""
    return _MARK * bool(figures.steps and figures.learning_rate != best)


def _cells(figures: Figures | None, best: float) -> tuple[str, str]:
    if figures is None:
        return "", ""
    return signed(figures.damage, 2) + _mark(figures, best), f"{figures.found}, {figures.k_max}"
