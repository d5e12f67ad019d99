"""Which methods, and ways of training, may be compared: those read on one text, at one window and factor, after as many tokens of one training text.

in   clean rows, and a base model's lineage
out  the contest that a verdict is about; or, where no comparison is fair, what differs, in a sentence
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from ropewalk.records import Step
from ropewalk.records import format as number_format
from ropewalk.records.recipe import Recipe
from ropewalk.records.variant import Variant, befores, labels, last_steps, seeds_of_rows, told_apart
from ropewalk.reports import validation
from ropewalk.reports.comparable import ByWindow, Group, groups
from ropewalk.reports.contenders import MEASURES, OLD, TAKEN, Contender, over_seeds_of, ranked
from ropewalk.reports.methods import Contest
from ropewalk.reports.rows import Clean, once
from ropewalk.reports.texts import listed
from ropewalk.reports.training import Training, budget, trainings
from ropewalk.sentences import joined

Block = dict[Variant, ByWindow]


@dataclass(frozen=True, eq=False)  # each is itself alone, so that `once` can keep what is asked of it
class Comparable:
    """States of one text, window, factor and budget (in words). amount: of training, 0 before it."""

    group: Group
    budget: str
    amount: int
    window: int
    factor: str
    states: Block

    @property
    def methods(self) -> set[str]:
        return {variant.method_and_way for variant in self.states}

    def rank(self, contenders: Sequence[Contender]) -> tuple:
        """Which of several a verdict is about: the largest. What was chosen on a validation text looks better there than it is.

        Then by the evidence for its methods, each of which has its contender: whether most of them were trained with several seeds, whether for most no setting
        is known that is better on validation, and how many they are.
        """
        counted_as_usual = self.group.convention == "ropewalk"
        repeated = _most(len(each.variants) > 1 for each in contenders)
        at_their_best = _most(each.better is None for each in contenders)
        evidence = (repeated, at_their_best, len(contenders))
        return (counted_as_usual, not self.group.is_validation, self.amount > 0, *evidence, self.amount, self.window)

    def is_like(self, other: Comparable) -> bool:
        """Whether they differ in their training alone."""
        return (self.group, self.window, self.factor) == (other.group, other.window, other.factor)

    @property
    def aspects(self) -> dict[str, str]:
        """What has to be the same, in words."""
        return {
            "text": self.group.text_name,
            "reading": self.group.reading,
            "window": f"{self.window} tokens",
            "factor": f"×{self.factor}",
            "training": self.budget,
        }


def contests(clean: Clean) -> list[Contest]:
    """One for each base of which methods may be compared."""
    lineages = dict.fromkeys(m.model_variant.lineage for m in clean.measurements)
    return [one for lineage in lineages if (one := contest(clean, lineage))]


@once
def contest(clean: Clean, lineage: tuple) -> Contest | None:
    """The methods to compare: on a test text before a validation text, trained before untrained, then those of the best evidence (`Comparable.rank`), then of the largest budget."""
    states = _comparable(clean, lineage)
    fair = [each for each in states if len(each.methods) > 1]
    if not fair:
        return None
    chosen = max(fair, key=lambda each: each.rank(_contest(clean, each).contenders))
    alike = [each for each in fair if each is not chosen and each.is_like(chosen)]
    untrained = [each for each in alike if not each.amount]
    elsewhere = [each for each in alike if each.amount == chosen.amount]
    beyond = [each for each in states if each.is_like(chosen) and each.amount > chosen.amount]
    larger = max(beyond, key=lambda each: (each.amount, len(each.methods)), default=None)
    others = [each for each in fair if each not in (chosen, *untrained, *elsewhere, larger)]
    before = [contender for each in untrained for contender in _contest(clean, each).contenders]
    return replace(
        _contest(clean, chosen),
        untrained=[variant for contender in before for variant in (contender, *contender.other_variants)],
        elsewhere=[_contest(clean, each) for each in elsewhere],
        larger=_contest(clean, larger) if larger else None,
        others=len(others),
        others_differ={
            name: listed({each.aspects[name] for each in others} - {chosen.aspects[name]})
            for name in _differing([chosen, *others])
        },
    )


def not_comparable(clean: Clean, lineage: tuple) -> str:
    """Why no method is compared with another although several were measured, in a sentence; nothing where they are compared, or only one was measured."""
    measured = {m.model_variant for m in clean.measurements if not isinstance(m.row, Step)}
    extended = [v for v in measured if v.extended and v.lineage == lineage]
    trained = {v.method_label for v in extended if v.steps}  # whose state before that is no other way
    methods = {v.method_and_way for v in extended if v.steps or v.method_label not in trained}
    states = _comparable(clean, lineage)
    if len(methods) < 2 or any(len(each.methods) > 1 for each in states):
        return ""
    if len({method for each in states for method in each.methods & methods}) < 2:
        return f"{', '.join(sorted(methods))} are not compared: fewer than two of them have a perplexity at their own window."
    values = {name: {each.aspects[name] for each in states} for name in _differing(states)}
    differ = "; ".join(f"{name} ({'; '.join(sorted(several))})" for name, several in values.items())
    return f"{', '.join(sorted(methods))} are not compared, since no two of them were measured alike. They differ in {differ}."


def other_trainings(seeds: Sequence[Variant], measured: Iterable[Variant]) -> str:
    """Which other trained states of these there are, in a sentence, where a verdict is of the seeds of one training and tells it against its beginning alone."""
    own, before = {seed.training for seed in seeds}, [v for seed in seeds for v in befores(seed, measured)]
    others = last_steps([v for v in measured if v.extended and v.steps and v.training not in own and v not in before])
    names = labels([*seeds, *others])
    if not others:
        return ""
    told = joined(sorted({names[other] for other in others}))
    return f"Left to the tables: {told}. This is of the training that was measured in the most ways, then of the longest window, on top of an earlier one, of the most steps."


def blocks(variants: Block, runs: list[Training]) -> dict[str, Block]:
    """Budget in words → its variants; tokens where the training is on record, else steps, and what was read, where that is not the same for all. Blocks of one are left out."""
    return {name: block for (name, _), block in _by_budget(variants, runs).items() if len(block) > 1}


def _by_budget(variants: Block, runs: list[Training]) -> dict[tuple[str, int], Block]:
    """(budget in words, its amount) → its variants, smaller budgets first."""
    by_budget: dict[tuple[int, int, str, str], Block] = {}
    for variant, rows in variants.items():
        by_budget.setdefault(_amount(variant, runs), {})[variant] = rows
    texts = {text for kind, _, text, _ in by_budget if kind}

    def words(kind: int, value: int, text: str, earlier: str) -> str:
        amount = [
            Recipe(earlier=earlier).before,
            f"{number_format.tokens(value)} training tokens",
            number_format.steps(value),
        ][kind]
        named = f"{amount} of {text or 'a text not on record'}" if kind and len(texts) > 1 else amount
        return f"{named}{' on top of' if kind else ', after'} {earlier}" if earlier else named

    return {(words(*key), key[1]): block for key, block in sorted(by_budget.items())}


def _amount(variant: Variant, runs: list[Training]) -> tuple[int, int, str, str]:
    """How much it was trained: before training (0), tokens (1) or steps (2); how many; of which text; on top of what."""
    tokens = (budget(variant, runs) if variant.steps else 0) or 0
    kind, amount = (0, 0) if not variant.steps else (1, tokens) if tokens else (2, variant.steps)
    return kind, amount, variant.recipe.data, variant.recipe.earlier


@once
def _comparable(clean: Clean, lineage: tuple) -> list[Comparable]:
    """What was measured at its own window, by what has to be the same."""
    runs, parts = trainings(clean), dict[tuple, Comparable]()
    for place, group in enumerate(groups(clean)):
        if group.lineage != lineage:
            continue
        extended = {v: rows for v, rows in group.variants().items() if v.extended and not v.is_worse}
        for (words, amount), block in _by_budget(extended, runs).items():
            for variant, rows in block.items():
                if variant.window in rows and number_format.is_finite(rows[variant.window].perplexity):
                    key = (words, amount, variant.window, f"{variant.factor:.4g}")
                    parts.setdefault((place, *key), Comparable(group, *key, {})).states[variant] = rows
    return list(parts.values())


def _most(true: Iterable[bool]) -> bool:
    """Whether more than half of these hold."""
    return fmean(true) > 0.5


def _differing(states: Sequence[Comparable]) -> list[str]:
    """In which aspects these are not all alike."""
    return [name for name in states[0].aspects if len({each.aspects[name] for each in states}) > 1]


@once
def _contest(clean: Clean, comparable: Comparable) -> Contest:
    """A contender a method and way of training; what differs from it in its recipe alone, a learning rate say, is a variant of it."""
    by_method: dict[str, list[Contender]] = {}
    for contender in _contenders(clean, comparable):
        by_method.setdefault(contender.variants[0].method_and_way, []).append(contender)
    rows = validation.read(clean, comparable.group.lineage)
    trained = seeds_of_rows([v for v in rows if v.extended])
    best = [_best(variants, rows) for variants in by_method.values()]
    best = [replace(each, better=_better(each, trained, rows, trainings(clean))) for each in best]
    return Contest(comparable.group, comparable.budget, comparable.amount, comparable.window, _named(best))


def _best(variants: list[Contender], rows: validation.Read) -> Contender:
    """Of those by most of the measures the best on validation, where all have that on record, else by the rule of methods: what has no passkeys would take them from the whole contest."""
    most = max(len(MEASURES.keys() & each.figures.keys()) for each in variants)
    known = [each for each in variants if len(MEASURES.keys() & each.figures.keys()) == most]
    losses = validation.losses([each.variants for each in known], rows)
    leader = known[losses.index(min(losses))] if losses else ranked(known).level[0]
    return replace(leader, other_variants=[v for v in variants if v is not leader], by_validation=losses is not None)


def _better(
    one: Contender, trained: Sequence[list[Variant]], rows: validation.Read, runs: list[Training]
) -> tuple[Recipe, float] | None:
    """How that training of its method, as long and to the same window, was set that is the best on validation, and by how many nats a token it is better than this one; None where none is."""

    def like(variant: Variant) -> tuple:
        return variant.method_and_way, variant.window, f"{variant.factor:.4g}", _amount(variant, runs)

    found: tuple[Recipe, float] | None = None
    for other in trained:
        both = validation.losses([one.variants, other], rows) if like(other[0]) == like(one.variants[0]) else None
        if both and round(both[0] - both[1], 3) > (found[1] if found else 0):
            found = other[0].recipe, both[0] - both[1]
    return found


def _named(best: list[Contender]) -> list[Contender]:
    """Their labels without the settings that all of these share, as where one learning rate came out for all."""
    facts = {fact for each in best for fact, _ in each.variants[0].recipe.facts}
    told = [{each.variants[0].recipe.told(fact) for each in best} for fact in facts]
    shared = [f" ({values.pop()})" for values in told if len(values) == 1]
    return [replace(each, label=functools.reduce(lambda label, words: label.replace(words, ""), shared, each.label)) for each in best]  # fmt: skip


def _contenders(clean: Clean, comparable: Comparable) -> Iterable[Contender]:
    """One for the seeds of each training."""
    window, states = comparable.window, comparable.states
    seeds = seeds_of_rows(list(states))
    names = told_apart({row[0]: row[0].method_and_factor for row in seeds}, lambda variant: variant)
    for row in seeds:
        taken = {name: [measure(clean, v, window, states[v]) for v in row] for name, measure in TAKEN.items()}
        known = {name: [seed for seed in each if seed] for name, each in taken.items() if None not in each}
        read = {"perplexity": [states[v][window] for v in row]}
        if OLD in known:
            read[OLD] = [states[v][v.original_window] for v in row]
        figures = {name: over_seeds_of(name, window, each) for name, each in known.items()}
        values = {name: [value for value, _, _ in each] for name, each in known.items()}
        yield Contender(names[row[0]], row, read, figures, values)
