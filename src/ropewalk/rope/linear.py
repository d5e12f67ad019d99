"""No scaling, and Position Interpolation: every pair of coordinates turns slower by the same factor. Float64, numpy alone.

in   a `Rope` as pretrained
out  its inv_freq, times 1 or 1 / factor
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ropewalk.errors import UserError
from ropewalk.rope.config_numbers import number
from ropewalk.rope.rope import InvFreq, Rope, Scaling, check_factor


@dataclass(frozen=True)
class Plain(Scaling):
    """No scaling: inv_freq stays as pretrained. At positions past L this is direct extrapolation."""

    factor: float = 1.0
    method: ClassVar[str] = "plain"
    label: ClassVar[str] = "direct fine-tuning"
    rope_types: ClassVar[tuple[str, ...]] = ("default", "mrope")
    factor_is_ratio: ClassVar[bool] = False
    #: What costs least in the old window and keeps retrieval, with little training or none: level a of the lab, docs/results.md.
    continued_by: ClassVar[str] = "yarn"

    def __post_init__(self) -> None:
        if self.factor != 1:
            raise UserError(f"a model that is not scaled has factor 1, got {self.factor}; name the scaling")

    def inv_freq(self, rope: Rope) -> InvFreq:
        """Shape (d/2,), radians a token: theta_j, unchanged."""
        return rope.inv_freq()

    @classmethod
    def for_extension(cls, rope: Rope, factor: float, **parameters: Any) -> Scaling:
        """No scaling, however much longer the window."""
        return cls()

    @classmethod
    def from_config(cls, entry: Mapping[str, Any], *, window: int, original: int) -> Scaling:
        return cls()

    def config_entry(self, rope: Rope) -> tuple[dict[str, Any], float]:
        return {"rope_type": "default"}, rope.rope_theta

    def then(self, by: Scaling) -> Scaling:
        return by


@dataclass(frozen=True)
class Linear(Scaling):
    """Position Interpolation: every position m becomes m / factor (Chen et al. 2023, arXiv 2306.15595, eq. 4).

    Attributes:
        factor: L' / L, the new window over the pretraining one; at least 1.
    """

    factor: float
    method: ClassVar[str] = "linear"
    label: ClassVar[str] = "PI"
    rope_types: ClassVar[tuple[str, ...]] = ("linear",)
    extends: ClassVar[bool] = True
    multiplies: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_factor(self.factor, self.method)

    def inv_freq(self, rope: Rope) -> InvFreq:
        """Shape (d/2,), radians a token: theta_j / factor.

        The paper squeezes positions, f'(x, m) = f(x, m L / L'); an inv_freq smaller by the same factor is the same thing,
        and it is the form that a model's config can say.
        """
        return rope.inv_freq() / self.factor

    @classmethod
    def from_config(cls, entry: Mapping[str, Any], *, window: int, original: int) -> Scaling:
        return cls(number(entry, "factor"))

    def config_entry(self, rope: Rope) -> tuple[dict[str, Any], float]:
        return {"rope_type": "linear", "factor": float(self.factor)}, rope.rope_theta
