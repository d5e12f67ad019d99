"""One method of a contest: its seeds, its figures by measure, and whether it is ahead of another beyond chance.

in   states of one base model that were trained on as many tokens
out  `Contender`s, ranked as far as intervals tell
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ropewalk.evals.intervals import over_seeds, perplexity_over_seeds, share_interval
from ropewalk.records import Passkey, Perplexity
from ropewalk.records import format as number_format
from ropewalk.records.recipe import Recipe
from ropewalk.records.variant import Variant
from ropewalk.reports.comparable import ByWindow
from ropewalk.reports.paired import Bounded, alone, between, loss_difference, ratio, told
from ropewalk.reports.passkey import depths_of, k_max_interval, summaries
from ropewalk.reports.rows import Clean
from ropewalk.sentences import joined

#: What decides, in this order, and how it is written. The larger is the better, but of perplexity.
MEASURES: dict[str, Callable[[float], str]] = {
    "k_max": number_format.count,
    "passkeys found": number_format.share,
    "perplexity": number_format.perplexity,
}
#: What decides nothing, and is said where another method is ahead by it. How long a training took is not: methods do the same arithmetic, and machines differ.
OLD = "perplexity at the old window"


@dataclass(frozen=True)
class Contender:
    """One method: its seeds, their perplexities at the longest window and the old one, by measure, and each measure that was taken, with its value of each seed in `seeds`.

    other_variants: of the same method, by another learning rate say, which it stands for.
    by_validation: whether it stands for them by its validation loss, and not by its figures.
    better: how that one of its method was trained whose validation loss is lower, and by how many nats a token.
    """

    label: str
    variants: list[Variant]
    perplexities: dict[str, list[Perplexity]]
    figures: dict[str, Bounded]
    seeds: dict[str, list[float]]
    other_variants: list[Contender] = field(default_factory=list)
    by_validation: bool = False
    better: tuple[Recipe, float] | None = None

    def named(self, facts: Sequence[str]) -> str:
        """Its label with these settings of its training, as `records.variant.told_apart` writes them."""
        told = [f"({told})" for fact in facts if (told := self.variants[0].recipe.told(fact, self.label))]
        return " ".join([self.label, *(each for each in told if each not in self.label)])

    def leads(self, other: Contender, measure: str) -> bool:
        """Whether it is ahead beyond chance, and each seed before each of the other. Perplexities are paired over documents."""
        if measure not in self.perplexities:
            each_before_each = min(self.seeds[measure]) > max(other.seeds[measure])
            return self.figures[measure][1] > other.figures[measure][2] and each_before_each
        difference = self.loss_above(other, measure)
        return difference is not None and difference[2] < 0

    def loss_above(self, other: Contender, measure: str = "perplexity") -> Bounded | None:
        """At the longest window or the old one, nats a token, over all seeds of both."""
        both = self.perplexities[measure] + other.perplexities[measure]
        rows = dict(zip(self.variants + other.variants, both, strict=True))
        return between(self.variants, other.variants, lambda mine, theirs: loss_difference(rows[theirs], rows[mine]))

    def above(self, other: Contender) -> str:
        """Its perplexity against another's, with the interval that decides: of the difference over documents that both read."""
        difference = self.loss_above(other)
        if len(self.variants) + len(other.variants) > 2 and difference:
            return " ".join(filter(None, [f"{told(difference)} nats a token", alone(self.variants, other.variants)]))
        return str(ratio(other.perplexities["perplexity"][0], self.perplexities["perplexity"][0]))

    def score(self, measure: str) -> float:
        value = self.figures[measure][0]
        return -value if measure in self.perplexities else value

    def told_beside(self, before: Contender, measure: str) -> str:
        """Its figure and that before its training; of perplexities with what decides, their paired difference, in place of intervals that may overlap."""
        if measure != "perplexity":
            return f"{self.told(measure)}, before it {before.told(measure)}"
        now, then = (number_format.perplexity(each.figures[measure][0]) for each in (self, before))
        return f"{now}, before it {then}: {self.above(before)}"

    def told(self, measure: str) -> str:
        value, low, high = self.figures[measure]
        write, seeds = MEASURES[measure], len(self.seeds[measure])
        bounds = number_format.interval(low, high, write)
        around = ", ".join(
            [f"{'mean of ' * (measure == 'k_max')}{seeds} seeds"] * (seeds > 1)
            + [f"95\u202f% interval {bounds}"] * bool(bounds)
        )
        return write(value) + (f" ({around})" if around else "")


