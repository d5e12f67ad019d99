"""What the page can use of its records, and what has to be said about the rest.

in   records.Records: measurements as they stood in the files
out  Clean: of what was measured twice the newest, headers of one model agreed on its size; and counts of everything that was
     left out or does not belong together
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from ropewalk.evals.intervals import Paired, documents_interval, perplexity_interval, share_interval
from ropewalk.figures.style import palette
from ropewalk.records import (
    Adjacent,
    AttentionScores,
    Benchmark,
    BenchmarkComparison,
    ContextGain,
    LeftOut,
    LongTask,
    Measurement,
    ModelInfo,
    Passkey,
    PasskeySummary,
    Perplexity,
    Records,
    Retrieval,
    Row,
    Run,
    Step,
)
from ropewalk.records.paper import METHODS as METHODS_OF_PAPER
from ropewalk.records.recipe import ablated, is_same_place, is_training, place
from ropewalk.records.variant import Variant, trained_variant
from ropewalk.records.whole import missing
from ropewalk.reports.same_names import Text, apart
from ropewalk.reports.same_states import as_begun, is_look, known_by, same_controls, same_states, saved_since

R = TypeVar("R")
T = TypeVar("T")
A = ParamSpec("A")

# The fields that say what was measured; two rows of one variant that agree in them measured the same thing twice.
_SETTINGS: dict[type, tuple[str, ...]] = {
    Perplexity: ("window", "stride", "convention", "data", "bos"),
    ContextGain: ("window", "short", "stride", "data", "bos", "evaluator"),
    Passkey: ("window", "k"),
    PasskeySummary: ("window",),
    AttentionScores: ("window", "layer", "data"),
    Adjacent: ("window", "layer", "data"),
    Retrieval: ("window", "family"),
    LongTask: ("window", "task", "rule"),
    Benchmark: ("task",),
}
# How much was measured: where these differ, the newer row is not the same measurement again.
_EXTENT = ("documents", "tokens", "trials", "depths", "texts", "items")


@dataclass
class Clean:
    """Measurements fit to print, and what was left out. `paper`: whether the paper's figures stand beside them, as they do where one of its methods was measured."""

    runs: dict[str, Run]
    measurements: list[Measurement[Row]]
    left_out: LeftOut = field(default_factory=LeftOut)
    repeated: Counter[str] = field(default_factory=Counter)
    replaced: int = (
        0  # of those repeated, how many gave way to a row over other texts, or more or fewer tokens or trials
    )

    paper: bool = True
    unfinished: list[str] = field(default_factory=list)  # rows of `ablate` that are not whole, in a sentence each
    same_names: dict[str, list[Text]] = field(default_factory=dict)  # names that stand for several texts each
    same_states: list[str] = field(default_factory=list)  # what was taken for one, in a sentence each
    commands: dict[str, list[str]] = field(default_factory=dict)  # as in `Records`
    looks: frozenset[str] = frozenset()  # runs whose figures are of a model in training, by its watch
    answers: dict[tuple, Any] = field(default_factory=dict, init=False, repr=False, compare=False)  # of `once`

    def of(self, kind: type[R]) -> list[Measurement[R]]:
        """The measurements whose row is of this class."""
        return Records(self.runs, self.measurements).of(kind)

    @property
    def variants(self) -> list[Variant]:
        """Those of which a row is on the page, in the order of the rows."""
        return list(dict.fromkeys(m.model_variant for m in self.measurements))

    @functools.cached_property
    def bases(self) -> dict[tuple, str]:
        """Lineage → what its base is called."""
        return {v.lineage: v.base_name for v in sorted(self.variants, key=lambda v: v.role == "base")}

    def base_of(self, lineage: tuple) -> str:
        """What the base of a lineage is called, where the page is of several; else nothing, for then the heading says it."""
        return self.bases[lineage] if len(self.bases) > 1 else ""

    def titled(self, title: str, variants: Iterable[Variant]) -> str:
        """A title of what is of one base, with that base behind it where the page is of several; labels name bases only where one list has several."""
        bases = {base for v in variants if (base := self.base_of(v.lineage))}
        return f"{title}; {bases.pop()}" if len(bases) == 1 else title

    def about(self, lineage: tuple, sentence: str) -> str:
        """A sentence with its base before it where the page is of several, since methods of all of them are called the same."""
        base = self.base_of(lineage)
        return f"Of {base}: {sentence[0].lower()}{sentence[1:]}" if base else sentence

    @functools.cached_property
    def colours(self) -> dict[tuple, str]:
        """Each variant's colour on this page."""
        variants = [variant for m in self.measurements for variant in (m.variant, m.model_variant)]
        return palette(dict.fromkeys([*variants, *(trained_variant(m.run.model, m.recipe) for m in self.of(Step))]))

    @property
    def used_runs(self) -> list[Run]:
        """The runs that have a row on the page, oldest first."""
        used = {m.run.id for m in self.measurements}
        return sorted((run for run in self.runs.values() if run.id in used), key=lambda run: run.started)

    def commands_of(self, run: Run) -> list[str]:
        """The command that began a run, and those that went on with it: a resumption alone cannot be repeated without the run's directory."""
        return list(dict.fromkeys(self.commands.get(run.id, [run.command])))


