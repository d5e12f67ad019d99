"""The winner among methods: by k_max at the longest window, then by passkeys found and by perplexity there, and only as far as intervals tell.

in   states of one base model that were trained on as many tokens
out  who is ahead, or who cannot be told apart, by which measure, and who is ahead by the others
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ropewalk.evals.intervals import over_seeds, share_interval
from ropewalk.records import Passkey, Perplexity
from ropewalk.records import format as number_format
from ropewalk.records.variant import Variant, labels, seeds_of_rows
from ropewalk.reports.paired import Bounded, between, loss_difference, ratio, told
from ropewalk.reports.passkey import k_max_interval, summaries
from ropewalk.reports.perplexity import ByWindow, short_data
from ropewalk.reports.rows import Clean
from ropewalk.reports.training import device_seconds, trained_by, trainings

#: What decides, in this order, and how it is written. The larger is the better, but of perplexity.
MEASURES: dict[str, Callable[[float], str]] = {
    "k_max": number_format.count,
    "passkeys found": number_format.share,
    "perplexity": number_format.perplexity,
}
#: What decides nothing, and is said where another method is ahead by it: perplexity at the old window, and device seconds of a training.
_OLD, _TIME = "perplexity at the old window", "time"
#: How one is ahead by a measure, where, and how its figures are written.
_AHEAD: dict[str, tuple[str, str, Callable[[float], str]]] = {
    "k_max": ("reaches farther", "", number_format.count),
    "passkeys found": ("finds more passkeys", "", number_format.share),
    _OLD: ("reads better", "at {old} tokens ", number_format.perplexity),
    "perplexity": ("reads better", "at {window} ", number_format.perplexity),
    _TIME: ("trains faster", "", number_format.duration),
}
_FASTER = 0.9  # of the other's time: on machines that are shared trainings of one length differ by less
#: Said wherever a winner is, or none.
RULE = "Rule: k_max, then passkeys found, then perplexity; not the old window, not cost."


@dataclass(frozen=True)
class Contender:
    """One method: its seeds, their perplexities at the longest window and the old one, by measure, and each measure that was taken, with its value of each seed in `seeds`."""

    label: str
    variants: list[Variant]
    perplexities: dict[str, list[Perplexity]]
    figures: dict[str, Bounded]
    seeds: dict[str, list[float]]

    def leads(self, other: Contender, measure: str) -> bool:
        """Whether it is ahead beyond chance, and each seed before each of the other. Perplexities are paired over documents."""
        if measure == _TIME:
            return self.figures[_TIME][0] < _FASTER * other.figures[_TIME][0]
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

    def score(self, measure: str) -> float:
        value = self.figures[measure][0]
        return -value if measure in (*self.perplexities, _TIME) else value

    def told(self, measure: str) -> str:
        value, low, high = self.figures[measure]
        write, seeds = MEASURES[measure], len(self.seeds[measure])
        bounds = number_format.interval(low, high, write)
        around = ", ".join([f"{seeds} seeds"] * (seeds > 1) + [f"95\u202f% interval {bounds}"] * bool(bounds))
        return write(value) + (f" ({around})" if around else "")


@dataclass(frozen=True)
class Contest:
    """Methods at one budget and one window."""

    budget: str
    window: int
    contenders: list[Contender]
    untrained: list[Contender] = field(default_factory=list)
    elsewhere: list[Contest] = field(default_factory=list)  # trained on as many tokens of other texts

    @cached_property
    def ranking(self) -> tuple[list[Contender], str]:
        """Those that no measure sets behind the best, the best first; and the measure that decided, or the last."""
        left, measure = self.contenders, ""
        for measure in MEASURES:
            if all(measure in contender.figures for contender in left):
                best = max(left, key=lambda contender: contender.score(measure))
                left = [best, *(each for each in left if each is not best and not best.leads(each, measure))]
                if len(left) == 1:
                    break
        return left, measure

    @property
    def leader(self) -> Contender:
        """The winner, or the best of those that cannot be told apart."""
        return self.ranking[0][0]

    @property
    def headline(self) -> str:
        """For the page's heading."""
        won = len(self.ranking[0]) == 1
        if not won:
            return f"no winner at {self.window} tokens"
        worse = ", worse than before its training" if self.worsened else ""
        return f"{self.leader.label} wins by {self.ranking[1]} at {self.window} tokens{worse}"

    @cached_property
    def worsened(self) -> str:
        """By which measures training made the leader worse at the longest window, beyond chance, in a sentence; nothing where it did not."""
        leader = self.leader
        alike = [each for each in self.untrained if _method(each) == _method(leader) and leader.variants[0].steps]
        lost = [
            f"{measure} {leader.told(measure)}, before it {before.told(measure)}"
            for before in alike[:1]
            for measure in MEASURES
            if {measure} <= before.figures.keys() & leader.figures.keys() and before.leads(leader, measure)
        ]
        return f" Training made {leader.label} worse at {self.window} tokens: {'; '.join(lost)}." if lost else ""

    @property
    def sentence(self) -> str:
        """Who won by what, or why nobody did."""
        level, measure = self.ranking
        text = short_data(self.contenders[0].perplexities["perplexity"][0].data)
        among = f"{len(self.contenders)} methods at {self.window} tokens{f' of {text}' if text else ''} ({self.budget})"
        if len(level) > 1:
            names = ", ".join(f"{each.label} ({each.told(measure)})" for each in level)
            return f"No winner among {among}: intervals of {', '.join(MEASURES)} do not tell apart {names}.{self.worsened}{self._elsewhere} {RULE}"
        others = [each for each in self.contenders if each is not level[0] and measure in each.figures]
        following = Contest(self.budget, self.window, others).leader  # by the same rule
        sentence = f"{measure}: {level[0].told(measure)}, against {following.told(measure)} of {following.label}"
        if (
            measure == "perplexity"
        ):  # the two intervals are of documents, which both read: what decides is their difference
            change = ratio(*(each.perplexities[measure][0] for each in (following, level[0])))
            several = len(following.variants) + len(level[0].variants) > 2
            difference = level[0].loss_above(following)
            sentence += f": {told(difference)} nats a token" if several and difference else f": {change}"
        but = "".join(f"; {each}" for each in self._ahead_otherwise)
        return f"Of {among}, {level[0].label} wins by {sentence}{but}.{self.worsened}{self._elsewhere} {RULE}"

    @property
    def _ahead_otherwise(self) -> list[str]:
        """By which of the other measures the winner is behind beyond chance, and behind whom, of several the best."""
        winner, ways = self.leader, dict[str, dict[str, list[str]]]()
        for measure, (verb, where, write) in _AHEAD.items():
            known = [each for each in self.contenders if measure in each.figures.keys() & winner.figures.keys()]
            ahead = [each for each in known if each is not winner and each.leads(winner, measure)]
            if ahead:
                best = max(ahead, key=lambda each: each.score(measure))
                mine, its = (write(each.figures[measure][0]) for each in (winner, best))
                place = where.format(old=winner.variants[0].original_window, window=self.window)
                ways.setdefault(best.label, {}).setdefault(verb, []).append(f"{place}({its} against {mine})")
        return [
            f"{label} " + " and ".join(f"{verb} {' and '.join(places)}" for verb, places in by_verb.items())
            for label, by_verb in ways.items()
        ]

    @property
    def _elsewhere(self) -> str:
        """Who is ahead among those trained on other texts, in a sentence each."""
        return "".join(f" With {each.budget}: {each.headline}." for each in self.elsewhere)


