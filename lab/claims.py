"""The paper's claims beside the lab's rows: held, did not, or left open, by intervals.

in   the rows of a model at their chosen rates, of the method map (level a) and the paper's budget (level c)
out  a line a claim, a cell a model and budget
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import in_the_paper
import numpy as np
from rows import FINDS, Row, base_of, control_of
from tables import bounded, budget, control_rate, digits_of, table
from trained_states import above_chance, change

from ropewalk.evals.intervals import over_seeds
from ropewalk.records import Perplexity
from ropewalk.records.format import fixed, share
from ropewalk.records.retrieval import ABOUT_DIGITS
from ropewalk.reports.paired import ratio
from ropewalk.sentences import joined

TITLE = "### The paper's claims"
HELD, NOT_TESTABLE = "**held**", "not testable here"
LONGER = "It makes use of the longer context"
BESIDE = "And not because it has read more books: beside the control"
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


@dataclass(frozen=True)
class Column:
    """The seeds of one model and budget; and those of which perplexity was measured by a stride that tells what a longer window is worth (level slid):
    the same rows trained again, other weights, and not always the same seeds."""

    models: list[Model]
    slid: list[Model]

    @property
    def seeds(self) -> str:
        return named(self.models)


def named(models: list[Model]) -> str:
    """Their seeds, in words."""
    return f"seed{'s' if len(models) > 1 else ''} {', '.join(str(model.seed) for model in models)}"


def columns(rows: Iterable[Row], slid: Iterable[Row] = ()) -> list[Column]:
    """Of each budget at which interpolation was trained, the smallest first."""
    by_stride = {seeds[0].tokens: seeds for seeds in models_of(slid)}
    return [Column(seeds, by_stride.get(seeds[0].tokens, [])) for seeds in models_of(rows)]


def models_of(rows: Iterable[Row]) -> list[list[Model]]:
    """Of each budget at which interpolation was trained, the smallest first, the model of every seed."""
    rows = list(rows)
    found = {(row.asked["method"], row.asked["tokens"], row.asked["seed"]): row for row in rows}
    base, untrained = base_of(rows), found.get(("linear", 0, 0))
    budgets: dict[int, list[Model]] = {}
    for (method, tokens, seed), trained in sorted(found.items(), key=lambda each: each[0][1:]):
        if method == "linear" and tokens and base and untrained:
            direct, control = found.get(("direct", tokens, seed)), control_of(trained, rows)
            budgets.setdefault(tokens, []).append(Model(base, untrained, trained, direct, control))
    return list(budgets.values())


def of_passkeys(found: str, of_none: str, able: Iterable[Row | None]) -> str:
    """The verdict on how far passkeys are found. That few are, or none, says nothing of a longer window where no model finds them in the old one.

    of_none: the verdict on a model that finds nothing at any window.
    able: the model itself, the one that it was made of, and the control.
    """
    return NOT_TESTABLE if found in ("open", of_none) and not any(row.finds for row in able if row) else found


def _difference(here: Perplexity | None, there: Perplexity | None) -> Bounded | None:
    found = ratio(there, here) if here and there else None
    return found.nats if found else None


def _nats(row: Row, window: int, other: Row, other_window: int) -> Bounded | None:
    """A row's loss at a window above another's at its, over the same documents."""
    here, there = row.perplexities.get(window), other.perplexities.get(other_window)
    return _difference(here, there)


def _further(row: Row, other: Row | None, window: int) -> Bounded | None:
    """A row's loss on further documents above another's."""
    return _difference(row.further.get(window), other.further.get(window)) if other else None


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
    slid: rests on level slid, where that has rows.
    finds: of a claim of passkeys, the row that is to find them (`of_passkeys`).
    may_be_books: of a loss no higher than the base's, which the books that were read alone may have brought: open without a control beside it.
    within: what the figure can be at all.
    """

    text: str
    source: str
    measure: Callable[[Model], Bounded | None]
    what: str
    least: float = -math.inf
    most: float = math.inf
    at_old: Callable[[Model], Row] | None = None
    slid: bool = False
    finds: Callable[[Model], Row | None] | None = None
    may_be_books: bool = False
    within: Callable[[Model], tuple[float, float]] = lambda model: (-math.inf, math.inf)

    def figure(self, column: Column) -> tuple[list[Model], Bounded] | None:
        """Its interval is, of several seeds, that of their mean for other documents and other seeds; the models are those that it is of. None where it was not measured."""
        models = column.slid if self.slid and column.slid else column.models
        known = [(model, figure) for model in models if (figure := self.measure(model)) is not None]
        if not known:
            return None
        models = [model for model, _ in known]
        value, *ends = over_seeds([figure for _, figure in known])
        low, high = (float(end) for end in np.clip(ends, *self.within(models[0])))
        return models, (value, low, high)

    def cell(self, column: Column) -> str:
        """The verdict, the figure that it rests on, and which seeds, where they are not those of the column."""
        if (found := self.figure(column)) is None:
            return ""
        models, (value, low, high) = found
        alone = self.may_be_books and not any(model.control for model in column.models)
        of = (
            ", no control" * alone
            + ", level slid" * (models[0] in column.slid)
            + f", {named(models)}" * (named(models) != column.seeds)
        )
        told = self._verdict(models, low, high)
        told = "open" if alone and told == HELD else told
        return f"{told}: {bounded(fixed(value, 3), low, high, lambda end: fixed(end, 3))}{of}"

    def _verdict(self, models: list[Model], low: float, high: float) -> str:
        found = verdict(low, high, self.least, self.most)
        if self.finds:
            able = [row for model in models for row in (model.base, model.control, self.finds(model))]
            return of_passkeys(found, verdict(0.0, 0.0, self.least, self.most), able)
        return "open" if found == HELD and any(map(self._may_be_of_half, models)) else found

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
        return HELD
    return "**did not**" if high < least or low > most else "open"


