"""Whether the theory's quantities say beforehand what an untrained extension does to a model: rank correlations over the lab's rows.

in   rows that were extended and not trained, each with the base of its own grid
out  Spearman's ρ with 95 % intervals, as a table; the two that people argue by, as a figure
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from rows import Row
from scipy import stats

from ropewalk.figures import style
from ropewalk.records.format import fixed, interval
from ropewalk.rope.resolution import Resolution, resolution
from ropewalk.rope.rope import Rope
from ropewalk.sentences import joined

#: Resamples of a bootstrap over rows.
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


def correlation(pairs: list[tuple[float, float]]) -> tuple[float, float, float]:
    """Spearman's ρ with the percentile interval of a bootstrap over rows."""
    values, generator = np.array(pairs), np.random.default_rng(0)
    drawn = values[generator.integers(len(values), size=(_RESAMPLES, len(values)))]
    ranks = stats.rankdata(drawn, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    norms = np.sqrt((ranks**2).sum(axis=1).prod(axis=1))
    drawn_rho = ranks.prod(axis=2).sum(axis=1) / np.where(norms, norms, np.nan)
    # Processors add up in different orders: to fewer digits than they agree in, so that the page is the same on all of them.
    rho, low, high = np.round([stats.spearmanr(values).statistic, *np.nanquantile(drawn_rho, [0.025, 0.975])], 9)
    return float(rho), float(low), float(high)


def cell(rho: float, low: float, high: float, rows: int, sign: int) -> str:
    """ρ with its interval; bold where that leaves out 0 to the side of `sign`, which is 0 where nothing is expected."""
    text = f"{fixed(rho, 2)} ({interval(low, high, lambda value: fixed(value, 2))}), {rows} rows"
    return f"**{text}**" if min(sign * low, sign * high) > 0 else text


def correlations(found: list[Point]) -> Iterable[tuple[str, str, int, tuple[float, float, float], int]]:
    """Of each quantity and outcome the sign that the theory says, ρ with its interval, and of how many rows."""
    for name, quantity in QUANTITIES.items():
        for (outcome, measured), sign in zip(OUTCOMES.items(), SIGNS[name], strict=True):
            pairs = [(quantity(point.theory), value) for point in found if (value := measured(point)) is not None]
            yield name, outcome, sign, correlation(pairs), len(pairs)


def lines(found: list[Point]) -> Iterable[list[str]]:
    """A line a quantity: ρ with each outcome."""
    cells: dict[str, list[str]] = {}
    for name, _, sign, rho, rows in correlations(found):
        cells.setdefault(name, []).append(cell(*rho, rows, sign))
    return [[name, *row] for name, row in cells.items()]


def conclusion(found: list[Point]) -> str:
    """What the correlations come to, in a few sentences."""
    said = [
        (name, outcome, min(sign * low, sign * high) > 0)
        for name, outcome, sign, (_, low, high), _ in correlations(found)
        if sign
    ]
    held = [f"{name.split(',')[0]} with {outcome}" for name, outcome, holds in said if holds]
    new = [holds for name, outcome, holds in said if "new" in outcome and "never seen" in name]
    apart = " That a model which was not extended breaks beyond its window (the first of the claims) is another matter: these were extended, and how many angles that left unseen, or how far, does not say which loses more there."
    return (
        f"{'In part' if any(new) else 'Not in the new window'}: of the {len(new)} correlations there with angles never seen {sum(new) or 'none'} can be told from chance in the direction that the theory says. Of all {len(said)} that it has a sign for {len(held)} can"
        + (f": {joined(held)}" if held else "")
        + "."
        + apart * (not any(new))
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
