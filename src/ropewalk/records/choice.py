"""Why a command takes the method that it takes: the rule of `--method auto`, and where a model's own figures go against it.

in   a model as it is or is to be, the word of `--method`, the cases of evidence.py
out  a method; sentences

A model is known by the fields of its config that are compared (`evidence.outside`), never by its weights: a fine-tune counts as what it was tuned from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ropewalk.checkpoint.model_info import ModelInfo
from ropewalk.records.evidence import Case, Training, evidence, in_tokens, nearest, outside
from ropewalk.records.format import signed
from ropewalk.rope.scaling import InterpolatedTable, Linear, Plain, Yarn
from ropewalk.sentences import joined, share

#: Why `auto` takes YaRN; tests/docs/test_lab.py holds that against the records.
_RULE = "on smollm2-135m at factor 4, of those that find most of the passkeys, it loses least in the old window"


@dataclass(frozen=True)
class _Rivals:
    """YaRN and Position Interpolation as one model was measured by both, by one factor."""

    yarn: Case
    linear: Case

    @property
    def budgets(self) -> list[int]:
        """Training tokens after which both were measured."""
        return sorted(self.yarn.budgets.keys() & self.linear.budgets.keys())

    @property
    def favour_linear(self) -> bool:
        """Whether interpolation loses less in the old window and finds no fewer passkeys in the new one, after each number of tokens."""
        pairs = [(self.linear.budgets[tokens], self.yarn.budgets[tokens]) for tokens in self.budgets]
        return all(pi.damage < yarn.damage and pi.passkeys >= yarn.passkeys for pi, yarn in pairs)

    def are_of(self, model: ModelInfo) -> bool:
        """Whether a model of its config was measured, by whatever factor; not where nobody counted its weights."""
        window = round(model.original_window * self.yarn.model.window / self.yarn.model.original_window)
        return bool(model.parameters) and not outside(self.yarn, replace(model, window=window))

    def against(self, model: ModelInfo) -> str:
        """That they are against YaRN, for a model, and their figures."""
        measured = self.yarn.model.name
        alike = f"{measured}, a model of this config, did better by linear than by yarn"
        near = f"on {measured}, which is nearest, linear did better, so that it is not decided here"
        return f"{alike if self.are_of(model) else near}: {self}"

    def __str__(self) -> str:
        one_seed = all(case.budgets[tokens].seeds == 1 for case in (self.yarn, self.linear) for tokens in self.budgets)
        seeds = "; of one seed, in which a small difference decides nothing" * one_seed
        return f"nats lost in the old window and passkeys found in the new one are {joined(map(self._after, self.budgets))}{seeds}"

    def _after(self, tokens: int) -> str:
        pi, yarn = (
            f"{signed(figures.damage, 3)} and {share(figures.passkeys)}"
            for figures in (self.linear.budgets[tokens], self.yarn.budgets[tokens])
        )
        return f"{pi} against {yarn} {f'after {in_tokens(tokens)} training tokens' if tokens else 'untrained'}"


def against_yarn(model: ModelInfo) -> _Rivals | None:
    """What was measured nearest to a model by YaRN and by interpolation, where the latter does better; None where it does not, or one was not measured.

    Args:
        model: by its window as it is to be, whatever its method.
    """
    factor = model.window / model.original_window
    yarn = nearest(replace(model, scaling=Yarn(factor)))
    linear = yarn and nearest(replace(yarn.model, scaling=Linear(yarn.model.factor)))
    if not (yarn and linear) or replace(linear.model, scaling=yarn.model.scaling) != yarn.model:
        return None
    rivals = _Rivals(yarn, linear)
    return rivals if rivals.favour_linear else None


def settled(method: str, parameters: Mapping[str, Any], model: ModelInfo, window: int) -> str:
    """The word of `--method`; for `auto` interpolation where it would come to YaRN and the figures of a model of this config are against that.

    Args:
        parameters: given beside the word. model: as it is. window: that it is to have, tokens.
    """
    if method != "auto" or parameters or not isinstance(model.scaling, Plain):
        return method
    rivals = against_yarn(replace(model, window=window))
    return Linear.method if rivals and rivals.are_of(model) else method


def of_choice(asked: str, info: ModelInfo, training: Training | None = None) -> str:
    """The method that a command took, as `choice` says it, and what was measured of it, as `evidence` does."""
    return f"{choice(asked, info)}: {evidence(info, training)}"


def choice(asked: str, info: ModelInfo) -> str:
    """The method that a command took, whether it was asked for by name, and what of the evidence is for it and against it.

    Args:
        asked: the word of `--method`. info: the model as it is to be.
    """
    method, is_open = info.method, asked != info.method != InterpolatedTable.method
    rivals = against_yarn(info) if method in (Linear.method, Yarn.method) else None
    if method == Linear.method:
        if not (rivals and rivals.are_of(info)):
            return method
        reasons = [rivals.against(info), f"elsewhere it takes --method {Yarn.method}"] * is_open
    else:
        reasons = [_RULE] * (is_open and method == Yarn.method) + ([rivals.against(info)] if rivals else [])
        reasons += ["the paper's Position Interpolation is --method linear"] * is_open
    told = f" ({'; '.join(reasons)})" if reasons else ""
    return f"{method}{f', which {asked} takes here' * is_open}{told}"
