"""The ways to scale a rotary embedding: a class each, and the one table of them. Float64, with nothing but numpy.

in   a `Rope` as pretrained and a scaling (`Linear(8.0)`)
out  its inv_freq; its words in records, in a config.json, on the command line and on a page

This module is the oracle of the whole project. It computes nothing that a model runs; it says what a model's `inv_freq`
must be, and every load, cast, wrap and save is held against it.

A new scaling is one class here and its place in `SCALINGS`: everything else follows from the class (rope.py says what it tells).
The letters d, c, L, L', m and theta_j are those of rope.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

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
                + _like_ntk(rope, self.factor)
            )
        return Rope(rope.head_dim, float(self.rope_theta), rope.window)

    def inv_freq(self, rope: Rope) -> InvFreq:
        """Shape (d/2,), radians a token: c'^(-2j/d)."""
        return self._rebased(rope).inv_freq()

    @classmethod
    def for_extension(cls, rope: Rope, factor: float, **parameters: Any) -> Scaling:
        """With the rope_theta that was given. No default: the paper has one number for its models, and no rule for others."""
        if parameters.get("rope_theta") is None:
            _refuse_no_base(rope)
            raise UserError(f"abf scaling needs a --rope-theta, got none; {_like_ntk(rope, factor)}")
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


def _refuse_no_base(rope: Rope) -> None:
    """One pair of coordinates turns by c^0 = 1, whatever c."""
    if rope.head_dim < 4:
        raise UserError(f"abf scaling needs at least 4 rotated coordinates, got {rope.head_dim}; use linear")


def _like_ntk(rope: Rope, factor: float) -> str:
    """A way out that fits the model and the window."""
    rope_theta = math.floor(Ntk(factor).rope_theta(rope)) + 1
    return f"NTK scaling by {factor:.4g} would have --rope-theta {rope_theta}"


@dataclass(frozen=True)
class Yarn(Scaling):
    """YaRN's "NTK-by-parts": pairs with a large inv_freq keep it, the others are interpolated (Peng et al. 2023, arXiv 2309.00071).

    A pair that completes more than `beta_fast` rotations in the pretraining window is left alone; one that completes fewer
    than `beta_slow` has its inv_freq divided by `factor`; in between, a ramp linear in the pair's index. The attention
    temperature that goes with YaRN is no rotation and is not here: transformers applies it from `attention_factor`.

    Attributes:
        factor: new window over pretraining window; at least 1.
        beta_fast, beta_slow: rotations in the pretraining window at the ramp's two ends (32 and 1 in the paper).
        truncate: whether the ramp's ends are rounded outward to whole pairs, as the published code does.
    """

    factor: float
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    method: ClassVar[str] = "yarn"
    label: ClassVar[str] = "YaRN"
    rope_types: ClassVar[tuple[str, ...]] = ("yarn",)
    extends: ClassVar[bool] = True
    original_is_named: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_factor(self.factor, self.method)
        if not 0 < self.beta_slow <= self.beta_fast < math.inf:
            raise UserError(
                f"yarn scaling needs beta_slow above 0 and at most beta_fast, got {self.beta_slow} and {self.beta_fast}; "
                "the paper has 1 and 32"
            )

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
        numbers = {"factor": window / original}
        for key in ("factor", "beta_fast", "beta_slow"):
            if entry.get(key) is not None:
                numbers[key] = number(entry, key)
        return cls(**numbers, truncate=entry.get("truncate") in (None, True))

    def config_entry(self, rope: Rope) -> tuple[dict[str, Any], float]:
        entry = {"rope_type": "yarn", "factor": float(self.factor), "original_max_position_embeddings": rope.window}
        ramp = {"beta_fast": float(self.beta_fast), "beta_slow": float(self.beta_slow), "truncate": self.truncate}
        return entry | ramp, rope.rope_theta


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


#: Every scaling there is, by the word that records and the command line have for it.
SCALINGS: dict[str, type[Scaling]] = {kind.method: kind for kind in (Plain, Linear, Ntk, Abf, Yarn, Llama3)}
#: What `ropewalk extend --method` offers.
EXTENDING: tuple[str, ...] = tuple(method for method, kind in SCALINGS.items() if kind.extends)


def to_dict(scaling: Scaling) -> dict[str, Any]:
    """A scaling with all its parameters as JSON has it: `{"method": "yarn", "factor": 4.0, "beta_fast": 32.0, …}`."""
    return {"method": scaling.method, **vars(scaling)}


def from_dict(entry: Mapping[str, Any]) -> Scaling:
    """The scaling that `to_dict` wrote.

    Raises:
        UserError: a method that does not exist, or parameters that are not that method's.
    """
    parameters = dict(entry)
    method = parameters.pop("method", None)
    if method not in SCALINGS:
        raise UserError(f"a scaling is one of {', '.join(SCALINGS)}, got {method!r}; check where it was written")
    try:
        return SCALINGS[method](**parameters)
    except TypeError as error:
        raise UserError(
            f"the parameters of {method} scaling are not as they must be ({error}); write it again"
        ) from None


def compose(now: Scaling, by: Scaling) -> Scaling:
    """What a model scaled by `now` has after a further scaling `by`: the extension algebra.

    Linear on linear multiplies: a 2048 model interpolated to 4096 and then to 16384 has factor 8, not 4. NTK on NTK
    multiplies too, since rope_theta grows by a power of the factor; ABF on either puts its own rope_theta in the place of
    theirs. What has no closed form in one class is refused.

    Raises:
        UserError: the two cannot be composed; the sentence says why.
    """
    return now if isinstance(by, Plain) else now.then(by)
