"""One model that is on record as two: by fingerprints that cover the tokenizer's files too, which versions of a library write differently; by that of a model in training, before it is saved; by the factor of a control.

in   measurements, texts of one name set apart; headers
out  what a state is known by instead, and in a sentence why
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from ropewalk.records import Measurement, Perplexity, Row, Run
from ropewalk.records.recipe import CONTROL, recipe_of
from ropewalk.records.variant import Variant
from ropewalk.sentences import counted

#: What of a row says how it was measured, not what.
_ASIDE = ("seconds", "peak_bytes")


def same_states(
    measurements: Iterable[Measurement[Row]], asked: Callable[[Row], tuple | None]
) -> tuple[dict[str, str], list[str]]:
    """Fingerprint → the older one that it is taken for; and what the page says of each such pair.

    Two states that differ in nothing but the fingerprint are one where every figure that was asked of both alike is equal to every digit, a perplexity of the same documents among them.

    Args:
        asked: what a row was asked, documents included; None of what is no measurement.
    """
    states: dict[Variant, dict[tuple, dict[str, Any]]] = {}
    for m in sorted(measurements, key=lambda m: m.run.started):
        if m.model_variant.fingerprint and (question := asked(m.row)):
            said = {name: value for name, value in vars(m.row).items() if name not in _ASIDE}
            states.setdefault(m.model_variant, {})[question, m.run.seed] = said
    same, told, kept = dict[str, str](), list[str](), list[Variant]()
    for state, rows in states.items():
        alike = (each for each in kept if replace(each, fingerprint="") == replace(state, fingerprint=""))
        older = next((each for each in alike if _is_same(states[each], rows)), None)
        if older is None:
            kept.append(state)
            continue
        same[state.fingerprint] = older.fingerprint
        told.append(
            f"{state.short_name} has two fingerprints on record ({older.fingerprint[:6]}, {state.fingerprint[:6]}) and is one state here: all that both were measured for alike "
            f"({counted(len(states[older].keys() & rows.keys()), 'row')}, perplexity among them) is equal to every digit. A fingerprint also covers the tokenizer's files, as one version of a library wrote them."
        )
    return same, told


def _is_same(older: dict[tuple, dict[str, Any]], rows: dict[tuple, dict[str, Any]]) -> bool:
    both = older.keys() & rows.keys()
    read = any(question[0] is Perplexity and rows[question, seed]["texts"] for question, seed in both)
    return read and all(older[key] == rows[key] for key in both)


def is_look(m: Measurement[Row], commands: dict[str, list[str]]) -> bool:
    """Whether a figure is of a model in training, by its watch, and no measurement by itself. commands: of each run."""
    trained_by = m.trained_by
    return trained_by is not None and m.run.id != trained_by.id and m.run.command in commands.get(trained_by.id, ())


def as_begun(measurements: Sequence[Measurement[Row]]) -> list[Measurement[Row]]:
    """With the state before a training that extended nothing as the model that it began from, where that was measured by itself: one state, by the digest on record of the training and by window and scaling."""

    def key(m: Measurement[Row], fingerprint: str) -> tuple:
        return fingerprint, m.run.model.scaling, m.run.model.window

    def start(m: Measurement[Row]) -> str:
        return m.recipe.start if m.trained_by and not m.run.model.steps else ""

    own = {key(m, m.run.model.fingerprint): m for m in reversed(measurements) if m.run.model.fingerprint}
    begun = ((m, own.get(key(m, start(m))) if start(m) else None) for m in measurements)
    return [Measurement(m.row, replace(m.run, model=one.run.model), one.trained_by) if one else m for m, one in begun]


def saved_since(
    measurements: Iterable[Measurement[Row]], watched: frozenset[str], begun: Iterable[tuple[Run, Run]]
) -> dict[str, str]:
    """Fingerprint of a model that a watch looked at, before its weights were rounded and saved → the one by which it was measured since, or trained further.

    Args:
        begun: trainings, and by place the earlier one of what each began from.
    """
    looks, saved = dict[tuple[str, int], str](), dict[tuple[str, int], str]()
    for run, earlier in begun:
        if run.model.all_steps and earlier.started < run.started:  # else its start is what the earlier one began from
            saved[earlier.id, run.model.all_steps] = recipe_of(run).start
    for m in measurements:
        if m.trained_by is not None and m.run.id != m.trained_by.id and m.run.model.fingerprint:
            by_step = looks if m.run.id in watched else saved
            by_step[m.trained_by.id, m.run.model.all_steps] = m.run.model.fingerprint
    return {fingerprint: saved[key] for key, fingerprint in looks.items() if saved.get(key)}


def known_by(run: Run, same: dict[str, str]) -> Run:
    """The run of a state that is taken for another, by that one's fingerprint."""
    known = same.get(run.model.fingerprint)
    return replace(run, model=replace(run.model, fingerprint=known)) if known else run


def same_controls(runs: dict[str, Run]) -> tuple[dict[str, Run], list[str]]:
    """Headers in which the controls of a grid's factors are one state, since a factor is nothing to a training in the old window; and what the page says where their weights differ."""
    first, known, told = dict[tuple, Run](), dict(runs), dict[str, None]()
    for key, run in sorted(runs.items(), key=lambda item: item[1].started):
        recipe, model = recipe_of(run), run.model
        if recipe.word != CONTROL or not model.fingerprint:
            continue
        one = first.setdefault((recipe, model.scaling, model.window, model.steps), run).model
        if model.name == one.name:
            continue
        known[key] = replace(run, model=replace(model, name=one.name, fingerprint=one.fingerprint))
        if one.fingerprint != model.fingerprint:
            told[
                f"{model.name} is taken for {one.name}: the same training of the same seed, though rounding left other weights."
            ] = None
    return known, list(told)
