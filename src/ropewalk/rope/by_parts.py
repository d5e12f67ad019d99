"""Scalings by parts: fast pairs keep their inv_freq, slow ones are interpolated, a ramp in between. Float64, numpy alone.

in   a `Rope` as pretrained, thresholds in rotations within its window
out  its inv_freq; YaRN's attention factor
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ropewalk.errors import UserError
from ropewalk.rope.config_numbers import number
from ropewalk.rope.rope import InvFreq, Rope, Scaling, check_factor

#: Turns in a window, of which thresholds are some: float64 has room for a logarithm of these and of their inverses.
_FEWEST_TURNS = 1e-9


@dataclass(frozen=True)
class Yarn(Scaling):
    """YaRN's "NTK-by-parts": pairs with a large inv_freq keep it, the others are interpolated (Peng et al. 2023, arXiv 2309.00071).

    A pair that completes more than `beta_fast` rotations in the pretraining window is left alone; one that completes fewer
    than `beta_slow` has its inv_freq divided by `factor`; in between, a ramp linear in the pair's index. Scores are divided by a
    temperature t as well, so queries and keys are multiplied by 1 / sqrt(t), which is 0.1 ln(factor) + 1 by default (eq. 22 there).

    Attributes:
        factor: new window over pretraining window; at least 1.
        beta_fast, beta_slow: rotations in the pretraining window at the ramp's two ends (32 and 1 in the paper).
        truncate: whether the ramp's ends are rounded outward to whole pairs, as the published code does.
        temperature: t, above 0; 1 leaves scores as they are, None takes the rule.
        mscale, mscale_all_dim: DeepSeek's weights of that rule, whose ratio takes its place; None: not in the config.
    """

    factor: float
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    temperature: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    method: ClassVar[str] = "yarn"
    label: ClassVar[str] = "YaRN"
    rope_types: ClassVar[tuple[str, ...]] = ("yarn",)
    extends: ClassVar[bool] = True
    multiplies: ClassVar[bool] = True
    original_is_named: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_factor(self.factor, self.method)
        if not _FEWEST_TURNS <= self.beta_slow <= self.beta_fast <= 1 / _FEWEST_TURNS:
            raise UserError(
                f"yarn scaling needs beta_slow above 0 and at most beta_fast, got {self.beta_slow} and {self.beta_fast}; "
                "the paper has 1 and 32"
            )
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise UserError(
                f"the temperature of yarn scaling is finite and above 0, got {self.temperature}; 1 leaves attention as it is"
            )

    def attention_factor(self, rope: Rope) -> float:
        """1 / sqrt(t) of the temperature given; else 0.1 ln(factor) + 1, or DeepSeek's ratio of two of these."""
        if self.temperature is not None:
            return self.temperature**-0.5
        if self.mscale and self.mscale_all_dim:
            return self._magnitude(self.mscale) / self._magnitude(self.mscale_all_dim)
        return self._magnitude(1.0)

    @property
    def temperature_of_all(self) -> float:
        return self._magnitude(self.mscale_all_dim) ** 2 if self.mscale_all_dim else 1.0

    def _magnitude(self, weight: float) -> float:
        return 0.1 * weight * math.log(self.factor) + 1.0

    def _pair_with_rotations(self, rotations: float, rope: Rope) -> float:
        """The (fractional) pair j that completes so many rotations in L tokens: L theta_j = 2 pi rotations, solved for j."""
        return rope.head_dim * math.log(rope.window / (rotations * 2 * math.pi)) / (2 * math.log(rope.rope_theta))

    def inv_freq(self, rope: Rope) -> InvFreq:
        """Shape (d/2,), radians a token: from theta_j (first pairs) to theta_j / factor (last pairs)."""
        first, last = self._pair_with_rotations(self.beta_fast, rope), self._pair_with_rotations(self.beta_slow, rope)
        if self.truncate:
            first, last = math.floor(first), math.ceil(last)
        # The published code clamps the upper end at d - 1, not at d/2 - 1; a config means what the code does.
        first, last = max(first, 0), min(last, rope.head_dim - 1)
        if first == last:
            last += 0.001
        interpolated = np.clip((np.arange(rope.head_dim // 2, dtype=np.float64) - first) / (last - first), 0, 1)
        pretrained = rope.inv_freq()
        return pretrained * (1 - interpolated) + pretrained / self.factor * interpolated

    @classmethod
    def from_config(cls, entry: Mapping[str, Any], *, window: int, original: int) -> Scaling:
        keys = ("factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim")
        numbers = {key: number(entry, key) for key in keys if entry.get(key) is not None}
        scaling = cls(**{"factor": window / original} | numbers, truncate=entry.get("truncate") in (None, True))
        if entry.get("attention_factor") is None:
            return scaling
        named = number(entry, "attention_factor")
        if not 0 < named < math.inf:
            raise UserError(f"the config's attention_factor is finite and above 0, got {named}; mend its config.json")
        by_rule = scaling.attention_factor(Rope(2))
        return (
            scaling
            if math.isclose(named, by_rule, rel_tol=1e-9)
            else dataclasses.replace(scaling, temperature=named**-2.0)
        )

    def then(self, by: Scaling) -> Scaling:
        """YaRN on YaRN of the same ramp multiplies, as its authors go on from 64k to 128k; the temperature is the second one's."""
        if isinstance(by, Yarn):
            return Scaling.then(dataclasses.replace(self, temperature=by.temperature), by)
        return super().then(by)

    def config_entry(self, rope: Rope) -> tuple[dict[str, Any], float]:
        entry = {"rope_type": "yarn", "factor": float(self.factor), "original_max_position_embeddings": rope.window}
        ramp = {"beta_fast": float(self.beta_fast), "beta_slow": float(self.beta_slow), "truncate": self.truncate}
        kept = {"mscale": self.mscale, "mscale_all_dim": self.mscale_all_dim}
        if self.temperature is not None:
            kept["attention_factor"] = self.attention_factor(rope)
        return entry | ramp | {key: value for key, value in kept.items() if value is not None}, rope.rope_theta


@dataclass(frozen=True)
class Llama3(Scaling):
    """Llama 3.1's scaling: by wavelength, with a smooth band between two thresholds (Meta's llama-models, 2024).

    Wavelengths under L / high are left alone, those over L / low grow by `factor`, in between the two are mixed.

    Attributes:
        factor: by how much the long wavelengths grow (8 in Llama 3.1; not the ratio of windows, which is 16 there).
        low_freq_factor, high_freq_factor: rotations in the original window at the two thresholds.
        original_window: the window before scaling (8192 in Llama 3.1).
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_window: int
    method: ClassVar[str] = "llama3"
    label: ClassVar[str] = "Llama 3 scaling"
    rope_types: ClassVar[tuple[str, ...]] = ("llama3",)
    extends: ClassVar[bool] = True
    multiplies: ClassVar[bool] = True
    factor_is_ratio: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_factor(self.factor, self.method)
        if not self.low_freq_factor < self.high_freq_factor:
            raise UserError(
                f"llama3 scaling needs low_freq_factor below high_freq_factor, got {self.low_freq_factor} and "
                f"{self.high_freq_factor}; Llama 3.1 has 1 and 4"
            )

    def inv_freq(self, rope: Rope) -> InvFreq:
        """Shape (d/2,), radians a token."""
        pretrained = rope.inv_freq()
        rotations = self.original_window * pretrained / (2 * math.pi)
        kept = np.clip((rotations - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor), 0, 1)
        return pretrained * kept + pretrained / self.factor * (1 - kept)

    @classmethod
    def for_extension(cls, rope: Rope, factor: float, **parameters: Any) -> Scaling:
        """With Llama 3.1's thresholds, 1 and 4 rotations in the pretraining window, unless others are given."""
        thresholds = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_window": rope.window}
        return super().for_extension(rope, factor, **thresholds | parameters)

    @classmethod
    def from_config(cls, entry: Mapping[str, Any], *, window: int, original: int) -> Scaling:
        factor, low, high = (number(entry, key) for key in ("factor", "low_freq_factor", "high_freq_factor"))
        return cls(factor, low, high, original)

    def config_entry(self, rope: Rope) -> tuple[dict[str, Any], float]:
        entry = {
            "rope_type": "llama3",
            "factor": float(self.factor),
            "original_max_position_embeddings": self.original_window,
        }
        thresholds = {"low_freq_factor": float(self.low_freq_factor), "high_freq_factor": float(self.high_freq_factor)}
        return entry | thresholds, rope.rope_theta
