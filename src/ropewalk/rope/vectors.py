"""Scalings by a factor of its own for each pair of coordinates: LongRoPE, any vector, and pairs that do not turn at all. Float64, numpy alone.

in   a `Rope` as pretrained and d/2 factors, or the share of pairs that go on turning
out  theta_j / factor_j; LongRoPE's attention factor
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ropewalk.errors import UserError
from ropewalk.rope.config_numbers import as_number, number
from ropewalk.rope.linear import Linear
from ropewalk.rope.rope import InvFreq, Rope, Scaling, check_factor

#: A factor a pair, the first pair turning fastest.
Vector = tuple[float, ...]


@dataclass(frozen=True)
class Factors(Scaling):
    """Any vector of factors: pair j turns as theta_j / factors[j], at every length, and attention stays as it is.

    A config says it as "longrope" with two equal lists. Its original window is there the new one, by which every reader has the
    attention factor at 1; the pretraining window stands in the `ropewalk` block.

    Attributes:
        factor: new window over pretraining window; at least 1.
        factors: above 0, one a pair.
    """

    factor: float
    factors: Vector
    method: ClassVar[str] = "factors"
    label: ClassVar[str] = "factors"
    extends: ClassVar[bool] = True
    original_is_named: ClassVar[bool] = True
    takes_place: ClassVar[bool] = True
    continued_by: ClassVar[str] = "linear"

    def __post_init__(self) -> None:
        check_factor(self.factor, self.method)
        object.__setattr__(self, "factors", _vector(self.factors, "factors"))

    def inv_freq(self, rope: Rope) -> InvFreq:
        """Shape (d/2,), radians a token: theta_j / factors[j]."""
        return _divided(rope, self.factors)

    @classmethod
    def for_extension(cls, rope: Rope, factor: float, **parameters: Any) -> Scaling:
        """With the vector that was given."""
        lists = _given(cls, rope, parameters.pop("factors", None))
        if lists["short_factor"] != lists["long_factor"]:
            raise UserError(
                "factors scaling has one list of factors for every length, got two that differ; use --method longrope"
            )
        return _checked(super().for_extension(rope, factor, factors=lists["long_factor"], **parameters), rope)

    def config_entry(self, rope: Rope) -> tuple[dict[str, Any], float]:
        lists = {"short_factor": list(self.factors), "long_factor": list(self.factors)}
        window = round(rope.window * self.factor)
        return {
            "rope_type": "longrope",
            "factor": 1.0,
            **lists,
            "original_max_position_embeddings": window,
            "attention_factor": 1.0,
        }, rope.rope_theta

    def then(self, by: Scaling) -> Scaling:
        """Position Interpolation on top divides every pair once more."""
        if isinstance(by, Linear):
            return Factors(self.factor * by.factor, tuple(factor * by.factor for factor in self.factors))
        return super().then(by)


@dataclass(frozen=True)
class LongRope(Scaling):
    """LongRoPE: a searched factor a pair, one vector up to L and another past it (Ding et al. 2024, arXiv 2402.13753).

    Queries and keys are multiplied by sqrt(1 + ln(factor) / ln(L)) (section 3.3 there), unless a config names another number.

    Attributes:
        factor: L' / L, the new window over the pretraining one; at least 1.
        short_factor, long_factor: one a pair, for inputs of at most L tokens and for longer ones.
        attention: what queries and keys are multiplied by; None takes the rule.
    """

    factor: float
    short_factor: Vector
    long_factor: Vector
    attention: float | None = None
    method: ClassVar[str] = "longrope"
    label: ClassVar[str] = "LongRoPE"
    rope_types: ClassVar[tuple[str, ...]] = ("longrope", "su")
    extends: ClassVar[bool] = True
    original_is_named: ClassVar[bool] = True
    takes_place: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_factor(self.factor, self.method)
        for name in ("short_factor", "long_factor"):
            object.__setattr__(self, name, _vector(getattr(self, name), name))
        if self.attention is not None and not 0 < self.attention < math.inf:
            raise UserError(
                f"an attention factor is finite and above 0, got {self.attention}; leave it out for LongRoPE's rule"
            )

    def inv_freq(self, rope: Rope) -> InvFreq:
        """Shape (d/2,), radians a token: theta_j / long_factor[j]."""
        return _divided(rope, self.long_factor)

    def inv_freq_at(self, rope: Rope, length: int) -> InvFreq:
        """theta_j / short_factor[j] for an input of at most L tokens, else as `inv_freq`."""
        return _divided(rope, self.long_factor if length > rope.window else self.short_factor)

    def attention_factor(self, rope: Rope) -> float:
        return _longrope_attention(self.factor, rope.window) if self.attention is None else self.attention

    @classmethod
    def for_extension(cls, rope: Rope, factor: float, **parameters: Any) -> Scaling:
        """With the vectors that were given: one for every length, or two."""
        lists = _given(cls, rope, parameters.pop("factors", None))
        return _checked(super().for_extension(rope, factor, **lists, **parameters), rope)

    @classmethod
    def from_config(cls, entry: Mapping[str, Any], *, window: int, original: int) -> Scaling:
        """Factors that are the same at every length, with attention as it is, are `Factors` (and Position Interpolation if all are one)."""
        lists = {key: _vector(entry[key], key) for key in ("short_factor", "long_factor")}
        ratio = max(1.0, window / original)
        rule = _longrope_attention(ratio, original)
        named = entry.get("attention_factor")
        if named is None and entry.get("factor") is not None:
            named = _longrope_attention(number(entry, "factor"), original)
        attention = rule if named is None else as_number(named, "attention_factor")
        if lists["short_factor"] == lists["long_factor"] and attention == 1:
            alike = len(set(lists["long_factor"])) == 1 and lists["long_factor"][0] >= 1
            return Linear(lists["long_factor"][0]) if alike else Factors(ratio, lists["long_factor"])
        return cls(ratio, **lists, attention=None if math.isclose(attention, rule, rel_tol=1e-9) else attention)

    def config_entry(self, rope: Rope) -> tuple[dict[str, Any], float]:
        lists = {"short_factor": list(self.short_factor), "long_factor": list(self.long_factor)}
        entry = {"rope_type": "longrope", "factor": float(self.factor), **lists}
        return entry | {
            "original_max_position_embeddings": rope.window,
            "attention_factor": self.attention_factor(rope),
        }, rope.rope_theta


@dataclass(frozen=True)
class Proportional(Scaling):
    """p-RoPE: the fast pairs turn, slower by `factor`; the others do not turn at all (Barbero et al. 2025, arXiv 2410.06205, section 5).

    The pairs that stand still see no positions, so nothing about them is new in a longer window. A share of 0 is NoPE in every layer.

    Attributes:
        factor: new window over pretraining window, by which the turning pairs are interpolated; at least 1.
        rotated_share: p, the share of pairs that turn, from the fastest on; 0 to 1.
    """

    factor: float
    rotated_share: float
    method: ClassVar[str] = "proportional"
    label: ClassVar[str] = "p-RoPE"
    rope_types: ClassVar[tuple[str, ...]] = ("proportional",)
    extends: ClassVar[bool] = True
    multiplies: ClassVar[bool] = True
    continued_by: ClassVar[str] = "linear"

    def __post_init__(self) -> None:
        check_factor(self.factor, self.method)
        if not 0 <= self.rotated_share <= 1:
            raise UserError(f"a rotated share lies between 0 and 1, got {self.rotated_share}; 0 is no position at all")

    def inv_freq(self, rope: Rope) -> InvFreq:
        """Shape (d/2,), radians a token: theta_j / factor for the first int(p d / 2) pairs, 0 for the others."""
        turning = np.arange(rope.head_dim // 2) < int(self.rotated_share * rope.head_dim // 2)
        return np.where(turning, rope.inv_freq() / self.factor, 0.0)

    @classmethod
    def for_extension(cls, rope: Rope, factor: float, **parameters: Any) -> Scaling:
        """With the share that was given. No default: the paper tries several."""
        if parameters.get("rotated_share") is None:
            complete = float(np.mean(rope.window * rope.inv_freq() >= 2 * math.pi))
            raise UserError(
                f"proportional scaling needs a --rotated-share, got none; {complete:.4g} of this model's pairs complete a turn in its window"
            )
        return super().for_extension(rope, factor, **parameters)

    @classmethod
    def from_config(cls, entry: Mapping[str, Any], *, window: int, original: int) -> Scaling:
        share = entry.get("partial_rotary_factor")
        factor = entry.get("factor")
        return cls(
            1.0 if factor is None else as_number(factor, "factor"),
            1.0 if share is None else as_number(share, "partial_rotary_factor"),
        )

    def config_entry(self, rope: Rope) -> tuple[dict[str, Any], float]:
        entry = {
            "rope_type": "proportional",
            "factor": float(self.factor),
            "partial_rotary_factor": float(self.rotated_share),
        }
        return entry, rope.rope_theta

    def then(self, by: Scaling) -> Scaling:
        """Position Interpolation on top is a larger factor."""
        return Proportional(self.factor * by.factor, self.rotated_share) if isinstance(by, Linear) else super().then(by)


#: A factor by which a pair stands still: within 2^31 positions it turns by less than a hundredth of a radian.
_STILL = 2.0**40


def clipped(rope: Rope, *, soft: bool) -> Vector:
    """Factors that slow the pairs down which complete no turn in the pretraining window, and leave the others alone.

    soft: from 1 for the fastest of them to standstill for the slowest, their inv_freq times (1 + cos) / 2 (CoPE, Li et al. 2026, arXiv 2602.05258,
        and its published code); else all of them stand still, which is p-RoPE without interpolation.
    """
    slow = int(np.sum(rope.window * rope.inv_freq() < 2 * math.pi))
    left = (1 + np.cos(np.linspace(0, math.pi, slow))) / 2 if soft else np.zeros(slow)
    return (1.0,) * (rope.head_dim // 2 - slow) + tuple(1 / max(share, 1 / _STILL) for share in left.tolist())


def _longrope_attention(factor: float, window: int) -> float:
    """sqrt(1 + ln(factor) / ln(L)); 1 where nothing is scaled."""
    return math.sqrt(1 + math.log(factor) / math.log(window)) if factor > 1 and window > 1 else 1.0


def _vector(values: Any, name: str) -> Vector:
    """A list of a config, a file or a record as factors."""
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise UserError(f"a model's config names {name} as a list of numbers, one a pair, got {values!r}")
    vector = tuple(as_number(value, name) for value in values)
    if not all(0 < value < math.inf for value in vector):
        raise UserError(
            f"every one of {name} is finite and above 0, got {min(vector)} to {max(vector)}; 1 leaves a pair as it is"
        )
    return vector


def _divided(rope: Rope, factors: Vector) -> InvFreq:
    """theta_j / factors[j]."""
    if len(factors) != rope.head_dim // 2:
        raise UserError(
            f"a factor belongs to each pair of coordinates, and this model rotates {rope.head_dim // 2} pairs, got {len(factors)} factors; "
            "give as many"
        )
    return rope.inv_freq() / np.array(factors)


def _given(kind: type[Scaling], rope: Rope, factors: Any) -> dict[str, Vector]:
    """Both lists of what the user gave: one for every length, or an object of two by the names that a config has for them."""
    if factors is None:
        raise UserError(
            f"{kind.method} scaling needs --factors, got none; give {rope.head_dim // 2} numbers, one a pair, or a file that `ropewalk search` wrote"
        )
    lists = factors if isinstance(factors, Mapping) else {"short_factor": factors, "long_factor": factors}
    if lists.keys() != {"short_factor", "long_factor"}:
        raise UserError(
            f"a file of factors is a list, or an object with short_factor and long_factor, got {', '.join(lists)}"
        )
    return {name: _vector(values, name) for name, values in lists.items()}


def _checked(scaling: Scaling, rope: Rope) -> Scaling:
    """A scaling whose every vector fits the model."""
    for length in (1, rope.window + 1):
        scaling.inv_freq_at(rope, length)
    return scaling
