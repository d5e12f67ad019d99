"""Whether the theory's quantities say beforehand what an untrained extension does to a model: rank correlations over the lab's rows.

in   rows that were extended and not trained, each with the base of its own grid
out  Spearman's ρ with 95 % intervals, as a table; the two that people argue by, as a figure
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from rows import Row
from scipy import stats
from tables import table

from ropewalk.figures import style
from ropewalk.records.format import fixed, interval
from ropewalk.reports.paired import Bounded
from ropewalk.rope.resolution import Resolution, resolution
from ropewalk.rope.rope import Rope
from ropewalk.sentences import joined

#: Of both sections of rank correlations: what their intervals are of.
DEPENDENT = (
    "the 95 % interval of a bootstrap over methods, since factors, seeds and budgets of one method depend on each other: they are drawn together. All rows of a model share its documents and prompts, and methods are few, "
    "so the intervals are still narrower than those over models would be. {many} intervals stand here, none corrected for how many they are: of as many independent ones, where nothing is there, about one in twenty leaves out 0"
)
#: Methods below which a bootstrap over them tells nothing: of three, one resample in nine is of one method alone, more than an interval leaves out.
_FEWEST_METHODS = 4
#: Resamples of a bootstrap over methods.
_RESAMPLES = 2000


@dataclass(frozen=True)
class Point:
    """One untrained row: what the theory says of it, and what was measured."""

    model: str
    row: Row
    base: Row

    @property
    def theory(self) -> Resolution:
        info = next(iter(self.row.records.runs.values())).model
        rope = Rope(head_dim=info.head_dim, rope_theta=info.rope_theta, window=info.original_window)
        return resolution(rope, info.scaling, self.row.new_window)

    @property
    def damage(self) -> float | None:
        """Loss in the old window above the base's, nats."""
        found = self.row.damage(self.base)
        return math.log(found.value) if found else None

    @property
    def loss_beyond(self) -> float | None:
        """Loss at the new window above the base's at the old one, nats."""
        there = self.row.perplexities.get(self.row.new_window)
        return math.log(there.perplexity / self.base.perplexities[self.row.window].perplexity) if there else None

    @property
    def found_inside(self) -> float | None:
        """Share of passkeys found in the old window, or in the shorter prompts that were tried instead; None where the base finds few of them itself."""
        found = self.row.found_inside
        return found.accuracy if found and self.base.finds else None

    @property
    def found_beyond(self) -> float | None:
        there = self.row.passkeys.get(self.row.new_window)
        return there.accuracy if there and self.base.finds else None


QUANTITIES: dict[str, Callable[[Resolution], float]] = {
    "angular resolution lost, 1 − mean angle kept": lambda theory: 1 - theory.kept,
    "pairs at angles never seen, share": lambda theory: theory.unseen,
    "farthest angle never seen, times the trained one": lambda theory: theory.overshoot,
}
#: Of a quantity and an outcome the sign that the theory says: what is blurred hurts in both windows, angles never seen where they are reached.
SIGNS = {
    "angular resolution lost, 1 − mean angle kept": (1, -1, 1, -1),
    "pairs at angles never seen, share": (0, 0, 1, -1),
    "farthest angle never seen, times the trained one": (0, 0, 1, -1),
}
OUTCOMES: dict[str, Callable[[Point], float | None]] = {
    "damage in the old window": lambda point: point.damage,
    "passkeys in the old window": lambda point: point.found_inside,
    "loss in the new window": lambda point: point.loss_beyond,
    "passkeys in the new window": lambda point: point.found_beyond,
}


def points(grids: Iterable[tuple[str, list[Row], Row]]) -> list[Point]:
    """Of (model, rows, base), the rows that were extended and not trained."""
    return [
        Point(model, row, base)
        for model, rows, base in grids
        for row in rows
        if row is not base and not row.asked["tokens"]
    ]


def correlation(pairs: list[tuple[float, float]], methods: Sequence[str]) -> Bounded:
    """Spearman's ρ with the percentile interval of a bootstrap over methods: the rows of one, its factors, seeds and budgets, depend on each other, and are drawn together or not at all. NaN of fewer than `_FEWEST_METHODS`."""
    if len({*methods}) < _FEWEST_METHODS:
        return math.nan, math.nan, math.nan
    values, generator = np.array(pairs), np.random.default_rng(0)
    names, of_row = np.unique(methods, return_inverse=True)
    drawn = generator.integers(len(names), size=(_RESAMPLES, len(names)))
    weights = (drawn[:, :, None] == np.arange(len(names))).sum(axis=1)[:, of_row]  # how often each row is there
    first, second = (_centred_ranks(column, weights) for column in values.T)
    norms = np.sqrt((weights * first**2).sum(axis=1) * (weights * second**2).sum(axis=1))
    drawn_rho = (weights * first * second).sum(axis=1) / np.where(norms, norms, np.nan)
    # Processors add up in different orders: to fewer digits than they agree in, so that the page is the same on all of them.
    rho, low, high = np.round([stats.spearmanr(values).statistic, *np.nanquantile(drawn_rho, [0.025, 0.975])], 9)
    return float(rho), float(low), float(high)