def _method(contender: Contender) -> tuple:
    """What a method is before and after its training."""
    variant = contender.variants[0]
    return variant.lineage, variant.scaling, variant.window, variant.recipe.word


def contest(clean: Clean, blocks: dict[str, dict[Variant, ByWindow]]) -> Contest | None:
    """The methods to compare: trained if any are, at the budget with the most methods, then the largest; None where no two were measured alike.

    blocks: budget in words → variant → perplexities, smaller budgets first, as `ablation.blocks` makes them.
    """
    contests = [each for budget, block in blocks.items() if (each := _contest(clean, budget, block))]
    best = max(contests, key=lambda each: (bool(each.leader.variants[0].steps), len(each.contenders)), default=None)
    equal = [each for each in contests if best and len(each.contenders) == len(best.contenders)]
    chosen = max(equal, key=lambda each: each.leader.variants[0].steps, default=None)
    untrained = [each for one in contests for each in one.contenders if not each.variants[0].steps]
    others = [each for each in contests if chosen and each is not chosen and _amount(each) == _amount(chosen)]
    return replace(chosen, untrained=untrained, elsewhere=others) if chosen else None


def _amount(contest: Contest) -> int:
    """Its budget, whatever text it was of: tokens asked for, else steps."""
    variant = contest.leader.variants[0]
    return variant.recipe.tokens or variant.steps