CLAIMS = (
    Claim("A model breaks beyond its window", in_the_paper.BREAKS,
          lambda m: _nats(m.base, m.new, m.base, m.old), "nats at L' above its own at L; held above ln 2", least=math.log(2)),
    Claim("Direct fine-tuning hardly lengthens what is used", in_the_paper.DIRECT,
          lambda m: _reach(m.direct, m.old) if m.direct else None, "its k_max over L; held up to 1.25", most=1.25, finds=lambda m: m.direct,
          within=lambda m: (0, m.new / m.old)),
    Claim("Interpolated and untrained, a model already does better at L' than one that is not", in_the_paper.UNTRAINED,
          lambda m: _nats(m.untrained, m.new, m.base, m.new), "nats at L' above the base's there; held below 0", most=0.0),
    Claim("Trained briefly, it is no worse at L' than the base at L", in_the_paper.TRAINED,
          lambda m: _nats(m.trained, m.new, m.base, m.old), "nats at L' above the base's at L; held up to 0", most=0.0, at_old=lambda m: m.base, slid=True, may_be_books=True),
    Claim(BESIDE, "not in the paper",
          lambda m: _nats(m.trained, m.new, m.control, m.old) if m.control else None, "nats at L' above the control's at L; held up to 0", most=0.0, at_old=lambda m: m.control),
    Claim(LONGER, in_the_paper.LONGER,
          lambda m: _nats(m.trained, m.new, m.trained, m.old), "nats at L' above its own at L; held below 0", most=0.0, at_old=lambda m: m.trained, slid=True),
    Claim("It finds the passkey anywhere", in_the_paper.PASSKEYS,
          lambda m: _reach(m.trained, m.new), "its k_max over L'; held at 1", least=1.0, finds=lambda m: m.trained, within=lambda m: (0, 1)),
    Claim("The old window hardly suffers", in_the_paper.OLD_WINDOW,
          lambda m: _nats(m.trained, m.old, m.base, m.old), "nats at L above the base's there; held up to 0.02", most=0.02, may_be_books=True),
    Claim(BESIDE, "not in the paper",
          lambda m: _nats(m.trained, m.old, m.control, m.old) if m.control else None, "nats at L above the control's there; held up to 0.02", most=0.02),
    Claim("The old window hardly suffers on mathematics, of which none was read", in_the_paper.MATHEMATICS,
          lambda m: _further(m.trained, m.base, m.old), "nats on further documents at L above the base's there; held up to 0.02", most=0.02, may_be_books=True),
    Claim("And not because books make it forget that: beside the control", "not in the paper",
          lambda m: _further(m.trained, m.control, m.old), "nats on further documents at L above the control's there; held up to 0.02", most=0.02),
    Claim("Benchmarks of the old window hardly suffer", in_the_paper.BENCHMARKS,
          _benchmarks, "points above the base's, pooled over those at which the base beats guessing; held from −2", least=-2.0),
)  # fmt: skip


def lines(found: list[Column]) -> Iterable[list[str]]:
    """claim, where it stands and what decides, and a verdict a model and budget."""
    for claim in CLAIMS:
        yield [claim.text, claim.source, claim.what, *map(claim.cell, found)]


