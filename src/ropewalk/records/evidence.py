"""What the lab measured nearest to a model and its scaling, in sentences, for whoever is about to choose; and where that ends.

in   evidence.json, which `make results` writes from the lab's records; a model as it is to be
out  sentences
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Any

from ropewalk.checkpoint.model_info import ModelInfo
from ropewalk.records.format import signed
from ropewalk.rope.scaling import to_dict
from ropewalk.sentences import counted, joined, share

#: 2^20 training tokens.
_MILLION = 2**20


@dataclass(frozen=True)
class Figures:
    """What was found after so many training tokens, in the mean over seeds.

    Attributes:
        damage: loss in the old window above the base's, nats a token.
        inside, passkeys: shares of keys found in the old window, and in the new one; least, most: the latter's, by seed. k_max: in the new one, tokens.
        digits_inside, digits: shares of the keys' digits; None where they are not on record.
        steps, batch_size, learning_rate: as it was trained; 0 untrained.
    """

    damage: float
    inside: float
    passkeys: float
    least: float
    most: float
    seeds: int
    digits_inside: float | None = None
    digits: float | None = None
    k_max: int = 0
    steps: int = 0
    batch_size: int = 0
    learning_rate: float = 0.0

    @property
    def found(self) -> str:
        """The share of keys found in the new window, and the least and the largest seed where they differ."""
        mean, least, most = map(share, (self.passkeys, self.least, self.most))
        if self.seeds == 1:
            return mean
        by_seed = "" if least == most else f", by seed from {least} to {most}"
        return f"{mean} ({self.seeds} seeds{by_seed})"

    def __str__(self) -> str:
        return f"{signed(self.damage, 2)} nats in the old window, {share(self.inside)} of passkeys there{_digits(self.digits_inside)}, {self.found} in the new one{_digits(self.digits)}, k_max {self.k_max}"


def _digits(right: float | None) -> str:
    """Behind a share of keys, in words."""
    return "" if right is None else f" (digits {share(right)})"


@dataclass(frozen=True)
class Case:
    """One model by one scaling, as the lab measured it.

    Attributes:
        model: with that scaling, called by its base's name.
        as_it_was: the share of passkeys that the base finds in its own window; digits: that of their digits.
        budgets: training tokens → what was found.
        weights: which of its published weights were measured, and from what they were made; empty where they are the model's own.
    """

    model: ModelInfo
    as_it_was: float
    digits: float | None
    budgets: dict[int, Figures]
    weights: str = ""

    def __str__(self) -> str:
        return (
            f"{self.model.name}{f' ({self.weights})' * bool(self.weights)}, {self.model.original_window} to {self.model.window} tokens, which finds {share(self.as_it_was)} of passkeys{_digits(self.digits)} in "
            "its own window before any extension"
        )

    @property
    def most_trained(self) -> int:
        """Training tokens of the largest budget; 0 where it was measured untrained alone."""
        return max(self.budgets)


@dataclass(frozen=True)
class Training:
    """What of a training is held against those on record; None: not settled."""

    mode: str
    tokens: int | None = None
    learning_rate: float | None = None


@functools.cache
def cases() -> tuple[Case, ...]:
    """All that evidence.json has."""
    text = resources.files("ropewalk.records").joinpath("evidence.json").read_text(encoding="utf-8")
    return tuple(
        Case(
            ModelInfo.from_dict(case["model"]),
            case["as_it_was"],
            case["digits"],
            {int(tokens): Figures(**figures) for tokens, figures in case["budgets"].items()},
            case["weights"],
        )
        for case in json.loads(text)
    )


def nearest(info: ModelInfo) -> Case | None:
    """The case of the same method and parameters that is nearest by RoPE base, old window and factor; None where there is none.

    Args:
        info: the model as it is to be.
    """
    return next((case for case in _of_method(info) if not _other_parameters(case, info)), None)


def nearest_trained(info: ModelInfo) -> Case | None:
    """Of those that were trained too, the nearest if it has this factor, else of its base and old window the one that was trained longest.

    Args:
        info: the model as it is to be.
    """
    same = [case for case in _of_method(info) if case.most_trained and not _other_parameters(case, info)]
    if not same:
        return None
    *of_model, factor = _geometry(same[0].model)
    if factor == _geometry(info)[-1]:
        return same[0]
    return max((case for case in same if [*_geometry(case.model)][:-1] == of_model), key=lambda case: case.most_trained)


def _of_method(info: ModelInfo) -> list[Case]:
    """The cases of a method, whatever its parameters, the nearest first."""

    def distance(case: Case) -> float:
        pairs = zip(_geometry(case.model), _geometry(info), strict=True)
        return sum(abs(math.log(measured / here)) for measured, here in pairs)

    return sorted((case for case in cases() if case.model.method == info.method), key=distance)


def evidence(info: ModelInfo, training: Training | None = None) -> str:
    """What was measured of a model's scaling, on which model, and in what this one is outside of that.

    Args:
        info: the model as it is to be. training: what it is to be trained on, if that is known.
    """
    case = nearest(info)
    if case is None:
        others = [_other_parameters(other, info) for other in _of_method(info)[:1]]
        return f"not measured{''.join(f' with {joined(each)}' for each in others)} (docs/results.md has what was)"
    by_budget = "; ".join(f"{_budget(case, tokens)}: {figures}" for tokens, figures in sorted(case.budgets.items()))
    beyond = outside(case, info, training)
    return (
        f"measured {'nearest ' if beyond else ''}on {case}: {by_budget} (all figures of a budget are of one seed where no more are said in it; a passkey counts where all its digits are right; digits count singly, 10\u202f% by chance; docs/results.md has the other methods)"
        f"{beyond and f'; {beyond}'}"
    )


def outside(case: Case, info: ModelInfo, training: Training | None = None) -> str:
    """In what a model, or a training, is not as in a case, so that its figures are no measurement of it; empty where it is."""
    apart = [
        f"{what} {here} (measured: {there})" for what, here, there in _compared(case, info, training) if here != there
    ]
    return f"here it is an extrapolation: {joined(apart)}" if apart else ""


def _geometry(info: ModelInfo) -> tuple[float, float, float]:
    """RoPE base, old window, factor: by what cases are near; 1 for a base where nothing rotates."""
    return info.rope_theta or 1.0, info.original_window, info.window / info.original_window


def _other_parameters(case: Case, info: ModelInfo) -> list[str]:
    """The parameters in which a scaling is not the measured one; those that are relative to the model are carried over to it."""
    asked, measured = to_dict(info.scaling), to_dict(case.model.scaling)
    for name in ("rope_theta", "original_window"):  # ABF's base, Llama 3's thresholds
        if name in measured:
            measured[name] *= getattr(info, name) / getattr(case.model, name)
    names = sorted((asked.keys() | measured.keys()) - {"method", "factor"})
    return [
        f"{name} {_written(asked.get(name))} (measured: {_written(measured.get(name))})"
        if not isinstance(measured.get(name), tuple)
        else f"{name} (measured: as searched for {case.model.name})"
        for name in names
        if _written(asked.get(name)) != _written(measured.get(name))
    ]


def _written(value: Any) -> str:
    if value is None:
        return "by the method's rule"
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _compared(case: Case, info: ModelInfo, training: Training | None) -> Iterator[tuple[str, str, str]]:
    """What is compared, here, in the case."""
    for what, written in (
        ("family", lambda model: model.family),
        ("weights", lambda model: _weights(model.parameters or case.model.parameters)),  # 0 where nobody counted them
        ("RoPE base", lambda model: f"{model.rope_theta:.10g}"),
        ("rotated coordinates a head", lambda model: str(model.head_dim)),
        ("old window", lambda model: str(model.original_window)),
        ("factor", lambda model: f"{model.window / model.original_window:.3g}"),
    ):
        yield what, written(info), written(case.model)
    before = info.all_steps  # tokens are not on record in a config; no case began from a model that was trained so
    yield "trained before for", counted(before, "step"), counted(0, "step")
    if training is None:
        return
    yield "mode", training.mode, "full"
    if training.tokens is None:
        return
    budgets = sorted(filter(None, case.budgets))
    known = training.tokens in budgets and not before
    there = joined(map(in_tokens, budgets)) if budgets else "none"
    yield (
        f"training tokens{' now' if before else ''}",
        in_tokens(training.tokens),
        in_tokens(training.tokens) if known else there,
    )
    if training.learning_rate and budgets:
        alike = min(budgets, key=lambda tokens: abs(math.log(tokens / training.tokens)))
        yield "learning rate", f"{training.learning_rate:g}", f"{case.budgets[alike].learning_rate:g}"


def _weights(parameters: int) -> str:
    return f"{parameters / 1e9:.3g}B" if parameters >= 1e9 else f"{parameters / 1e6:.3g}M"


def in_tokens(number: int) -> str:
    """5M, 512k."""
    return f"{number / _MILLION:.3g}M" if number >= _MILLION else f"{number / 2**10:.3g}k"


def _budget(case: Case, tokens: int) -> str:
    return (
        f"after {in_tokens(tokens)} training tokens at a rate of {case.budgets[tokens].learning_rate:g}"
        if tokens
        else "untrained"
    )
