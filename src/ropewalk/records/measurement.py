"""A row together with the run that measured it: what figures and the page are made from.

The same for rows just measured, `Measurement(row, run)`, and for rows read back from a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

from ropewalk.records.rows import Run
from ropewalk.records.variant import Variant, variant_of

R = TypeVar("R", covariant=True)


@dataclass(frozen=True, eq=False)
class Measurement(Generic[R]):
    """One row and its run. Two of them are equal only if they are the same object."""

    row: R
    run: Run

    @cached_property
    def variant(self) -> Variant:
        """What was measured: a plain model past its own window extrapolates."""
        return variant_of(self.run.model, getattr(self.row, "window", None))

    @cached_property
    def model_variant(self) -> Variant:
        """What was measured, whatever the row's window: a plain model is the base in every window."""
        return variant_of(self.run.model)