def section(known: list[tuple[str, Column]]) -> str:
    """What is said of the columns of each model, and their table; empty without any."""
    if not known:
        return ""
    told = []
    for name, column in known:
        first = column.models[0]
        told.append(f"{name}, {first.old} → {first.new}, {budget(first.tokens)} tokens, {column.seeds}")
    slid = [
        f"{name} at {budget(column.models[0].tokens)} ({named(column.slid)})" for name, column in known if column.slid
    ]
    return (
        f"{TITLE}\n\nThe trained model is by Position Interpolation, after the training tokens in the head of each column; the paper's own 1000 steps are 0.5 G tokens and its first 200 are 105 M (100 M here). What did not hold after few "
        f"tokens may hold after more, as the columns of one model show{_changing_rates(known)}. Two claims are of models before any training here, and the same in all columns of one model. L is the old window, L' the new one. An empty cell was not measured; nor were models of 7B to 65B, and what the paper says of size. Summaries have a table of their own.\n\n"
        f"The verdict is by the interval in brackets: **held** if all of it lies in the range, **did not** if none does, else open. A figure is of the seeds in the head of its column unless it names others; of several it is their mean, with the interval for other documents or prompts and for other seeds. {_sizes(known)}{_other_rates(known)}\n\n"
        f"A claim of passkeys is {NOT_TESTABLE} where clearly fewer than half of them are found in the old window (the interval of the share lies below {share(FINDS)}) by the model before any extension, by the control after as many tokens, and by the trained model itself: that few are found beyond, or none, then says nothing of the longer "
        f"window.{_cannot_find(known)}\n\n"
        f"k_max counts whole keys, as in the paper. {ABOUT_DIGITS}{_digits(known)}\n\n"
        "A claim that a loss is no higher than the base's is open where no control read as many tokens at L: the books alone may have lowered it. "
        "A claim of a lower loss at L' than at L is open where it was measured at a stride of half a window: the tokens counted at L then had as few as half of L before them, and the fall may be of that half, unless it is larger than that model's own from L / 4 to L. At the paper's stride of 256 tokens it is what the longer window is worth. That was "
        f"measured so at level slid of the records: {joined(slid or ['no model'])}. These were trained again by the same commands, so their weights are others than those of the other lines, and their seeds need not be the same; no control was. The theorem is "
        "another matter: as printed its bound is false by 13.7 %, and the factor of about 600 is 512 by its own logic ([method](method.md)).\n\n"
        + table(["claim", "in the paper", "decided by", *told], lines([column for _, column in known]))
    )


def _changing_rates(known: list[tuple[str, Column]]) -> str:
    """Of which models the rate is not the same in all columns, so that more tokens are not all that differs."""
    rates: dict[str, set[float]] = {}
    for name, column in known:
        rates.setdefault(name, set()).update(model.trained.asked["learning_rate"] for model in column.models)
    names = [name for name, found in rates.items() if len(found) > 1]
    return f"; those of {joined(names)} differ in the learning rate too (below)" if names else ""


def _sizes(known: list[tuple[str, Column]]) -> str:
    """That a claim which held need not have held by as much as in the paper, where that matters most."""
    longer = next(claim for claim in CLAIMS if claim.text == LONGER)
    held = [longer.figure(column)[1][0] for _, column in known if longer.cell(column).startswith(HELD)]
    ends = " to ".join(dict.fromkeys(fixed(end, 3) for end in (max(held), min(held)))) if held else ""
    beside = f": of what the longer context is worth, {ends} nats where it held here, {fixed(in_the_paper.LONGER_NATS, 3)} in the paper" if held else ""  # fmt: skip
    return f"**Held** says that the figure lies in that range, not that it is as large as the paper's, which stands beside it in the same unit{beside}."


def _other_rates(known: list[tuple[str, Column]]) -> str:
    """Where the control was trained at another rate than Position Interpolation, in a sentence."""
    words = {
        f"{name}, {budget(model.tokens)} (at {model.trained.asked['learning_rate']:g}, the {rate})": None
        for name, column in known
        for model in column.models
        if model.control and (rate := control_rate(model.trained, model.control))
    }
    return f" Beside the control the learning rate is another too at {joined([*words])}." if words else ""


def _digits(known: list[tuple[str, Column]]) -> str:
    """Of each column the digits that the trained model has right at L', in a sentence."""
    right = {
        f"{name}, {budget(column.models[0].tokens)}": [model.trained.digits[model.new][0] for model in column.models if model.new in model.trained.digits]
        for name, column in known
    }  # fmt: skip
    told = [f"{joined(map(share, each))} ({words})" for words, each in right.items() if each]
    return f" At L' the trained models have of the digits {joined(told)}, by seed." if told else ""


def _cannot_find(known: list[tuple[str, Column]]) -> str:
    """What is said of the models that find few passkeys in their own window."""
    bases = {name: column.models[0].base for name, column in known}
    found = {name: base.found_inside for name, base in bases.items() if not base.finds}
    few = [
        f"{name} finds {share(inside.accuracy)} of them{digits_of(bases[name], bases[name].window)} at {bases[name].window}"
        for name, inside in found.items()
        if inside
    ]
    return f" Before any extension {joined(few)}." if few else ""
