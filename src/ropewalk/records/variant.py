"""Which variant of a model was measured, and what that variant is called on a page.

in   a run's model (ModelInfo) and the window of the row
out  a Variant: base, extrapolation, PI before or after training, or another method by name

A checkpoint's config decides, never its directory's name: an unscaled model read past its own window is extrapolation, a
linear scaling without a fine-tuning step is PI before training.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from ropewalk.checkpoint.model_info import ModelInfo
from ropewalk.records import format as number_format
from ropewalk.records.recipe import CONTROL, NAMES, UNKNOWN, Recipe, place
from ropewalk.records.rows import Run
from ropewalk.rope.scaling import Linear, Plain, Scaling

K = TypeVar("K")


@dataclass(frozen=True)
class Variant:
    """One variant of one base model.

    Attributes:
        role: "base", "extrapolation", "untrained" (extended, no step taken) or "trained" (extended, then trained; also a
            base trained at a longer window, which is direct fine-tuning).
        scaling: with all its parameters, as far as they are on record.
        original_window, window: tokens; before any extension, and now.
        steps: fine-tuning steps taken since the extension.
        lineage: what an extension leaves as it was; variants of one lineage come from one base model.
        name: as the user named the checkpoint.
        fingerprint: of config, tokenizer and every weight; empty where it is not on record. Two models of one name are two variants.
        recipe: how it was trained, as far as that is on record.
        base: what it was made from is called; empty of a base, and where that is not on record.
    """

    role: str
    scaling: Scaling
    original_window: int
    window: int
    steps: int
    lineage: tuple
    name: str
    fingerprint: str = ""
    recipe: Recipe = Recipe()
    base: str = field(default="", compare=False)

    @property
    def short_name(self) -> str:
        """The name where space is short: a hub id as it is, from its cache too; a path by its last part; of a row of `ablate` the model that it starts from."""
        if self.recipe.base:
            return self.recipe.base
        if cached := re.search(r"models--([^/]+)--([^/]+)/snapshots/", self.name):
            return f"{cached[1]}/{cached[2]}"
        parts = [part for part in self.name.replace("\\", "/").split("/") if part not in ("", ".")]
        is_path = self.name.startswith((".", "/", "~")) or len(parts) > 2
        return parts[-1] if is_path and parts else self.name

    @property
    def base_name(self) -> str:
        """What a page calls a model: as its base is called; where nothing says that, by family and size, since directories are nobody's name."""
        if self.base or self.role == "base":
            return self.base or self.short_name
        family, *_, parameters = self.lineage
        return f"a {family} model" + (f" of {number_format.large(parameters)} parameters" if parameters else "")

    @property
    def extended(self) -> bool:
        return self.role in ("untrained", "trained")

    @property
    def is_control(self) -> bool:
        """Whether it is a control, trained in its own window and interpolated afterwards: its config counts no step since."""
        return self.role == "untrained" and self.recipe.word == CONTROL

    def is_before(self, trained: Variant) -> bool:
        """Whether it is what another one was before its training: the very model that this began from and did not extend, or one that was extended alike."""

        def kind(variant: Variant) -> tuple:
            return variant.lineage, variant.scaling, variant.window, variant.recipe.word

        if trained.role == "untrained" or kind(self) != kind(trained):
            return False
        return self._began(trained) or (self.role == "untrained" and self.recipe.earlier == trained.recipe.earlier)

    def _began(self, trained: Variant) -> bool:
        return bool(self.fingerprint) and self.fingerprint == trained.recipe.start

    @property
    def method(self) -> str:
        return self.scaling.method

    @property
    def factor(self) -> float:
        """How much longer the window is. Direct fine-tuning leaves the rotation alone; its factor is that of the windows."""
        return self.window / self.original_window if self.method == Plain.method else self.scaling.factor

    @property
    def method_and_factor(self) -> str:
        return f"{self.method_label} ×{self.factor:.4g}{self.recipe.by_way}"

    @property
    def training_title(self) -> str:
        """What its training is called: the method, to which window, and on top of what."""
        return f"{self.method_and_factor} to {self.window}{self.recipe.after}"

    @property
    def method_label(self) -> str:
        """What its method is called."""
        return NAMES.get(self.recipe.word, self.scaling.label)

    @property
    def method_and_way(self) -> str:
        """What competes with others: a method, trained in one way."""
        return f"{self.method_label}{self.recipe.by_way}"

    @property
    def series(self) -> tuple:
        """What the seeds of one training have in common, and its checkpoints: a colour in every figure."""
        return (
            self.lineage,
            self.role,
            self.scaling,
            self.window,
            self.recipe.word,
            self.recipe.facts,
            self.recipe.earlier,
        )

    @property
    def training(self) -> tuple:
        """What the checkpoints of one training have in common, and nothing else has."""
        return (self.series, self.recipe.seed, place(self.name))

    @property
    def is_worse(self) -> bool:
        """Whether its training went back from it to an earlier checkpoint, which it left."""
        return 0 < self.recipe.left < self.steps

    @property
    def label(self) -> str:
        """What a legend or a table calls it. The name is left out: add it where two variants share a label."""
        if not self.extended:
            control = self.method_label if self.recipe.word else ""
            more = f", {number_format.steps(self.steps)}{'' if control else ' more'}" if self.steps else ""
            return f"{control or 'base'}{more}" + (", extrapolating" if self.role == "extrapolation" else "")
        if self.is_control:
            steps = self.recipe.steps(self.original_window)
            return f"{self.method_label}{f', {number_format.steps(steps)}' if steps else ''}, interpolated"
        if self.steps == 0:
            return f"{self.method_and_factor}, {self.recipe.before}"
        return f"{self.method_and_factor}, {number_format.steps(self.steps)}{' more' if self.recipe.earlier else ''}"

    @property
    def order(self) -> tuple:
        """Base first, then by method (PI before the others), factor, steps."""
        place = {Plain.method: 0, Linear.method: 1}.get(self.method, 2)
        return (
            str(self.lineage),
            self.extended,
            place,
            self.method,
            self.recipe.word,
            self.factor,
            self.window,
            self.steps,
            self.role,
        )


