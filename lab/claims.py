"""The paper's claims beside the lab's rows: held, did not, or left open, by intervals.

in   the rows of a model at their chosen rates, of the method map (level a) and the paper's budget (level c)
out  a line a claim, a cell a model and budget
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rows import Row, base_of, control_of
from trained_states import above_chance, change

from ropewalk.records import Perplexity
from ropewalk.records.format import fixed, interval
from ropewalk.reports.paired import ratio

#: An estimate and its 95 % interval.
Bounded = tuple[float, float, float]


@dataclass(frozen=True)
class Model:
    """The rows of one model and budget that the claims are about: as it was, interpolation untrained and trained, and where they were run beside it
    extrapolation trained and the control."""

    base: Row
    untrained: Row
    trained: Row
    direct: Row | None = None
    control: Row | None = None
    slid: Model | None = None
    """The same rows, their perplexity by a stride that tells what a longer window is worth (level slid)."""

    @property
    def old(self) -> int:
        return self.base.window

    @property
    def new(self) -> int:
        return self.trained.new_window

    @property
    def tokens(self) -> int:
        return self.trained.asked["tokens"]

    @property
    def seed(self) -> int:
        return self.trained.asked["seed"]

    @property
    def by_window(self) -> Model:
        """Whose perplexities of two windows are held against each other."""
        return self.slid or self


def models_of(rows: Iterable[Row], slid: Iterable[Row] = ()) -> list[list[Model]]:
    """Of each budget at which interpolation was trained, the smallest first, the model of every seed.

    slid: rows of level slid, for what is said of a longer window.
    """
    rows = list(rows)
    by_stride = {(model.tokens, model.seed): model for seeds in models_of(slid) for model in seeds} if slid else {}
    found = {(row.asked["method"], row.asked["tokens"], row.asked["seed"]): row for row in rows}
    base, untrained = base_of(rows), found.get(("linear", 0, 0))
    budgets: dict[int, list[Model]] = {}
    for (method, tokens, seed), trained in sorted(found.items(), key=lambda each: each[0][1:]):
        if method == "linear" and tokens and base and untrained:
            direct, control = found.get(("direct", tokens, seed)), control_of(trained, rows)
            model = Model(base, untrained, trained, direct, control, by_stride.get((tokens, seed)))
            budgets.setdefault(tokens, []).append(model)
    return list(budgets.values())


def _difference(here: Perplexity | None, there: Perplexity | None) -> Bounded | None:
    found = ratio(there, here) if here and there else None
    return found.nats if found else None


def _nats(row: Row, window: int, other: Row, other_window: int) -> Bounded | None:
    """A row's loss at a window above another's at its, over the same documents."""
    here, there = row.perplexities.get(window), other.perplexities.get(other_window)
    return _difference(here, there)


def _further(model: Model) -> Bounded | None:
    """The loss on further documents in the old window above the base's."""
    here, there = (row.further.get(model.old) for row in (model.trained, model.base))
    return _difference(here, there)


def _benchmarks(model: Model) -> Bounded | None:
    """Points of accuracy above the base's on the same items."""
    found = change(model.base, model.trained, above_chance(model.base))
    return tuple(100 * value for value in (found.difference, *found.interval())) if found else None


def _reach(row: Row, window: int) -> Bounded | None:
    """k_max as a part of a window."""
    found = row.passkeys.get(row.new_window)
    return (found.k_max / window, found.k_low / window, found.k_high / window) if found else None


