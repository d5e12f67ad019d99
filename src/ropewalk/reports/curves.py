"""Figures of a training's checkpoints as curves by steps, and what they are called.

in   a figure of each variant in its own window
out  a curve for each training of which more than one checkpoint was measured; a name for each
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from ropewalk.records.variant import Variant, befores, labels

T = TypeVar("T")


def curves_by_steps(values: dict[Variant, T]) -> list[tuple[Variant, dict[int, T]]]:
    """(variant, steps → value) of each training of which more than one checkpoint was measured; the variant is the last one's.

    values: of each extended variant in its own window, fewer steps first.
    """
    trainings: dict[tuple, list[Variant]] = {}
    for variant in values:
        if variant.role == "trained":
            trainings.setdefault(variant.training, []).append(variant)
    curves = []
    for checkpoints in trainings.values():
        before = befores(checkpoints[-1], values)[:1]
        points = {
            variant.steps if variant in checkpoints else 0: values[variant] for variant in [*before, *checkpoints]
        }
        curves.append((checkpoints[-1], points))
    return [curve for curve in curves if len(curve[1]) > 1]


def curve_names(curves: Sequence[tuple[Variant, Any]]) -> dict[Variant, str]:
    """What the trainings of `curves_by_steps` are called, without steps; only seeds of one training are called the same."""
    return labels([v for v, _ in curves], called=lambda v: f"{v.method_and_factor}, window {v.window}{v.recipe.after}")
