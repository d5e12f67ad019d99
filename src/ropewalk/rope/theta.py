"""Scalings by a larger rope_theta: NTK, adjusted base frequency, and dynamic NTK, which grows it with the input. Float64, numpy alone.

in   a `Rope` as pretrained
out  c'^(-2j/d) with a larger c'
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ropewalk.errors import UserError
from ropewalk.rope.config_numbers import number
from ropewalk.rope.rope import InvFreq, Rope, Scaling, check_factor


@dataclass(frozen=True)
class Ntk(Scaling):
    """Static NTK-aware scaling: a larger rope_theta instead of squeezed positions (u/bloc97, r/LocalLLaMA, June 2023).

    rope_theta grows by factor^(d / (d - 2)): the last pair's inv_freq shrinks by `factor`, the first one's not at all.

    Attributes:
        factor: new window over pretraining window; at least 1.
    """

    factor: float
    method: ClassVar[str] = "ntk"
    label: ClassVar[str] = "NTK"
    extends: ClassVar[bool] = True
    multiplies: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_factor(self.factor, self.method)

    def rope_theta(self, rope: Rope) -> float:
        """The larger c' = c factor^(d/(d-2)), which a config stores as its `rope_theta`."""
        if rope.head_dim < 4:
            raise UserError(f"NTK scaling needs at least 4 rotated coordinates, got {rope.head_dim}; use linear")
        return rope.rope_theta * self.factor ** (rope.head_dim / (rope.head_dim - 2))

    def inv_freq(self, rope: Rope) -> InvFreq:
        """Shape (d/2,), radians a token: c'^(-2j/d)."""
        return Rope(rope.head_dim, self.rope_theta(rope), rope.window).inv_freq()

    def config_entry(self, rope: Rope) -> tuple[dict[str, Any], float]:
        return {"rope_type": "default"}, self.rope_theta(rope)

    def then(self, by: Scaling) -> Scaling:
        """NTK on NTK multiplies; abf names a rope_theta that takes the place of this one's."""
        return Abf(self.factor * by.factor, by.rope_theta) if isinstance(by, Abf) else super().then(by)


@dataclass(frozen=True)
class Abf(Scaling):
    """Adjusted base frequency: a larger rope_theta, chosen freely, and no squeezed positions (Xiong et al. 2023, arXiv 2309.16039).

    theta'_j = c'^(-2j/d): the pairs turn more slowly the higher their index, the first one not at all. NTK scaling is the
    special case c' = c factor^(d/(d-2)); the paper takes c' = 500000 for Llama 2 (c = 10000, L = 4096, L' = 32768).

    Attributes:
        factor: L' / L, the new window over the pretraining one; at least 1. The rotation does not depend on it.
        rope_theta: c', the new base, a number without unit; above the one it takes the place of.
    """

    factor: float
    rope_theta: float
    method: ClassVar[str] = "abf"
    label: ClassVar[str] = "ABF"
    extends: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_factor(self.factor, self.method)
        if not (math.isfinite(self.rope_theta) and self.rope_theta > 1):
            raise UserError(
                f"the rope_theta of abf scaling must be finite and above the model's own, got {self.rope_theta}; "
                "the paper takes 500000 for Llama 2"
            )

    def _rebased(self, rope: Rope) -> Rope:
        """`rope` with c' in place of c."""
        _refuse_no_base(rope)
        if self.rope_theta <= rope.rope_theta:
            raise UserError(
                f"the rope_theta of abf scaling must be above the model's own {rope.rope_theta:g}, got {self.rope_theta:g}; "
                + _as_measured(rope)
            )
        return Rope(rope.head_dim, float(self.rope_theta), rope.window)

    def inv_freq(self, rope: Rope) -> InvFreq:
        """Shape (d/2,), radians a token: c'^(-2j/d)."""
        return self._rebased(rope).inv_freq()

    @staticmethod
    def usual(rope: Rope) -> float:
        """The rope_theta that the lab measured: Xiong et al. 2023 (arXiv 2309.16039) take 500000 for 10000."""
        return 50 * rope.rope_theta

    @classmethod
    def for_extension(cls, rope: Rope, factor: float, **parameters: Any) -> Scaling:
        """With the rope_theta that was given. No default: the paper has one number for its models, and no rule for others."""
        if parameters.get("rope_theta") is None:
            _refuse_no_base(rope)
            raise UserError(
                f"abf scaling needs a --rope-theta above the model's own {rope.rope_theta:g}, got none; {_as_measured(rope)}"
            )
        scaling = super().for_extension(rope, factor, **parameters)
        scaling.inv_freq(rope)
        return scaling

    def config_entry(self, rope: Rope) -> tuple[dict[str, Any], float]:
        return {"rope_type": "default"}, self._rebased(rope).rope_theta

    def then(self, by: Scaling) -> Scaling:
        """Another rope_theta takes the place of this one, which it must be above; both factors multiply."""
        if isinstance(by, Abf):
            if by.rope_theta <= self.rope_theta:
                raise UserError(
                    f"the rope_theta of abf scaling must be above the model's own {self.rope_theta:g}, got {by.rope_theta:g}; "
                    "give a larger one"
                )
            return Abf(self.factor * by.factor, by.rope_theta)
        if isinstance(by, Ntk):
            raise UserError(
                f"ntk scaling on top of abf (rope_theta {self.rope_theta:g}) is abf with a larger rope_theta; "
                "say it so, with --method abf and a --rope-theta"
            )
        return super().then(by)


