"""What became of the short window, that of pretraining: by the first measure that was taken there of the model and its base alike; else which one is missing, and what takes it.

in   clean rows, the perplexities of one text, the seeds of one training
out  the end of a sentence of the verdict
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ropewalk.evals.intervals import perplexity_over_seeds, share_over_seeds
from ropewalk.records import Perplexity
from ropewalk.records import format as number_format
from ropewalk.records.recipe import of_no_machine
from ropewalk.records.variant import Variant
from ropewalk.reports import benchmarks, comparable, contenders, damage, long_context, passkey, retrieval, training
from ropewalk.reports.paired import Bounded, Ratio, asked_apart, both_read, over, ratio
from ropewalk.reports.rows import Clean

#: Tokens of the prompts, what was asked in them, and the share that was right, from 0 to 1: shares compare where the first two agree.
Asked = tuple[int, tuple, Bounded]


@dataclass(frozen=True)
class Measure:
    """Something that prompts of one length ask for.

    Attributes:
        taken: of a variant, at each length.
        called: by what was asked.
        figure: what its share is called, and how it is written.
        command: what asks the same, with a place for the model's name, by length and what was asked.
    """

    taken: Callable[[Clean, Variant], Iterator[Asked]]
    called: Callable[[tuple], str]
    figure: str
    write: Callable[[float], str]
    command: Callable[[int, tuple], str]


def _of_ruler(clean: Clean, variant: Variant) -> Iterator[Asked]:
    if row := long_context.broadest(clean).get(variant):
        for at in row.by_window:
            yield at["window"], (row.measure, *row.tasks), (at["score"], at["low"], at["high"])


def _of_retrieval(clean: Clean, variant: Variant) -> Iterator[Asked]:
    for window in retrieval.windows(clean, [variant]):
        if share := retrieval.share(clean, [variant], window):
            yield window, tuple(sorted(row.family for row in retrieval.rows_of(clean, variant, window))), share


def _of_passkeys(clean: Clean, variant: Variant) -> Iterator[Asked]:
    for window in passkey.summaries(clean).get(variant, {}):
        if share := contenders.passkeys_found(clean, variant, window):
            yield window, contenders.depths_asked(clean, variant, window), share


#: The first decides; a perplexity goes before all of them.
_MEASURES = (
    Measure(_of_ruler, lambda asked: asked[0], "its mean score", lambda share: number_format.fixed(100 * share, 1),
            lambda window, asked: f"ruler {{}} --windows {window}" + (f" --tasks {' '.join(asked[1:])}" if asked[0] != "RULER" else "")),
    Measure(_of_retrieval, lambda _: "harder retrieval", "the share answered right", lambda share: number_format.share(share, 1),
            lambda window, asked: f"retrieval {{}} --window {window} --families {' '.join(asked)}"),
    Measure(_of_passkeys, lambda _: "passkeys", "the share found", lambda share: number_format.share(share, 1),
            lambda window, asked: f"passkey {{}} --window {window} --depths {len(asked)}"),
)  # fmt: skip


@dataclass(frozen=True)
class _Taken:
    """One measure at one length: before is the base's figure, after that of the seeds; None where it was not taken of them."""

    measure: Measure
    window: int
    asked: tuple
    before: Bounded | None
    after: Bounded | None

    def told(self, base: str) -> str:
        """What became of the short window by it. base: as a command names it."""
        measure, write = self.measure, self.measure.write
        where = f"; the short window is known by {measure.called(self.asked)}: at {self.window} tokens {measure.figure}"
        assert self.after is not None
        if self.before is None:
            bounds = number_format.interval(*self.after[1:], write)
            return f"{where} is {write(self.after[0])} (95\u202f% interval {bounds}), and its base was not asked the same (ropewalk {self.command.format(base)})"
        change, low, high = asked_apart(self.before, self.after)
        bounds = number_format.interval(low, high, number_format.points)
        return f"{where} went {write(self.before[0])}\u00a0→\u00a0{write(self.after[0])}, {number_format.points(change)} points (95\u202f% interval {bounds})"

    @property
    def command(self) -> str:
        """What asks the same, with a place for the model's name."""
        return self.measure.command(self.window, self.asked)


def sentence_end(clean: Clean, group: comparable.Group | None, seeds: Sequence[Variant]) -> str:
    """What became of the short window, and why that is not known where it is not. group: of the perplexities by which it may be known."""
    target = seeds[0]
    if by_perplexity := _by_perplexity(clean, group, seeds):
        return by_perplexity
    if rise := next(filter(None, (training.worse(seed, training.trainings(clean)) for seed in seeds)), ""):
        return f"; by the watch of its training {rise}"
    bases = [v for v in clean.variants if v.role == "base" and not v.steps and v.lineage == target.lineage]
    base = _typed(bases[0]) if bases else (shlex.quote(target.base) if target.base else "BASE")
    taken = [each for measure in _MEASURES for each in _taken(clean, measure, bases, seeds)]
    if both := next((each for each in taken if each.before and each.after), None):
        return both.told(base)
    if any(each.variant == target for each in benchmarks.changes(clean)):
        return f"; of the short window of {target.original_window} tokens its benchmarks tell"
    if alone := next((each for each in taken if each.after), None):
        return alone.told(base)
    if group is not None:
        return _lacking(clean, group, target, base)
    if of_base := next(iter(taken), None):
        what = f"{of_base.measure.called(of_base.asked)} at {of_base.window} tokens"
        return f"; what became of the short window is not known: {what} were asked of its base alone ({_command(target, of_base.command)})"
    both_by = _perplexity(target, target.original_window, target.window)
    return f"; what became of the short window of {target.original_window} tokens was not measured ({both_by}, and the same of {base})"


