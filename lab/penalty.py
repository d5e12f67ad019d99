"""The paper's open question: does a penalty on |h_j| in pretraining let a model extrapolate?

in   lab/records/penalty/hemp-STEPS-hWEIGHT-sSEED, the rows of models that differ in the penalty's weight and the seed alone (recipes/hemp/penalty.py)
out  Markdown; losses are paired with those of the model of the same seed without the penalty, on the same documents
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from claims import HELD, verdict
from rows import Row, base_of, rows_in
from run import content
from tables import bounded, table
from trained_states import states

from ropewalk.evals.intervals import over_seeds, perplexity_over_seeds
from ropewalk.records import format as number_format
from ropewalk.records.attention_summary import Gist, gist
from ropewalk.records.format import fixed
from ropewalk.reports.paired import Bounded, ratio
from ropewalk.sentences import joined

#: The weights, seeds and steps of the recipe; the page knows of no others.
GRID = content()["penalty"]


@dataclass(frozen=True)
class Model:
    """One pretrained model: as it is, and interpolated by factor."""

    base: Row
    interpolated: dict[float, Row]

    @property
    def states(self) -> list[Gist]:
        """Its scores inside the window and beyond it."""
        return [gist(state, self.base.window) for state in states(self.base)[:2]]

    def row(self, times: int, interpolated: bool) -> Row:
        return self.interpolated[times] if interpolated else self.base


@dataclass(frozen=True)
class Question:
    """A loss at so many times the window beside the same one without the penalty, and up to how many nats above it the answer is yes."""

    text: str
    times: int
    interpolated: bool = False
    most: float = 0.0

    def nats(self, model: Model, without: Model) -> Bounded | None:
        after, before = (
            each.row(self.times, self.interpolated).perplexities[self.times * each.base.window]
            for each in (model, without)
        )
        return ratio(before, after).nats

    def cell(self, pairs: Iterable[tuple[Model, Model]]) -> str:
        value, low, high = over_seeds([self.nats(*pair) for pair in pairs])
        return f"{verdict(low, high, -math.inf, self.most)}: {bounded(fixed(value, 3), low, high, lambda end: fixed(end, 3))}"


QUESTIONS = (
    Question("Its own window hardly suffers: nats at L above those without, held up to 0.02", 1, most=0.02),
    Question("Extrapolation to twice the window is better: nats at 2 L, held below 0", 2),
    Question("Extrapolation to four times is better: nats at 4 L, held below 0", 4),
    Question("Interpolation to twice, untrained, is better: nats at 2 L, held below 0", 2, interpolated=True),
    Question("Interpolation to four times, untrained, is better: nats at 4 L, held below 0", 4, interpolated=True),
)


def models_in(records: Path) -> dict[float, dict[int, Model]]:
    """By weight and seed; of a weight of which not every seed was measured nothing."""
    found: dict[float, dict[int, Model]] = {}
    for weight in GRID["weights"]:
        directories = {seed: records / f"penalty/hemp-{GRID['steps']}-h{weight:g}-s{seed}" for seed in GRID["seeds"]}
        models = {seed: model for seed, directory in directories.items() if (model := _model(rows_in(directory)))}
        if len(models) == len(directories):
            found[weight] = models
    return found


def _model(rows: list[Row]) -> Model | None:
    base = base_of(rows)
    interpolated = {row.asked["factor"]: row for row in rows if row.asked["method"] == "linear"}
    return Model(base, interpolated) if base is not None and {2, 4} <= set(interpolated) else None


def absent(records: Path) -> Iterable[str]:
    """What of the question was never run: all of it without models of two weights, of which 0 is one; else weights."""
    found = models_in(records)
    if lacking := [f"{weight:g}" for weight in GRID["weights"] if weight not in found]:
        words = f"of weight {joined(lacking)} by seeds {joined(GRID['seeds'])}"
        question = "a model pretrained with a penalty on |h_j|, the paper's open question"
        yield f"the penalty on |h_j| {words}" if _paired(found) else f"{question} (models {words} are not all there)"


def _paired(found: dict[float, dict[int, Model]]) -> dict[float, list[tuple[Model, Model]]]:
    """Of each weight above 0 its models, each with the one of its seed without the penalty."""
    without = found.get(0.0)
    if not without:
        return {}
    return {
        weight: [(model, without[seed]) for seed, model in models.items()] for weight, models in found.items() if weight
    }


def section(records: Path) -> str:
    """What each weight reads, and the verdicts; nothing without models of both kinds."""
    found = models_in(records)
    paired = _paired(found)
    if not paired:
        return ""
    window = next(iter(found[0.0].values())).base.window
    heads = ["weight", "seeds", *(f"perplexity {times * window}" for times in (1, 2, 4))]
    heads += [
        *(f"PI, {times * window}" for times in (2, 4)),
        "largest \\|h_j\\|",
        f"highest score below {window}",
        "from there on",
    ]
    lines = [_line(weight, list(models.values())) for weight, models in found.items()]
    told = [f"weight {weight:g}, {len(pairs)} seed{'s' * (len(pairs) > 1)}" for weight, pairs in paired.items()]
    answers = [[question.text, *map(question.cell, paired.values())] for question in QUESTIONS]
    about = (
        "Section 2.2 of the paper: with a ridge on the coefficients h_j of a score a(s) = Re Σ h_j exp(i s θ_j) a fit stays bounded beyond the distances it was fitted on; it knows of no pretraining that does so, and leaves it open. "
        f"Here hemp is pretrained with and without weight × Σ_j |h_j|² / d added to its loss, the mean over layers, heads and pairs of a query and a key ([pretrain.py](../recipes/hemp/pretrain.py)): the same corpus, the same rows in {GRID['steps']} steps, the same first weights a seed "
        f"(`python recipes/hemp/penalty.py --corpus build/hemp`). Nothing is fine-tuned. Held-out modules, stride half a window, {window} tokens is L; perplexities and scores are means over seeds, |h_j| and scores in the softmax's unit, of one document, beyond {window} as it is at {4 * window}."
    )
    return f"### A penalty on |h_j| in pretraining, hemp\n\n{conclusion(found)}\n\n{about}\n\n{table(heads, lines)}\n\n{_ANSWERS}\n\n{table(['question', *told], answers)}"


def conclusion(found: dict[float, dict[int, Model]]) -> str:
    """What the largest weight gives beyond the window, and of what models that is."""
    weight, models = max(found), list(found[max(found)].values())
    without, one = list(found[0.0].values()), models[0].base
    read, plain = ([_perplexity(each, times)[0] for times in (1, 2, 4)] for each in (models, without))
    loss, *ends = over_seeds([ratio(*(m.base.perplexities[t * m.base.window] for t in (1, 2))).nats for m in models])
    rise = bounded(fixed(loss, 3), *ends, lambda end: fixed(end, 3))
    at_1, at_2, at_4 = (number_format.perplexity(value) for value in read)
    other_2, other_4 = (number_format.perplexity(value) for value in plain[1:])
    return (
        f"A penalty of {weight:g} lets a model read twice its window about as well as its window: {at_2} at {2 * one.window} beside {at_1} at {one.window}, {rise} nats above it, where the model without reads {other_2}. "
        f"It ends there: at four times it reads {at_4} (without {other_4}), what is farther than {one.window} tokens is not shown to be of use to it, Position Interpolation by four is not shown to gain by it (the last question below), "
        f"and all of this is of {one.parameters / 1e6:.1f} million parameters, Python source, a window of {one.window} tokens and {len(models)} seeds."
    )


_ANSWERS = (
    "Beside the model of the same seed without it, paired over documents; in brackets the 95 % interval for other documents and other seeds. "
    f"{HELD} if all of it keeps to the bound, **did not** if none of it does, else open:"
)


def _perplexity(models: list[Model], times: int, interpolated: bool = False) -> Bounded:
    """At so many times the window, in the mean over seeds."""
    read = [model.row(times, interpolated).perplexities[times * model.base.window] for model in models]
    return perplexity_over_seeds([(each.perplexity, *each.bounds) for each in read])


def _line(weight: float, models: list[Model]) -> list[str]:
    def perplexity(times: int, interpolated: bool) -> str:
        value, low, high = _perplexity(models, times, interpolated)
        return bounded(number_format.perplexity(value), low, high, number_format.perplexity)

    def mean(figure: Callable[[Model], float]) -> str:
        return fixed(sum(map(figure, models)) / len(models), 1)

    scores = [mean(lambda model: model.states[0].largest_h), mean(lambda model: model.states[0].inside), mean(lambda model: model.states[1].beyond)] if all(len(model.states) == 2 for model in models) else ["", "", ""]  # fmt: skip
    plain, read = [perplexity(times, False) for times in (1, 2, 4)], [perplexity(times, True) for times in (2, 4)]
    return [f"{weight:g}" if weight else "none", str(len(models)), *plain, *read, *scores]