@dataclass(frozen=True)
class Ranking:
    """Contenders as far as measures tell them apart.

    level: those that no measure sets behind the best, the best first.
    measure: that decided at last, or was the last to be tried.
    rounds: (measure, those that it was to tell apart), of each measure that set some of them behind.
    """

    level: list[Contender]
    measure: str
    rounds: list[tuple[str, list[Contender]]]

    @property
    def following(self) -> Contender:
        """The best, by the same rule, of those that the last measure set behind."""
        return ranked([each for each in self.rounds[-1][1] if each not in self.level]).level[0]

    @property
    def briefly(self) -> str:
        """By what the best won, for a heading: "perplexity among those level by passkeys found"."""
        before = [measure for measure in dict.fromkeys(each for each, _ in self.rounds) if measure != self.measure]
        return f"{self.measure} among those level by {joined(before)}" if before else self.measure

    @property
    def by(self) -> str:
        """By what the best won, in words: "passkeys found, level with YaRN ×4, and of these 2 by perplexity". Of who found more than the best, if not surely, the figures are told."""
        words, best = "", self.level[0]
        for (measure, _), (_, left) in itertools.pairwise(self.rounds):
            others = [each.label for each in left if each is not best]
            told = others[0] if len(others) == 1 else f"{len(others)} others"
            most = max(left, key=lambda contender, measure=measure: contender.score(measure))
            more = most.score(measure) > best.score(measure)
            figures = f" ({most.label}: {most.told(measure)}; {best.label}: {best.told(measure)})" if more else ""
            words += f"{measure}, level with {told}{figures}, and of these {len(left)} by "
        return words + self.measure


def ranked(contenders: list[Contender]) -> Ranking:
    """By each measure in order that all have who are left; who is behind the best by it is out."""
    left, measure, rounds = contenders, "", list[tuple[str, list[Contender]]]()
    for measure in MEASURES:
        if all(measure in contender.figures for contender in left):
            best = max(left, key=lambda contender: contender.score(measure))
            level = [best, *(each for each in left if each is not best and not best.leads(each, measure))]
            rounds += [(measure, left)] * (len(level) < len(left))
            left = level
            if len(left) == 1:
                break
    return Ranking(left, measure, rounds)


def over_seeds_of(measure: str, window: int, seeds: Sequence[Bounded]) -> Bounded:
    """The mean over seeds, with an interval of what can be."""
    if measure in ("perplexity", OLD):
        return perplexity_over_seeds(seeds)
    value, low, high = over_seeds(seeds)
    return value, max(low, 0.0), min(high, window if measure == "k_max" else 1.0)


def k_max(clean: Clean, variant: Variant, window: int, _: ByWindow | None = None) -> Bounded | None:
    """k_max with its interval, from the depths on record."""
    row, tried = summaries(clean).get(variant, {}).get(window), depths_of(clean, variant, window)
    return (row.k_max, *k_max_interval(tried)) if row and tried else None


def passkeys_found(clean: Clean, variant: Variant, window: int, _: ByWindow | None = None) -> Bounded | None:
    """Their share, with its exact interval."""
    tried = depths_of(clean, variant, window)
    return _share(tried) if any(row.trials for row in tried) else None


def depths_asked(clean: Clean, variant: Variant, window: int) -> tuple[int, ...]:
    """How far back keys stood, in tokens."""
    return tuple(sorted(row.k for row in depths_of(clean, variant, window)))


def _share(tried: list[Passkey]) -> Bounded:
    right, trials = sum(row.successes for row in tried), sum(row.trials for row in tried)
    return (right / trials, *share_interval(right, trials))


def _read(row: Perplexity | None) -> Bounded | None:
    return None if row is None or not number_format.is_finite(row.perplexity) else (row.perplexity, *row.bounds)


TAKEN: dict[str, Callable[[Clean, Variant, int, ByWindow], Bounded | None]] = {
    "k_max": k_max,
    "passkeys found": passkeys_found,
    "perplexity": lambda _, __, window, rows: _read(rows.get(window)),
    OLD: lambda _, variant, __, rows: _read(rows.get(variant.original_window)),
}