def _centred_ranks(
    column: Float[np.ndarray, " rows"], weights: Int[np.ndarray, "resamples rows"]
) -> Float[np.ndarray, "resamples rows"]:
    """Each row's rank among the rows of each resample, of equals their middle one, less the mean there."""
    ranks = weights @ ((column[:, None] < column) + 0.5 * (column[:, None] == column))
    return ranks - (weights * ranks).sum(axis=1, keepdims=True) / weights.sum(axis=1, keepdims=True)


def cell(rho: float, low: float, high: float, methods: Sequence[str], sign: int) -> str:
    """ρ with its interval; bold where that leaves out 0 to the side of `sign`, which is 0 where nothing is expected; empty without ρ.

    methods: of each row.
    """
    if math.isnan(rho):
        return ""
    text = f"{fixed(rho, 2)} ({interval(low, high, lambda value: fixed(value, 2))}), {len(methods)} rows of {len({*methods})} methods"
    return f"**{text}**" if min(sign * low, sign * high) > 0 else text


def correlations(found: list[Point]) -> Iterable[tuple[str, str, int, Bounded, list[str]]]:
    """Of each quantity and outcome the sign that the theory says, ρ with its interval, and the methods of its rows."""
    for name, quantity in QUANTITIES.items():
        for (outcome, measured), sign in zip(OUTCOMES.items(), SIGNS[name], strict=True):
            known = [(point, value) for point in found if (value := measured(point)) is not None]
            methods = [point.row.method for point, _ in known]
            yield (
                name,
                outcome,
                sign,
                correlation([(quantity(p.theory), value) for p, value in known], methods),
                methods,
            )


def lines(found: list[Point]) -> list[list[str]]:
    """A line a quantity: ρ with each outcome."""
    cells: dict[str, list[str]] = {}
    for name, _, sign, rho, methods in correlations(found):
        cells.setdefault(name, []).append(cell(*rho, methods, sign))
    return [[name, *row] for name, row in cells.items()]


def conclusion(found: list[Point]) -> str:
    """What the correlations come to, in a few sentences."""
    said = [
        (name, outcome, min(sign * low, sign * high) > 0)
        for name, outcome, sign, (_, low, high), _ in correlations(found)
        if sign and not math.isnan(low)
    ]
    held = [f"{name.split(',')[0]} with {outcome}" for name, outcome, holds in said if holds]
    new = [holds for name, outcome, holds in said if "new" in outcome and "never seen" in name]
    apart = " That a model which was not extended breaks beyond its window (the first of the claims) is another matter: these were extended, and how many angles that left unseen, or how far, is not shown to say which loses more there."
    return (
        f"{'In part' if any(new) else 'Not in the new window' if held else 'Over methods it cannot be told'}: of the {len(new)} correlations of angles never seen with what happens in the new window {sum(new) or 'none'} can be told from chance in the direction that the theory says; of all {len(said)} correlations of which it says one, {len(held) or 'none'}"
        + (f": {joined(held)}" if held else "")
        + "."
        + apart * (not any(new))
    )


def section(found: list[Point]) -> str:
    """What the correlations come to, their figure and their table; empty where no outcome is of methods enough."""
    told = lines(found)
    many = sum(map(bool, (cell for _, *cells in told for cell in cells)))
    if not many:
        return ""
    return (
        f"### Does the theory say it beforehand?\n\n{conclusion(found)}\n\n"
        f"Spearman's ρ over the untrained extended rows above between what `ropewalk theory` counts of a row's frequencies and what was measured, with {DEPENDENT.format(many=many)}. "
        "Bold where an interval leaves out 0 to the side that the theory says: more loss and fewer passkeys, in both windows where angles are blurred, in the new one where angles were never seen (in the old one none is reached, and it says nothing). "
        "A quantity that said it would stand near 1 or −1. Passkeys are of models that find them in their own window before any extension.\n\n"
        f"![Damage by resolution lost, loss beyond by angles never seen](figures/lab-theory.svg)\n\n{table(['', *OUTCOMES], told)}"
    )


@style.styled
def figure(found: list[Point]):
    """Damage by resolution lost, and the loss beyond by the share of pairs at unseen angles; a sign a method."""
    drawing = style.Figure(figsize=(2 * style.WIDTH, 3.1), layout="constrained")
    panels = zip(
        drawing.subplots(1, 2),
        ("angular resolution lost, 1 − mean angle kept", "pairs at angles never seen, share"),
        ("damage in the old window", "loss in the new window"),
        strict=True,
    )
    methods = {point.row.method: point.row.asked["method"] for point in found}
    for axes, quantity, outcome in panels:
        for method, word in methods.items():
            pairs = [
                (QUANTITIES[quantity](point.theory), value)
                for point in found
                if point.row.method == method and (value := OUTCOMES[outcome](point)) is not None
            ]
            if pairs:
                axes.plot(
                    *zip(*pairs, strict=True),
                    linestyle="none",
                    marker=style.MARKERS[word],
                    color=style.METHOD_COLOURS[word],
                    label=method,
                )
        axes.set_title(f"{outcome}, nats", loc="left")
        axes.set_xlabel(quantity)
    style.legend(drawing, drawing.axes[0])
    return drawing