@dataclass(frozen=True)
class Dynamic(Scaling):
    """Dynamic NTK: rope_theta grows with the input, as far past L as that reaches (u/emozilla, r/LocalLLaMA, June 2023). Measured only.

    c' = c (factor n / L - (factor - 1))^(d / (d - 2)) for an input of n tokens, n above L; c itself up to L.

    Attributes:
        factor: by which rope_theta is steered; readers take L x factor for the window.
    """

    factor: float
    method: ClassVar[str] = "dynamic"
    label: ClassVar[str] = "dynamic NTK"
    rope_types: ClassVar[tuple[str, ...]] = ("dynamic",)
    original_is_named: ClassVar[bool] = True
    untrainable: ClassVar[str] = (
        "its inv_freq changes with the length of each input, so there is no one rotation to train or to extend"
    )

    def __post_init__(self) -> None:
        check_factor(self.factor, self.method)

    def inv_freq(self, rope: Rope) -> InvFreq:
        """Shape (d/2,), radians a token, for an input of L x factor tokens."""
        return self.inv_freq_at(rope, round(rope.window * self.factor))

    def inv_freq_at(self, rope: Rope, length: int) -> InvFreq:
        """Shape (d/2,), radians a token, for an input of `length` tokens."""
        grown = self.factor * max(length, rope.window) / rope.window - (self.factor - 1)
        return Ntk(grown).inv_freq(rope)

    @classmethod
    def for_extension(cls, rope: Rope, factor: float, **parameters: Any) -> Scaling:
        raise UserError(f"{cls.method} scaling is measured and not made: {cls.untrainable}; use ntk")

    @classmethod
    def from_config(cls, entry: Mapping[str, Any], *, window: int, original: int) -> Scaling:
        if entry.get("alpha"):
            raise UserError(
                "the config's dynamic scaling names an alpha, which is HunYuan's own rotation; write rope_theta x alpha^(d/(d-2)) as its "
                "rope_theta and take the scaling out"
            )
        return cls(number(entry, "factor"))


def _refuse_no_base(rope: Rope) -> None:
    """One pair of coordinates turns by c^0 = 1, whatever c."""
    if rope.head_dim < 4:
        raise UserError(f"abf scaling needs at least 4 rotated coordinates, got {rope.head_dim}; use linear")


def _as_measured(rope: Rope) -> str:
    """A way out that fits the model, of which docs/results.md has figures."""
    return f"what was measured, at factor 4, is 50 times that: --rope-theta {Abf.usual(rope):.0f} (docs/results.md)"
