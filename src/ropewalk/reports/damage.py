"""What a longer window cost in the old one: the loss there above the base's, and above that of a control.

A control was trained at the old window on as many tokens of the same text: what a model loses above it is the price of the longer window,
and what the control gains on the base is what the text taught.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ropewalk.evals.intervals import over_seeds
from ropewalk.records import Perplexity
from ropewalk.records.variant import Variant
from ropewalk.reports.comparable import ByWindow, Group
from ropewalk.reports.contenders import OLD
from ropewalk.reports.contests import contests
from ropewalk.reports.paired import Ratio, only, ratio, told
from ropewalk.reports.rows import Clean
from ropewalk.reports.training import Training, budget, trainings
from ropewalk.sentences import joined


def above_base(group: Group, variant: Variant) -> Ratio | None:
    """The perplexity in the old window over the base's, where both were measured."""
    before, inside = group.base_row(), group.variants()[variant].get(variant.original_window)
    return _paired(before, inside) if before and inside else None


def above_control(group: Group, variant: Variant, runs: Sequence[Training]) -> Ratio | None:
    """The same over its control's."""
    rows, window = group.variants(), variant.original_window
    control = control_of(variant, rows, runs)
    return _paired(rows[control][window], rows[variant][window]) if control and window in rows[variant] else None


def _paired(before: Perplexity, after: Perplexity) -> Ratio | None:
    """None where the two did not read the same documents: part of their difference would be the text's."""
    change = ratio(before, after)
    return change if change and change.same_documents else None


def short_pair(group: Group, variant: Variant) -> tuple[Perplexity, Perplexity] | None:
    """The base and a variant in the old window; at the longest shorter one where they were not both measured there."""
    rows = group.variants()
    for base in (v for v in rows if v.role == "base" and not v.steps):
        shared = [window for window in rows[base].keys() & rows[variant].keys() if window <= variant.original_window]
        if shared:
            return rows[base][max(shared)], rows[variant][max(shared)]
    return None


def control_of(variant: Variant, measured: Mapping[Variant, ByWindow], runs: Sequence[Training] = ()) -> Variant | None:
    """The control of a trained model: from the same seed; of several by different rates the one by the same rate, else the best, beside which nothing is flattered.

    Args:
        measured: all that may be it, with their perplexities by window.
        runs: trainings on record, from which tokens are counted where they are not in the recipe.
    """
    if variant.role != "trained" or (tokens := budget(variant, runs)) is None:
        return None
    window, facts = variant.original_window, dict(variant.recipe.facts)

    def is_control(other: Variant) -> bool:
        read = dict(other.recipe.facts)
        same_text = all(read[name] == facts[name] for name in ("data", "data_digest") if name in read and name in facts)
        alike = (other.lineage, other.recipe.seed) == (variant.lineage, variant.recipe.seed)
        trained_there = other.role == "base" and other.steps > 0 and window in measured[other]
        return trained_there and alike and same_text and budget(other, runs) == tokens

    def rank(other: Variant) -> tuple[bool, float]:
        same_rate = dict(other.recipe.facts).get("learning_rate") == facts.get("learning_rate")
        return not same_rate, measured[other][window].perplexity

    return min(filter(is_control, measured), key=rank, default=None)


def sentence(group: Group, seeds: Sequence[Variant], runs: Sequence[Training]) -> str:
    """Both, each of all seeds of one method that it is known of, in words; without a base that of the control alone; nothing without a control."""
    base = _mean_loss([(seed, change) for seed in seeds if (change := above_base(group, seed))], len(seeds))
    control = _mean_loss([(seed, change) for seed in seeds if (change := above_control(group, seed, runs))], len(seeds))
    if not control:
        return ""
    above_both = f"above the base's: {base}; above" if base else "above"
    return (
        f"Loss at {seeds[0].original_window} tokens {above_both} a control's that read as many tokens of this text there, "
        f"the price of the longer window: {control}."
    )


def _mean_loss(changes: Sequence[tuple[Variant, Ratio]], seeds: int) -> str:
    """The mean of these seeds' changes in nats, with its interval, and which seeds it is of where that is not all."""
    if not changes:
        return ""
    mean = f"{told(over_seeds([change.nats for _, change in changes]))} nats"
    return mean if len(changes) == seeds else f"{mean}, {only([seed.recipe.seed for seed, _ in changes])}"


def no_control(clean: Clean) -> Iterable[str]:
    """Trained methods that are compared and have a perplexity in the old window, and no control that would tell its price."""
    runs = trainings(clean)
    for one in contests(clean):
        rows, asked = one.group.variants(), [each for each in one.contenders if one.amount and OLD in each.figures]
        without = [each for each in asked if not any(control_of(v, rows, runs) for v in each.variants)]
        if without:
            whose = "" if len(without) == len(asked) else f" of {joined(each.label for each in without)}"
            said = f"No control{whose} is on record, trained at the old window on as many tokens (ablate --methods control): how much of the change there is the longer window's is not known."
            yield clean.about(one.group.lineage, said)
