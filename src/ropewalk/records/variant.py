"""Which variant of a model was measured, and what that variant is called on a page.

in   a run's model (ModelInfo) and the window of the row
out  a Variant: base, extrapolation, PI before or after training, or another method by name

A checkpoint's config decides, never its directory's name: an unscaled model read past its own window is extrapolation, a
linear scaling without a fine-tuning step is PI before training.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ropewalk.checkpoint.model_info import ModelInfo
from ropewalk.rope.scaling import Linear, Plain, Scaling


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
    """

    role: str
    scaling: Scaling
    original_window: int
    window: int
    steps: int
    lineage: tuple
    name: str
    fingerprint: str = ""

    @property
    def short_name(self) -> str:
        """The name where space is short: a hub id as it is, a path by its last part."""
        parts = [part for part in self.name.replace("\\", "/").split("/") if part not in ("", ".")]
        is_path = self.name.startswith((".", "/", "~")) or len(parts) > 2
        return parts[-1] if is_path and parts else self.name

    @property
    def extended(self) -> bool:
        return self.role in ("untrained", "trained")

    @property
    def method(self) -> str:
        return self.scaling.method

    @property
    def factor(self) -> float:
        """How much longer the window is. Direct fine-tuning leaves the rotation alone; its factor is that of the windows."""
        return self.window / self.original_window if self.method == Plain.method else self.scaling.factor

    @property
    def method_and_factor(self) -> str:
        return f"{self.scaling.label} ×{self.factor:.4g}"

    @property
    def series(self) -> tuple:
        """What the checkpoints of one training have in common: a line, and a colour, in every figure."""
        return (self.lineage, self.role, self.scaling, self.window)

    @property
    def label(self) -> str:
        """What a legend or a table calls it. The name is left out: add it where two variants share a label."""
        if self.role == "base":
            return "base" if self.steps == 0 else f"base, {_steps(self.steps)} more"
        if self.role == "extrapolation":
            return "base, extrapolating"
        if self.steps == 0:
            return f"{self.method_and_factor}, before training"
        return f"{self.method_and_factor}, {_steps(self.steps)}"

    @property
    def order(self) -> tuple:
        """Base first, then by method (PI before the others), factor, steps."""
        place = {Plain.method: 0, Linear.method: 1}.get(self.method, 2)
        return (str(self.lineage), self.extended, place, self.method, self.factor, self.window, self.steps, self.role)


def _steps(number: int) -> str:
    return f"{number} step{'s' if number != 1 else ''}"


def variant_of(model: ModelInfo, window: int | None = None) -> Variant:
    """The variant that a row was measured in. `window` is the row's, if the row has one."""
    if model.method != Plain.method or model.window > model.original_window:
        untouched = "extrapolation" if model.method == Plain.method else "untrained"
        role = "trained" if model.steps else untouched
    else:
        role = "extrapolation" if window is not None and window > model.window else "base"
    return Variant(
        role=role,
        scaling=model.scaling,
        original_window=model.original_window,
        window=model.window,
        steps=model.steps,
        lineage=(model.family, model.original_window, model.head_dim, model.parameters),
        name=model.name,
        fingerprint=model.fingerprint,
    )


def trained_variant(model: ModelInfo) -> Variant:
    """The variant that a training run works towards; its header describes the checkpoint it started from."""
    start = variant_of(model)
    return dataclasses.replace(start, role="trained") if start.role in ("untrained", "extrapolation") else start


def labels(variants: list[Variant]) -> dict[Variant, str]:
    """variant → a label that is unique among these: where two share one the window is added, then the name, then the fingerprint."""
    unique = {variant: variant.label for variant in variants}
    for extra in (lambda v: f"window {v.window}", lambda v: v.name, lambda v: v.fingerprint[:6] or "unknown weights"):
        shared: dict[str, set[str]] = {}
        for variant, label in unique.items():
            shared.setdefault(label, set()).add(extra(variant))
        unique = {
            variant: f"{label} ({extra(variant)})" if len(shared[label]) > 1 else label
            for variant, label in unique.items()
        }
    return unique


def last_steps(variants: list[Variant]) -> list[Variant]:
    """Of the checkpoints of one training only the last; what was measured before training stays beside it."""
    last: dict[tuple, int] = {}
    for variant in variants:
        last[variant.series] = max(last.get(variant.series, 0), variant.steps)
    return [variant for variant in variants if variant.steps == last[variant.series]]
