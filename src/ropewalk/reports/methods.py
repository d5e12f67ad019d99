"""The winner among methods: by k_max at the longest window, then by passkeys found and by perplexity there, and only as far as intervals tell.

in   states of one base model that were trained on as many tokens
out  who is ahead, or who cannot be told apart, by which measure, and who is ahead by the others
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ropewalk.records import format as number_format
from ropewalk.records.recipe import differing
from ropewalk.reports.comparable import Group, short_data
from ropewalk.reports.contenders import MEASURES, OLD, Contender, Ranking, ranked

#: How one is ahead by a measure, where, and how its figures are written.
_AHEAD: dict[str, tuple[str, str, Callable[[float], str]]] = {
    "k_max": ("reaches farther", "", number_format.count),
    "passkeys found": ("finds more passkeys", "", number_format.share),
    OLD: ("reads better", "at {old} tokens ", number_format.perplexity),
    "perplexity": ("reads better", "at {window} ", number_format.perplexity),
}
#: Said wherever a winner is, or none.
RULE = "Rule: k_max, then passkeys found, then perplexity; not the old window, not cost."


@dataclass(frozen=True)
class Contest:
    """Methods on one text, at one window and factor, after one budget. amount: of training, 0 before it."""

    group: Group
    budget: str
    amount: int
    window: int
    contenders: list[Contender]
    untrained: list[Contender] = field(default_factory=list)
    elsewhere: list[Contest] = field(default_factory=list)  # trained on as many tokens of other texts
    larger: Contest | None = None  # of the largest budget beyond this one
    others: int = 0  # that are compared by themselves, since they differ from this one in `others_differ`
    others_differ: dict[str, str] = field(default_factory=dict)  # in what, and what theirs are

    @cached_property
    def ranking(self) -> Ranking:
        """See `ranked`."""
        return ranked(self.contenders)

    @property
    def settings(self) -> list[str]:
        """The settings in which the trainings of these methods differ."""
        return differing([each.variants[0].recipe for each in self.contenders])

    @property
    def leader(self) -> Contender:
        """The winner, or the best of those that cannot be told apart."""
        return self.ranking.level[0]

    @property
    def headline(self) -> str:
        """For the page's heading: who won, and among which."""
        return self._outcome(self._of_what)

    def _outcome(self, among: str = "") -> str:
        if len(self.ranking.level) > 1:
            return f"no winner at {self.window} tokens{among}"
        worse = ", worse than before its training" if self.worsened else ""
        return f"{self.leader.label} wins by {self.ranking.briefly} at {self.window} tokens{among}{worse}"

    @property
    def _of_what(self) -> str:
        """The text, where perplexity decides, since nothing else is of it; and the budget."""
        text = short_data(self.group.data) if self.ranking.measure == "perplexity" else ""
        validation = "the validation text " if self.group.is_validation else ""
        return f"{f' of {validation}{text}' if text else ''} {'after ' * (self.amount > 0)}{self.budget}"

    @cached_property
    def worsened(self) -> str:
        """By which measures training made the leader worse at the longest window, beyond chance, in a sentence; nothing where it did not."""
        leader = self.leader
        alike = [each for each in self.untrained if _method(each) == _method(leader) and leader.variants[0].steps]
        lost = [
            f"{measure} {leader.told_beside(before, measure)}"
            for before in alike[:1]
            for measure in MEASURES
            if {measure} <= before.figures.keys() & leader.figures.keys() and before.leads(leader, measure)
        ]
        return f" Training made {leader.label} worse at {self.window} tokens: {'; '.join(lost)}." if lost else ""

    @property
    def sentence(self) -> str:
        """Who won by what, or why nobody did; what is paired comes first, since that is what decides."""
        level, measure = self.ranking.level, self.ranking.measure
        ways = " and ways of training" if any(each.variants[0].recipe.way for each in self.contenders) else ""
        among = f"{len(self.contenders)} methods{ways} at {self.window} tokens{self._of_what}"
        further = f"{self.worsened}{self._variants(measure)}{self._elsewhere}{self._larger} {RULE}"
        if len(level) > 1:
            names = [f"{level[0].label} ({level[0].told(measure)})"]
            paired = [f"{each.above(level[0])}; " if measure == "perplexity" else "" for each in level[1:]]
            names += [
                f"{each.label} ({above}{each.told(measure)})" for each, above in zip(level[1:], paired, strict=True)
            ]
            return f"No winner among {among}: intervals of {', '.join(MEASURES)} do not tell apart {', '.join(names)}.{further}"
        following = self.ranking.following
        figures = f"{level[0].told(measure)}, against {following.told(measure)} of {following.label}"
        above = f"{level[0].above(following)}; " if measure == "perplexity" else ""
        but = "".join(f". Yet {each}" for each in self._ahead_otherwise)
        return f"Of {among}, {level[0].label} wins by {self.ranking.by}: {above}{figures}{but}.{further}"

    def _variants(self, measure: str) -> str:
        """Which methods have several variants, and what the others of the leader have."""
        several = [each for each in self.contenders if each.other_variants]
        if not several:
            return ""
        total = len(several) + sum(len(each.other_variants) for each in several)
        whose = f"{len(several)} method{'s' if len(several) > 1 else ''}"
        write = MEASURES[measure]
        known = [each for each in self.leader.other_variants if measure in each.figures]
        others = ", ".join(f"{each.label} {write(each.figures[measure][0])}" for each in known)
        place = "others of" if self.leader.by_validation else "behind"
        own = f"; {place} {self.leader.label} by {measure}: {others}" if others else ""
        ways = dict.fromkeys("on validation" if each.by_validation else "by these figures" for each in several)
        return f" Of {whose} {total} variants were measured; the best {' or '.join(ways)} stands for its method{self._shared(several)}{own}."

    def _shared(self, several: Sequence[Contender]) -> str:
        """What was searched and came out the same for all methods, which their labels leave out."""
        searched = differing([each.variants[0].recipe for one in several for each in (one, *one.other_variants)])
        told = [self.leader.variants[0].recipe.told(fact) for fact in searched if fact not in self.settings]
        return f" ({', '.join(filter(None, told))} for all)" if any(told) else ""

    @property
    def _ahead_otherwise(self) -> list[str]:
        """By which of the other measures the winner is behind beyond chance, and behind whom, of several the best."""
        ways = dict[str, dict[str, list[str]]]()
        for measure, (verb, *_) in _AHEAD.items():
            known = [each for each in self.contenders if measure in each.figures.keys() & self.leader.figures.keys()]
            ahead = [each for each in known if each is not self.leader and each.leads(self.leader, measure)]
            if ahead:
                best = max(ahead, key=lambda each: each.score(measure))
                ways.setdefault(best.label, {}).setdefault(verb, []).append(self._place(best, self.leader, measure))
        return [f"{label} {_listed(by_verb)}" for label, by_verb in ways.items()]

    def _place(self, one: Contender, other: Contender, measure: str) -> str:
        """Where one is ahead of another, and by which figures."""
        _, where, write = _AHEAD[measure]
        its, others = (write(each.figures[measure][0]) for each in (one, other))
        return f"{where.format(old=one.variants[0].original_window, window=self.window)}({its} against {others})"

    def _ahead(self, one: Contender, other: Contender) -> str:
        """By which measures one is ahead of another beyond chance, in words."""
        ways = dict[str, list[str]]()
        for measure, (verb, *_) in _AHEAD.items():
            if measure in one.figures.keys() & other.figures.keys() and one.leads(other, measure):
                ways.setdefault(verb, []).append(self._place(one, other, measure))
        return _listed(ways)

    @property
    def _larger(self) -> str:
        """What the largest budget says, in a sentence: who is ahead after it, or of a method alone what the further training changed."""
        if self.larger is None:
            return ""
        if len(self.larger.contenders) > 1:
            return f" After {self.larger.budget}: {self.larger._outcome()}."
        one = self.larger.leader
        fewer = f"{'after ' * (self.amount > 0)}{self.budget}"
        said = f" After {self.larger.budget} {one.label} alone was measured"
        way = one.variants[0].method_and_way
        same = [e for e in self.contenders if _method(e) == _method(one) and e.variants[0].method_and_way == way]
        if not same or same[0].variants[0].recipe.data != one.variants[0].recipe.data:  # or the text changed it
            return f"{said}."
        better, worse = self._ahead(one, same[0]), self._ahead(same[0], one)
        ways = [f"it {better} than {fewer}"] * bool(better) + [f"{fewer} it {worse}"] * bool(worse)
        return f"{said}: {', but '.join(ways) or f'no measure tells it from itself {fewer}'}."

    @property
    def _elsewhere(self) -> str:
        """Who is ahead among those trained on other texts, in a sentence each; and how many more groups the tables have."""
        sentences = "".join(f" With {each.budget}: {each._outcome()}." for each in self.elsewhere)
        if not self.others:
            return sentences
        *first, last = (f"{name} ({theirs})" for name, theirs in self.others_differ.items())
        differ = f"{', '.join(first)} or {last}" if first else last
        return f"{sentences} Left to the tables: {number_format.counted(self.others, 'group')} of another {differ}."


def _method(contender: Contender) -> tuple:
    """What a method is before and after its training."""
    variant = contender.variants[0]
    return variant.lineage, variant.scaling, variant.window, variant.recipe.word


def _listed(ways: dict[str, list[str]]) -> str:
    """Verbs with their places."""
    return " and ".join(f"{verb} {' and '.join(places)}" for verb, places in ways.items())
