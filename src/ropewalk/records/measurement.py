"""A row together with the run that measured it: what figures and the page are made from.

The same for rows just measured, `Measurement(row, run)`, and for rows read back from a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

from ropewalk.records.recipe import Recipe, recipe_of
from ropewalk.records.rows import Run
from ropewalk.records.variant import Variant, variant_of

R = TypeVar("R", covariant=True)


@dataclass(frozen=True, eq=False)
class Measurement(Generic[R]):
    """One row and its run. Two of them are equal only if they are the same object.

    `trained_by` is the run that trained what was measured, where that is on record.
    """

    row: R
    run: Run
    trained_by: Run | None = None

    @cached_property
    def recipe(self) -> Recipe:
        """How the model was trained, or is, if this is a step of its training."""
        return recipe_of(self.trained_by or self.run)

    @cached_property
    def variant(self) -> Variant:
        """What was measured: a plain model past its own window extrapolates."""
        return variant_of(self.run.model, getattr(self.row, "window", None), self.recipe)

    @cached_property
    def model_variant(self) -> Variant:
        """What was measured, whatever the row's window: a plain model is the base in every window."""
        return variant_of(self.run.model, recipe=self.recipe)