def _taken(clean: Clean, measure: Measure, bases: Sequence[Variant], seeds: Sequence[Variant]) -> Iterator[_Taken]:
    """A measure at each length up to the short window, the longest first."""
    found: list[dict[tuple[int, tuple], list[Bounded]]] = []
    for variants in (bases, seeds):
        found.append({})
        for window, asked, share in (each for variant in variants for each in measure.taken(clean, variant)):
            if window <= seeds[0].original_window:
                found[-1].setdefault((window, asked), []).append(share)
    before, after = found
    for key in sorted(before.keys() | after.keys(), key=lambda key: (-key[0], key[1])):
        yield _Taken(
            measure, *key, next(iter(before.get(key, [])), None), share_over_seeds(after[key]) if key in after else None
        )


def _by_perplexity(clean: Clean, group: comparable.Group | None, seeds: Sequence[Variant]) -> str:
    """By the one window at which both were measured; nothing where there is none, or no document there that both read."""
    pairs = [damage.short_pair(group, seed) for seed in seeds if seed in group.variants()] if group else []
    short, pair = seeds[0].original_window, pairs[0] if pairs else None
    if not pair:
        return ""
    at = pair[0].window
    alike = [each if each and each[0].window == at else None for each in pairs]
    figures = moved(pair[0], [each[1] for each in alike if each])
    if not figures:
        return ""
    change = over([each and ratio(*each) for each in alike])
    moves = f"its perplexity went {figures}{f', {change}' if change else ''}{_taught(clean, group, seeds, change)}"
    if unfilled := pair[1].unfilled:
        moves = f"({unfilled}) {moves}"
    if at == short:
        return f". At the short window of {short} tokens {moves}"
    return (
        f". Within the short window of {short} tokens it and its base were both measured at {at} at most: there {moves}"
    )


def _lacking(clean: Clean, group: comparable.Group, target: Variant, base: str) -> str:
    """Of which of the two a perplexity at the short window is missing."""
    if pair := damage.short_pair(group, target):
        return f"; what became of the short window is not known, for at {pair[0].window} tokens it and its base read no document in common (measure both with the same --data and --limit)"
    short, measured, has_base = target.original_window, group.variants().get(target, {}), group.base_row()
    lacking = "its base" if short in measured else "it" if has_base else "neither it nor its base"
    verb = "was" if lacking.startswith("neither") else "was not"
    command = {
        "its base": f"ropewalk perplexity {base} --data … --windows {short}",
        "it": _perplexity(target, short),
    }.get(lacking, f"{_perplexity(target, short)}, and the same of {base}")
    return f"; what became of the short window is not known, for {lacking} {verb} measured at {short} tokens{_elsewhere(clean, group)}, and other windows do not tell ({command})"


def _perplexity(variant: Variant, *windows: int) -> str:
    """The command that measures it."""
    return _command(variant, f"perplexity {{}} --data … --windows {' '.join(map(str, windows))}")


def _command(variant: Variant, behind: str) -> str:
    """With the model's name in it. Of a row of `ablate`, whose model is gone once it is measured, the command that makes it again and measures what tells most."""
    if variant.recipe.base and variant.extended:
        return "ropewalk ablate … --measure perplexity"
    return f"ropewalk {behind.format(_typed(variant))}"


def _typed(variant: Variant) -> str:
    """As a command names it; of a row of `ablate` the model that it starts from."""
    named = variant.recipe.base or "models--" in variant.name
    return shlex.quote(variant.short_name if named else of_no_machine(variant.name))


def _taught(clean: Clean, group: comparable.Group | None, seeds: Sequence[Variant], change: Ratio | None) -> str:
    """Of a fall in the old window after training, that the text brought it: the longer window cannot. Nothing where a control tells how much."""
    fell = change is not None and change.high < 1
    if group is None or not fell or not seeds[0].steps:
        return ""
    runs = training.trainings(clean)
    if any(damage.above_control(group, seed, runs) for seed in seeds if seed in group.variants()):
        return ""
    return ": what training on such text brings, not the longer window"


def _elsewhere(clean: Clean, group: comparable.Group) -> str:
    """Of what text alone the base was measured in its own window, where it was not of this one."""
    others = [each for each in comparable.groups(clean) if each.lineage == group.lineage and each.base_row()]
    if group.base_row() or not others:
        return ""
    names = [each.title if each.data == group.data else comparable.short_data(each.data) for each in others]
    return f" of {comparable.short_data(group.data)} (it was of {', '.join(dict.fromkeys(names))}, which tells nothing of this text)"


def moved(before: Perplexity, inside: Sequence[Perplexity]) -> str:
    """From the base's to the mean of these seeds, each of the documents that both read; nothing where a seed and the base share none."""
    pairs = [both_read(before, row) for row in inside]
    ends = [[(pair[at].perplexity, *pair[at].bounds) for pair in pairs if pair] for at in (0, 1)]
    if None in pairs:
        return ""
    return "\u00a0→\u00a0".join(number_format.perplexity(perplexity_over_seeds(rows)[0]) for rows in ends)