def once(ask: Callable[Concatenate[Clean, A], T]) -> Callable[Concatenate[Clean, A], T]:
    """What many parts of a page ask of its rows is worked out once and kept beside them; nobody changes what is handed out."""

    @functools.wraps(ask)
    def answer(clean: Clean, *args: A.args, **kwargs: A.kwargs) -> T:
        key = (ask, *args, *sorted(kwargs.items()))
        if key not in clean.answers:
            clean.answers[key] = ask(clean, *args, **kwargs)
        return clean.answers[key]

    return answer


def clean(records: Records, *, paper: bool = True) -> Clean:
    """Keep the newest of what was measured twice, and have headers of one model agree on its parameters and its fingerprint; texts of one name are set apart. A row of `ablate` that is not whole is left out, lest it be ranked."""
    lacks = missing(records.runs.values(), records.measurements, records.left_out.unknown.total())
    whole = [m for m in records.measurements if m.run.id not in lacks]
    runs, rows, same_names = apart(_with_fingerprints(_with_parameters(records.runs)), whole)
    by_place = {place(str(run.settings["out"])): run for run in runs.values() if is_training(run)}
    made_by = {key: _trained_by(run, by_place) for key, run in runs.items()}
    # The steps of a training are of itself, and its header's model is what it began from.
    measurements = [
        Measurement(exact(m.row), run := runs[m.run.id], None if is_training(run) else made_by[run.id]) for m in rows
    ]
    looks = frozenset(m.run.id for m in measurements if is_look(m, records.commands))
    begun = [(run, earlier) for run in runs.values() if is_training(run) and (earlier := made_by[run.id])]
    saved = saved_since(measurements, looks, begun)
    measurements = as_begun([Measurement(m.row, known_by(m.run, saved), m.trained_by) for m in measurements])
    same, told = same_states(measurements, _asked)
    runs, of_controls = same_controls(runs | {m.run.id: known_by(m.run, same) for m in measurements})
    measurements = [Measurement(m.row, runs[m.run.id], m.trained_by) for m in measurements]
    page = Clean(runs, measurements, records.left_out, paper=paper, same_names=same_names, same_states=told + of_controls, commands=records.commands, looks=looks)  # fmt: skip
    unfinished = {ablated(records.runs[run]).get("name"): what for run, what in lacks.items()}
    page.unfinished = [
        f"{n} {what}, and is left out: rows of ablate are compared whole." for n, what in unfinished.items()
    ]
    page.measurements = _newest(page)
    page.measurements = _of_one_test(page)
    page.paper = paper and any(_is_of_paper(m.model_variant) for m in page.measurements)
    return page


def _is_of_paper(variant: Variant) -> bool:
    """Whether it was extended by a method that the paper has figures of: else nothing of the paper's compares."""
    return variant.extended and variant.method in METHODS_OF_PAPER


def exact(row: Any) -> Any:
    """A row with the interval that its counts or documents give, whatever is on record: the oldest hold Wilson's, Newcombe's and the bootstrap's, which are narrower than they say."""
    counts = {
        Benchmark: lambda: (row.correct, row.items),
        Retrieval: lambda: (row.successes, row.trials),
        LongTask: lambda: (row.score * row.items, row.items),
        PasskeySummary: lambda: (row.found, row.prompts),
    }
    if isinstance(row, BenchmarkComparison):
        low, high = Paired(0, row.lost, row.gained, row.items - row.lost - row.gained).interval()
    elif isinstance(row, Perplexity | ContextGain):
        if row.estimate or not row.per_document or not math.isfinite(row.low + row.high):
            return row
        low, high = _over_documents(row)
    elif type(row) in counts:
        low, high = share_interval(*counts[type(row)]())
    else:
        return row
    return dataclasses.replace(row, low=low, high=high)


