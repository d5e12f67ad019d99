"""Position Interpolation where there is no rotation: a learned table of positions (GPT-2, OPT, BERT), made longer. Float64, numpy alone.

in   the table's rows, one a position, and how many there shall be
out  as many rows, which say between the old positions what lies between the old rows

The idea is that of Chen et al. 2023, section 2.3: position p of the longer window is told as p / factor, a place inside the window that
was trained, and never as one beyond it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from ropewalk.errors import UserError
from ropewalk.rope.rope import InvFreq, Rope, Scaling, check_factor


@dataclass(frozen=True)
class InterpolatedTable(Scaling):
    """A learned table that was interpolated to `factor` times its length: what records say of such a model. Nothing in it rotates."""

    factor: float

    method: ClassVar[str] = "interpolated-table"
    label: ClassVar[str] = "interpolated table"

    def __post_init__(self) -> None:
        check_factor(self.factor, self.method)

    def inv_freq(self, rope: Rope) -> InvFreq:
        raise UserError("a learned table of positions rotates nothing, so it has no inv_freq; choose a model with RoPE")


def interpolated(table: Float[np.ndarray, "old width"], length: int) -> Float[np.ndarray, "{length} width"]:
    """Row p is what the old rows say at p x old / length, linear between two of them.

    So row factor x m is the old row m, to the last bit where the factor is whole. Past the last old row that row is repeated: less than
    factor positions, of which nothing was learned, and going on in a straight line would leave the range that was.

    Args:
        table: the old rows, float64.
        length: how many rows there shall be, at least as many as there are.
    """
    last = len(table) - 1
    places = np.minimum(np.arange(length) * len(table) / length, last)
    below = places.astype(np.int64)
    share = (places - below)[:, None]
    return (1 - share) * table[below] + share * table[np.minimum(below + 1, last)]
