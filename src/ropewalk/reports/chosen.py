"""In what the trainings of the methods that are compared differ, and by what it was chosen which training stands for its method.

in   the page's contests
out  sentences under "Read with care"
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from ropewalk.records import format as number_format
from ropewalk.records.recipe import differing
from ropewalk.reports.contenders import Contender
from ropewalk.reports.contests import contests
from ropewalk.reports.damage import control_of
from ropewalk.reports.methods import Contest
from ropewalk.reports.rows import Clean
from ropewalk.reports.training import trainings
from ropewalk.sentences import joined


def cautions(clean: Clean) -> Iterator[str]:
    """What to know of the trainings that are compared."""
    for one in contests(clean):
        for caution in (*_settings(clean, one), *_by_what_is_shown(one), *_worse_on_validation(one)):
            yield clean.about(one.group.lineage, caution)


def _settings(clean: Clean, one: Contest) -> Iterable[str]:
    """In what the trainings of methods differ, and of their controls, and whether it is known that each was chosen for its method."""
    runs, rows = trainings(clean), one.group.variants()
    controls = filter(None, (control_of(v, rows, runs) for each in one.contenders for v in each.variants[:1]))
    names = [(each.variants[0].recipe, each.label) for each in one.contenders]
    names += [(each.recipe, each.method_label) for each in controls]
    facts = differing([recipe for recipe, _ in names])
    of_value: dict[str, dict[str, None]] = {}
    for fact, (recipe, name) in itertools.product(facts, names):
        of_value.setdefault(recipe.told(fact) or f"{fact.replace('_', ' ')} not on record", {})[name] = None
    if facts:
        told = "; ".join(f"{value} ({', '.join(those)})" for value, those in of_value.items())
        yield f"Not trained alike: {told}; {_chosen(one, facts)}."


def _chosen(one: Contest, facts: Sequence[str]) -> str:
    """Of how many methods several such settings were measured, so that the best stands for each."""
    several = [each.label for each in one.contenders if set(facts) & set(_searched(each))]
    if len(several) == len(one.contenders):
        return "of each several were measured, and the best stands for its method"
    but = f" but of {joined(several)}" if several else ""
    return f"that each was chosen for its method is not on record here{but}"


def _searched(contender: Contender) -> list[str]:
    """The settings in which the variants of a method differ."""
    return differing([each.variants[0].recipe for each in (contender, *contender.other_variants)])


def _by_what_is_shown(one: Contest) -> Iterable[str]:
    """That what stands for a method was chosen by the figures that are then reported of it."""
    chosen = [each for each in one.contenders if each.other_variants]
    shown = [each for each in chosen if one.group.is_validation or not each.by_validation]
    if not shown:
        return
    settings = dict.fromkeys(fact.replace("_", " ") for each in shown for fact in _searched(each))
    what = "Learning rates" if [*settings] == ["learning rate"] else f"Settings ({', '.join(settings)})" if settings else "Variants"  # fmt: skip
    several = ", ".join(f"{each.variants[0].method_label} of {1 + len(each.other_variants)}" for each in shown)
    way_out = (
        "measure `perplexity` on --test too"
        if one.group.is_validation
        else "`ablate` with --validation and `validation` in --measure lets other documents choose"
    )
    yield f"{what} were chosen by the figures shown (the best {several}), so that the best looks better here than it is: {way_out}."


def _worse_on_validation(one: Contest) -> Iterable[str]:
    """Which methods stand in the comparison at a setting that was not their best on validation, and by how much."""
    worse = []
    for each in one.contenders:
        if each.better:
            recipe, nats = each.better
            other = ", ".join(recipe.told(fact) for fact in differing([each.variants[0].recipe, recipe]))
            worse.append(f"{each.label} {number_format.fixed(nats, 3)} ({other or 'another training'} is better)")
    if worse:
        yield f"Worse on validation than at another setting that was tried, in nats a token: {', '.join(worse)}. What these lack here may be their settings' doing."