def _over_documents(row: Perplexity | ContextGain) -> tuple[float, float]:
    """The interval of a perplexity or a gain, from the losses of its documents."""
    read: list[Any] = [each for each in row.per_document if each["tokens"]]
    is_gain = isinstance(row, ContextGain)
    totals = [each["short_nll"] - each["nll"] if is_gain else each["nll"] for each in read]
    low, high = documents_interval(np.array(totals), np.array([each["tokens"] for each in read]))
    return (low, high) if is_gain else perplexity_interval(low, high)


def _trained_by(run: Run, by_place: dict[str, Run]) -> Run | None:
    """The run that trained the model of a header: by its place; where that is written otherwise, the one training of such a place, scaling and window."""
    own = place(run.model.name)
    if own in by_place:
        return by_place[own]
    model = (run.model.scaling, run.model.window)
    alike = [
        training
        for out, training in by_place.items()
        if is_same_place(out, own) and (training.model.scaling, training.model.window) == model
    ]
    return alike[0] if len(alike) == 1 else None


def _with_parameters(runs: dict[str, Run]) -> dict[str, Run]:
    """A header written without loading the model says 0 parameters; take the count from its siblings if they agree."""
    return _filled(runs, "parameters", lambda model: (model.family, model.original_window, model.head_dim))


def _with_fingerprints(runs: dict[str, Run]) -> dict[str, Run]:
    """Headers of earlier versions have no fingerprint; take that of the one model on record that is called and scaled the same."""
    return _filled(runs, "fingerprint", lambda model: (model.name, model.scaling, model.window, model.steps))


def _filled(runs: dict[str, Run], field: str, sibling: Callable[[ModelInfo], tuple]) -> dict[str, Run]:
    """Where a header's model says nothing (0, "") of a field, what its siblings say, if they say one thing."""
    said: dict[tuple, set[Any]] = {}
    for run in runs.values():
        said.setdefault(sibling(run.model), set()).add(getattr(run.model, field))
    filled = dict(runs)
    for key, run in runs.items():
        others = {value for value in said[sibling(run.model)] if value}
        if not getattr(run.model, field) and len(others) == 1:
            model = dataclasses.replace(run.model, **{field: next(iter(others))})
            filled[key] = dataclasses.replace(run, model=model)
    return filled


def _newest(page: Clean) -> list[Measurement[Row]]:
    """Of figures measured twice in the same variant the newest; an estimate gives way to the exact figure."""
    kept: dict[Any, Measurement[Row]] = {}
    for m in page.measurements:
        settings = _SETTINGS.get(type(m.row))
        if settings is None:
            kept[m] = m
            continue
        key = (type(m.row), m.variant, *(getattr(m.row, name) for name in settings))
        if key in kept:
            page.repeated[m.row.kind] += 1
            page.replaced += _extent(kept[key].row) != _extent(m.row)
            kept[key] = kept[key] if _rank(kept[key]) > _rank(m) else m
        else:
            kept[key] = m
    return list(kept.values())


def _asked(row: Row) -> tuple | None:
    """What a row is a figure of, with how much was measured; None of what cannot be measured twice."""
    settings = _SETTINGS.get(type(row))
    return settings and (type(row), *(getattr(row, name) for name in settings), *_extent(row))


def _extent(row: Row) -> list[Any]:
    return [getattr(row, name, None) for name in _EXTENT]


def _rank(m: Measurement[Row]) -> tuple[bool, str]:
    return (not getattr(m.row, "estimate", False), m.run.started)


def _of_one_test(page: Clean) -> list[Measurement[Row]]:
    """Depths of the passkey test that is shown alone: k_max is of one test, whose depths are not to be mixed with another's."""
    tests = {_test(m): m.run.id for m in page.of(PasskeySummary)}
    mixed: set[Measurement[Any]] = {m for m in page.of(Passkey) if tests.get(_test(m), m.run.id) != m.run.id}
    if mixed:
        page.repeated[Passkey.kind] += len(mixed)
    return [m for m in page.measurements if m not in mixed]


def _test(m: Measurement[Passkey | PasskeySummary]) -> tuple[Variant, int]:
    return (m.variant, m.row.window)