@dataclass(frozen=True)
class Claim:
    """What the paper says, where, and the range in which the measured figure must lie for it.

    at_old: whose loss at L is the higher one where it is held. Tokens counted there may have had as few as half of L before them (records/slide.py); such
        a claim is left open, unless the loss falls by more than this model's does from L / 4 to L: what half of L more is worth to it is less.
    """

    text: str
    source: str
    measure: Callable[[Model], Bounded | None]
    what: str
    least: float = -math.inf
    most: float = math.inf
    at_old: Callable[[Model], Row] | None = None

    def cell(self, models: list[Model]) -> str:
        """The verdict and what it rests on: the figure with its interval, of several seeds the figures. Where seeds differ, it is open.

        Of a loss at L that is the higher one, the seeds count of which it was measured by a stride that tells, where there are any.
        """
        if self.at_old:
            models = [model for model in models if model.slid] or models
        figures = [figure for figure in map(self.measure, models) if figure is not None]
        if not figures:
            return ""
        verdicts = {verdict(low, high, self.least, self.most) for _, low, high in figures}
        together = verdicts.pop() if len(verdicts) == 1 else "open"
        if together == "**held**" and any(self._may_be_of_half(model) for model in models):
            together = "open"
        distinct = list(dict.fromkeys(figures))
        if len(distinct) > 1:
            return f"{together}: {', '.join(fixed(value, 3) for value, _, _ in figures)} by seed"
        value, low, high = distinct[0]
        return f"{together}: {fixed(value, 3)} ({interval(low, high, lambda bound: fixed(bound, 3))})"

    def _may_be_of_half(self, model: Model) -> bool:
        """Whether a lower loss at L' may be of tokens that had half of L before them at L."""
        row, figure = self.at_old and self.at_old(model), self.measure(model)
        if row is None or figure is None or not row.perplexities[model.old].slide.is_coarse:
            return False
        fall = _nats(row, model.old, row, model.old // 4)
        return fall is None or figure[2] > fall[1]


def verdict(low: float, high: float, least: float, most: float) -> str:
    """Whether a figure of this interval lies in a range, lies outside, or may do either."""
    if least <= low and high <= most:
        return "**held**"
    return "**did not**" if high < least or low > most else "open"


CLAIMS = (
    Claim("A model breaks beyond its window", "table 1, no extension: above 1000 from 7.20",
          lambda m: _nats(m.base, m.new, m.base, m.old), "nats at L' above its own at L; held above ln 2", least=math.log(2)),
    Claim("Direct fine-tuning hardly lengthens what is used", "table 4: k_max 1792 to 2560 of 8192",
          lambda m: _reach(m.direct, m.old) if m.direct else None, "its k_max over L; held up to 1.25", most=1.25),
    Claim("Interpolated and untrained, a model already does better at L' than one that is not", "table 3, step 0: 16.10 at 8192",
          lambda m: _nats(m.untrained, m.new, m.base, m.new), "nats below 0", most=0.0),
    Claim("Trained briefly, it is no worse at L' than the base at L", "table 1: 7.20 at 2048, 6.95 at 8192",
          lambda m: _nats(m.by_window.trained, m.new, m.by_window.base, m.old), "nats up to 0", most=0.0, at_old=lambda m: m.by_window.base),
    Claim("It makes use of the longer context", "table 1: perplexity falls with the window",
          lambda m: _nats(m.by_window.trained, m.new, m.by_window.trained, m.old), "nats at L' above its own at L; held below 0", most=0.0, at_old=lambda m: m.by_window.trained),
    Claim("It finds the passkey anywhere", "table 4: k_max the whole window after 200 steps",
          lambda m: _reach(m.trained, m.new), "its k_max over L'; held at 1", least=1.0),
    Claim("The old window hardly suffers", "table 1: 7.20 → 7.13 at 2048, 7.23 when ×16",
          lambda m: _nats(m.trained, m.old, m.base, m.old), "nats; held up to 0.02", most=0.02),
    Claim("And not because it has read more books: beside the control", "not in the paper",
          lambda m: _nats(m.trained, m.old, m.control, m.old) if m.control else None, "nats above the control's; held up to 0.02", most=0.02),
    Claim("The old window hardly suffers on mathematics, of which none was read", "table 2: 2.77 → 2.79 at 2048, 2.82 when ×16",
          _further, "nats on further documents in the old window; held up to 0.02", most=0.02),
    Claim("Benchmarks of the old window hardly suffer", "table 5: within 2 %, but for BoolQ",
          _benchmarks, "points, pooled over those at which the base beats guessing; held from −2", least=-2.0),
)  # fmt: skip


def lines(models: list[list[Model]]) -> Iterable[list[str]]:
    """claim, where it stands and what decides, and a verdict a model and budget."""
    for claim in CLAIMS:
        yield [claim.text, claim.source, claim.what, *(claim.cell(model) for model in models)]