def variant_of(model: ModelInfo, window: int | None = None, recipe: Recipe = UNKNOWN) -> Variant:
    """The variant that a row was measured in. `window` is the row's, if the row has one. recipe: how its model was trained, if it was."""
    if model.method != Plain.method or model.window > model.original_window:
        untouched = "extrapolation" if model.method == Plain.method else "untrained"
        role = "trained" if model.steps else untouched
    else:
        role = "extrapolation" if window is not None and window > model.window else "base"
    trained = model.steps or (role == "untrained" and recipe.word == CONTROL)
    recipe = recipe if recipe.earlier else dataclasses.replace(recipe, earlier=model.earlier)
    return Variant(
        role=role,
        scaling=model.scaling,
        original_window=model.original_window,
        window=model.window,
        steps=model.steps,
        lineage=(model.family, model.original_window, model.head_dim, model.parameters),
        name=model.name,
        fingerprint=model.fingerprint,
        recipe=recipe if trained else dataclasses.replace(recipe, facts=(), seed=None),
        base=recipe.base or model.base,
    )


def trained_variant(model: ModelInfo, recipe: Recipe = UNKNOWN) -> Variant:
    """The variant that a training run works towards; its header describes the checkpoint it started from."""
    start = dataclasses.replace(variant_of(model), recipe=recipe)
    return dataclasses.replace(start, role="trained") if start.role in ("untrained", "extrapolation") else start


def made_variant(run: Run, recipe: Recipe) -> Variant:
    """The same, by the name of what it left, where that is on record: several trainings begin from one model."""
    goal = trained_variant(run.model, recipe)
    return dataclasses.replace(goal, name=str(run.settings.get("out", goal.name)))


def befores(trained: Variant, variants: Iterable[Variant]) -> list[Variant]:
    """What a training began from, of these: the very model first, then that of its own place, then others that were extended alike."""
    alike = [variant for variant in variants if variant.is_before(trained)]
    return sorted(alike, key=lambda v: (not v._began(trained), place(v.name) != place(trained.name)))


def seeds_of_rows(variants: Sequence[Variant]) -> list[list[Variant]]:
    """The variants of each row of a table, in order: one, or those that differ in their seed alone."""
    alike: dict[tuple, list[Variant]] = {}
    for variant in dict.fromkeys(variants):
        alike.setdefault((variant.series, variant.steps), []).append(variant)
    rows: list[list[Variant]] = []
    for group in alike.values():
        seeds = {variant.recipe.seed for variant in group}
        rows += [group] if None not in seeds and len(seeds) == len(group) else [[variant] for variant in group]
    return rows


def labels(
    variants: Sequence[Variant],
    *,
    one_by_one: bool = False,
    always: Sequence[str] = (),
    called: Callable[[Variant], str] = lambda variant: variant.label,
) -> dict[Variant, str]:
    """variant → a label that is unique among these, but for seeds, which share a row: where two share one what differs is added.

    That is the window, then each fact of the training, the seed, the name, the fingerprint. `one_by_one`: seeds have labels of their own. `always`: facts that are added whether or not two share a label. `called`: what each is called to begin with.
    """
    rows = [[variant] for variant in dict.fromkeys(variants)] if one_by_one else seeds_of_rows(variants)
    unique = told_apart({row[0]: called(row[0]) for row in rows}, lambda variant: variant, always)
    seeds = {row[0]: f", {len(row)} seeds" if len(row) > 1 else "" for row in rows}
    return {variant: unique[row[0]] + seeds[row[0]] for row in rows for variant in row}


def told_apart(names: dict[K, str], variant_of_key: Callable[[K], Variant], always: Sequence[str] = ()) -> dict[K, str]:
    """Names made unique by what is known of their variants, in the order in which `labels` lists it; with the facts that are to stand there always, and the base of each where they are of several."""
    several = len({variant_of_key(key).lineage for key in names}) > 1
    facts = dict.fromkeys(fact for key in names for fact, _ in variant_of_key(key).recipe.facts if fact not in always)
    extras: list[Callable[[Variant], str]] = [
        lambda v: f"window {v.window}",
        *(lambda v, fact=fact: v.recipe.told(fact) for fact in facts),
        lambda v: "" if v.recipe.seed is None else f"seed {v.recipe.seed}",
        lambda v: v.name,
        lambda v: v.fingerprint[:6] or "unknown weights",
    ]
    unique = {}
    for key, label in names.items():
        variant = variant_of_key(key)
        told = [variant.base_name] * several + [variant.recipe.told(fact, label) for fact in always]
        unique[key] = " ".join([label, *(f"({each})" for each in told if each)])
    for extra in extras:
        shared: dict[str, set[str]] = {}
        for key, label in unique.items():
            shared.setdefault(label, set()).add(extra(variant_of_key(key)))
        unique = {
            key: f"{label} ({told})" if len(shared[label]) > 1 and (told := extra(variant_of_key(key))) else label
            for key, label in unique.items()
        }
    return unique


def last_steps(variants: Sequence[Variant]) -> list[Variant]:
    """Of the checkpoints of one training only the last, of those that it left; what was measured before training stays beside it."""
    last = {v.training: v.steps for v in sorted(variants, key=lambda v: (not v.is_worse, v.steps))}
    return [variant for variant in variants if variant.steps == last[variant.training]]
