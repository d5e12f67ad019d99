"""Which state of a model a row was measured in, and what that state is called on a page.

in   a run's header (its `model`, a ModelInfo) and the window of the row
out  a State: base, extrapolation, PI before or after training, or another method by name

A checkpoint's own words decide, never its directory's name: "plain" read past its own window is extrapolation, "linear"
without a fine-tuning step is PI before training.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

# What a method is called where a reader meets it. "linear" is the config's word for Position Interpolation.
METHODS = {
    "plain": "direct fine-tuning",
    "linear": "PI",
    "ntk": "NTK",
    "dynamic": "dynamic NTK",
    "yarn": "YaRN",
    "llama3": "Llama 3 scaling",
    "longrope": "LongRoPE",
}
# What the paper calls the same thing in its tables.
IN_THE_PAPER = {"plain": "FT", "linear": "PI"}
ROLES = ("base", "extrapolation", "untrained", "trained")


@dataclass(frozen=True)
class Variant:
    """One state of one model.

    Attributes:
        role: "base", "extrapolation", "untrained" (extended, no step taken) or "trained" (extended, then trained; also a
            base trained at a longer window, which is direct fine-tuning).
        lineage: what an extension leaves as it was; states of one lineage come from one base model.
        name: as the user named the checkpoint.
    """

    role: str
    method: str
    factor: float
    original_window: int
    window: int
    steps: int
    lineage: tuple
    name: str

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
    def method_name(self) -> str:
        return METHODS.get(self.method, self.method)

    @property
    def method_and_factor(self) -> str:
        return f"{self.method_name} ×{self.factor:.4g}"

    @property
    def series(self) -> tuple:
        """What the checkpoints of one training have in common: a line, and a colour, in every figure."""
        return (self.lineage, self.role, self.method, self.factor, self.window)

    @property
    def label(self) -> str:
        """What a legend or a table calls it. The name is left out: add it where two states share a label."""
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
        methods = ["plain", "linear"]
        place = methods.index(self.method) if self.method in methods else len(methods)
        base_first = 0 if not self.extended else 1
        return (str(self.lineage), base_first, place, self.method, self.factor, self.window, self.steps, self.role)


def _steps(number: int) -> str:
    return f"{number} step{'s' if number != 1 else ''}"


def variant_of(header: dict[str, Any], window: int | None = None) -> Variant:
    """The state a row of this run was measured in. `window` is the row's, if the row has one.

    Raises:
        KeyError, TypeError: the header does not describe a model (rows.clean has dropped such rows).
    """
    model = header["model"]
    original, current = model["original_window"], model["window"]
    scaling, steps = model.get("scaling", {}), model.get("steps", 0)
    method, factor = scaling.get("method", "plain"), scaling.get("factor", 1.0) or 1.0
    if method == "plain":
        # Direct fine-tuning leaves the rotation alone; its factor is that of the windows.
        factor = current / original
        if current > original:
            role = "trained" if steps else "extrapolation"
        else:
            role = "extrapolation" if window is not None and window > current else "base"
    else:
        role = "trained" if steps else "untrained"
    return Variant(
        role=role,
        method=method,
        factor=factor,
        original_window=original,
        window=current,
        steps=steps,
        lineage=(model.get("family", ""), original, model.get("head_dim", 0), model.get("parameters", 0)),
        name=str(model.get("name", "")),
    )


def trained_variant(header: dict[str, Any]) -> Variant:
    """The state a training run works towards; its header describes the checkpoint it started from."""
    state = variant_of(header)
    return dataclasses.replace(state, role="trained") if state.role in ("untrained", "extrapolation") else state


def labels(states: list[Variant]) -> dict[Variant, str]:
    """state → a label that is unique among these states: the window is added where two share a label, then the name."""
    unique = {state: state.label for state in states}
    for extra in (lambda s: f"window {s.window}", lambda s: s.name):
        shared: dict[str, set[str]] = {}
        for state, label in unique.items():
            shared.setdefault(label, set()).add(extra(state))
        unique = {
            state: f"{label} ({extra(state)})" if len(shared[label]) > 1 else label for state, label in unique.items()
        }
    return unique


def last_steps(states: list[Variant]) -> list[Variant]:
    """Of the checkpoints of one training only the last; what was measured before training stays beside it."""
    last: dict[tuple, int] = {}
    for state in states:
        last[state.series] = max(last.get(state.series, 0), state.steps)
    return [state for state in states if state.steps == last[state.series]]
