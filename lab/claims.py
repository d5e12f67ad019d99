"""The paper's claims beside the lab's rows: held, did not, or left open, by intervals.

in   the rows of a model at their chosen rates, of the method map (level a) and the paper's budget (level c)
out  a line a claim, a cell a model and budget
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rows import Row, base_of, control_of

from ropewalk.records.format import fixed, interval, is_finite
from ropewalk.reports.paired import ratio

#: An estimate and its 95 % interval.
Bounded = tuple[float, float, float]


@dataclass(frozen=True)
class Model:
    """The rows of one model and budget that the claims are about: as it was, extrapolation trained, interpolation untrained and trained."""

    base: Row
    direct: Row
    untrained: Row
    trained: Row
    control: Row | None = None

    @property
    def old(self) -> int:
        return self.base.window

    @property
    def new(self) -> int:
        return self.trained.new_window

    @property
    def tokens(self) -> int:
        return self.trained.asked["tokens"]


def models_of(rows: Iterable[Row]) -> Iterable[Model]:
    """One a budget at which both were trained, the smallest first; of seeds the first."""
    rows = [row for row in rows if row.asked["seed"] == 0]
    found = {(row.asked["method"], row.asked["tokens"]): row for row in rows}
    base, untrained = base_of(rows), found.get(("linear", 0))
    for method, tokens in sorted(found, key=lambda key: key[1]):
        direct = found.get(("direct", tokens))
        if method == "linear" and direct and base and untrained:
            trained = found[method, tokens]
            yield Model(base, direct, untrained, trained, control_of(trained, rows))


def _nats(row: Row, window: int, other: Row, other_window: int) -> Bounded | None:
    """A row's loss at a window above another's at its, over the same documents."""
    here, there = row.perplexities.get(window), other.perplexities.get(other_window)
    found = ratio(there, here) if here and there else None
    if found is None:
        return None
    low, high = (math.log(bound) if is_finite(bound) else math.nan for bound in (found.low, found.high))
    return math.log(found.value), low, high


def _reach(row: Row, window: int) -> Bounded | None:
    """k_max as a part of a window."""
    found = row.passkeys.get(row.new_window)
    return (found.k_max / window, found.k_low / window, found.k_high / window) if found else None


@dataclass(frozen=True)
class Claim:
    """What the paper says, where, and the range in which the measured figure must lie for it."""

    text: str
    source: str
    measure: Callable[[Model], Bounded | None]
    what: str
    least: float = -math.inf
    most: float = math.inf

    def cell(self, model: Model) -> str:
        """The verdict and what it rests on."""
        figure = self.measure(model)
        if figure is None:
            return ""
        value, low, high = figure
        verdict = "open"
        if self.least <= low and high <= self.most:
            verdict = "**held**"
        elif high < self.least or low > self.most:
            verdict = "**did not**"
        return f"{verdict}: {fixed(value, 3)} ({interval(low, high, lambda bound: fixed(bound, 3))})"


CLAIMS = (
    Claim("A model breaks beyond its window", "table 1, no extension: above 1000 from 7.20",
          lambda m: _nats(m.base, m.new, m.base, m.old), "nats at L' above its own at L; held above ln 2", least=math.log(2)),
    Claim("Direct fine-tuning hardly lengthens what is used", "table 4: k_max 1792 to 2560 of 8192",
          lambda m: _reach(m.direct, m.old), "its k_max over L; held up to 1.25", most=1.25),
    Claim("Interpolated and untrained, a model already does better at L' than one that is not", "table 3, step 0: 16.10 at 8192",
          lambda m: _nats(m.untrained, m.new, m.base, m.new), "nats below 0", most=0.0),
    Claim("Trained briefly, it is no worse at L' than the base at L", "table 1: 7.20 at 2048, 6.95 at 8192",
          lambda m: _nats(m.trained, m.new, m.base, m.old), "nats up to 0", most=0.0),
    Claim("It makes use of the longer context", "table 1: perplexity falls with the window",
          lambda m: _nats(m.trained, m.new, m.trained, m.old), "nats at L' above its own at L; held below 0", most=0.0),
    Claim("It finds the passkey anywhere", "table 4: k_max the whole window after 200 steps",
          lambda m: _reach(m.trained, m.new), "its k_max over L'; held at 1", least=1.0),
    Claim("The old window hardly suffers", "table 1: 7.20 → 7.13 at 2048, 7.23 when ×16",
          lambda m: _nats(m.trained, m.old, m.base, m.old), "nats; held up to 0.02", most=0.02),
    Claim("And not because it has read more books: beside the control", "not in the paper",
          lambda m: _nats(m.trained, m.old, m.control, m.old) if m.control else None, "nats above the control's; held up to 0.02", most=0.02),
)  # fmt: skip


def lines(models: Iterable[Model]) -> Iterable[list[str]]:
    """claim, where it stands and what decides, and a verdict a model."""
    models = list(models)
    for claim in CLAIMS:
        yield [claim.text, claim.source, claim.what, *(claim.cell(model) for model in models)]