def _contest(clean: Clean, budget: str, block: dict[Variant, ByWindow]) -> Contest | None:
    window = max(variant.window for variant in block)
    rows = {v: at[window] for v, at in block.items() if v.window == window and window in at}
    rows = {v: row for v, row in rows.items() if number_format.is_finite(row.perplexity)}
    seeds = seeds_of_rows(list(rows))
    names = {v: v.method_and_factor for v in rows}
    if len(set(names.values())) < 2:
        return None
    if len(set(names.values())) < len(seeds):  # one method by two rates, say
        names = labels(list(rows))
    runs, contenders = trainings(clean), []
    is_of_one_device = len({run.run.device for v in rows for run in trained_by(v, runs)}) == 1

    def seconds(_: Clean, variant: Variant, *__: Any) -> Bounded | None:
        took = device_seconds(variant, runs) if is_of_one_device and variant.steps else None
        return (took, math.nan, math.nan) if took else None

    for row in seeds:
        measures = {**_TAKEN, _TIME: seconds}.items()
        taken = {name: [measure(clean, v, window, block[v]) for v in row] for name, measure in measures}
        known = {name: [seed for seed in seeds if seed] for name, seeds in taken.items() if None not in seeds}
        figures = {name: _within(name, window, over_seeds(seeds)) for name, seeds in known.items()}
        values = {name: [value for value, _, _ in seeds] for name, seeds in known.items()}
        read = {"perplexity": [rows[v] for v in row]}
        if _OLD in figures:
            read[_OLD] = [block[v][v.original_window] for v in row]
        contenders.append(Contender(names[row[0]], row, read, figures, values))
    return Contest(budget, window, contenders)


def _within(measure: str, window: int, figure: Bounded) -> Bounded:
    """With an interval of what can be."""
    value, low, high = figure
    return value, max(low, 0.0), min(high, {"k_max": window, "passkeys found": 1.0}.get(measure, high))


def k_max_over(seeds: Sequence[Bounded], window: int) -> Bounded:
    """The mean over seeds."""
    return _within("k_max", window, over_seeds(seeds))


def k_max(clean: Clean, variant: Variant, window: int, _: ByWindow | None = None) -> Bounded | None:
    """k_max with its interval, from the depths on record."""
    row, tried = summaries(clean).get(variant, {}).get(window), _depths(clean, variant, window)
    return (row.k_max, *k_max_interval(tried)) if row and tried else None


def passkeys_found(clean: Clean, variant: Variant, window: int, _: ByWindow | None = None) -> Bounded | None:
    """Their share, with its exact interval."""
    tried = _depths(clean, variant, window)
    return _share(tried) if any(row.trials for row in tried) else None


def _share(tried: list[Passkey]) -> Bounded:
    right, trials = sum(row.successes for row in tried), sum(row.trials for row in tried)
    return (right / trials, *share_interval(right, trials))


def _depths(clean: Clean, variant: Variant, window: int) -> list[Passkey]:
    return [m.row for m in clean.of(Passkey) if m.row.window == window and m.model_variant == variant]


def _read(row: Perplexity | None) -> Bounded | None:
    return None if row is None or not number_format.is_finite(row.perplexity) else (row.perplexity, *row.bounds)


_TAKEN: dict[str, Callable[[Clean, Variant, int, ByWindow], Bounded | None]] = {
    "k_max": k_max,
    "passkeys found": passkeys_found,
    "perplexity": lambda _, __, window, rows: _read(rows.get(window)),
    _OLD: lambda _, variant, __, rows: _read(rows.get(variant.original_window)),
}
