"""Rotary position embedding (RoPE) and the ways to stretch it: the maths, in float64, with nothing but numpy.

in   a `Rope` (how many coordinates turn, the base, the pretraining window) and a scaling (`Linear(8.0)`)
out  frequencies: how fast each pair of coordinates turns, in radians a token

This module is the oracle of the whole project. It computes nothing that a model runs; it says what a model's `inv_freq`
must be, and every load, cast, wrap and save is held against it.

Letters: d the number of rotated coordinates of a head (even), c the base (`rope_theta`), L the pretraining window,
L' the new one, m a position, theta_j = c^(-2j/d) the frequency of pair j = 0 .. d/2 - 1.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float

from ropewalk.errors import UserError

InvFreq = Float[np.ndarray, " half"]


@dataclass(frozen=True)
class Rope:
    """A model's rotary embedding as it was pretrained.

    Attributes:
        head_dim: d, the coordinates of a head that turn (even). With partial rotary this is less than the head's size.
        base: c, called `rope_theta` in configs; 10000 in RoFormer and LLaMA.
        window: L, the pretraining window in tokens.
    """

    head_dim: int
    base: float = 10000.0
    window: int = 2048

    def __post_init__(self) -> None:
        if self.head_dim < 2 or self.head_dim % 2:
            raise UserError(
                f"a rotary dimension must be even and at least 2, got {self.head_dim}; "
                "check head_dim and partial_rotary_factor in the config"
            )
        if not (math.isfinite(self.base) and self.base > 1):
            raise UserError(
                f"the RoPE base must be finite and above 1, got {self.base}; check rope_theta (LLaMA: 10000)"
            )
        if self.window < 1:
            raise UserError(f"a window holds at least 1 token, got {self.window}; check max_position_embeddings")

    def inv_freq(self) -> InvFreq:
        """theta_j = c^(-2j/d), radians a token, shape (d/2,) (Su et al. 2021, arXiv 2104.09864, eq. 15)."""
        return self.base ** (-np.arange(0, self.head_dim, 2, dtype=np.float64) / self.head_dim)


def _check_factor(factor: float, method: str) -> None:
    if not (math.isfinite(factor) and factor >= 1):
        raise UserError(
            f"the {method} factor must be finite and at least 1, got {factor}; it is new window / old window"
        )


class Scaling(abc.ABC):
    """A way to stretch a rotation. A new one is a frozen dataclass of its parameters here, and an entry in `SCALINGS`.

    `method` is its word in configs, records and on the command line; `label` what a page calls it; `factor` by how much it
    stretches (1 for none).
    """

    method: ClassVar[str]
    label: ClassVar[str]

    if TYPE_CHECKING:  # a property that is really there would be taken for the default of each class's own field

        @property
        def factor(self) -> float: ...

    @abc.abstractmethod
    def inv_freq(self, rope: Rope) -> InvFreq:
        """Shape (d/2,), radians a token, of a model that was pretrained with `rope`."""


@dataclass(frozen=True)
class Plain(Scaling):
    """No scaling: the model turns as it was pretrained. At positions past L this is direct extrapolation."""

    factor: float = 1.0
    method: ClassVar[str] = "plain"
    label: ClassVar[str] = "direct fine-tuning"

    def __post_init__(self) -> None:
        if self.factor != 1:
            raise UserError(f"a model that is not scaled has factor 1, got {self.factor}; name the scaling")

    def inv_freq(self, rope: Rope) -> InvFreq:
        """Shape (d/2,), radians a token: theta_j, unchanged."""
        return rope.inv_freq()


@dataclass(frozen=True)
class Linear(Scaling):
    """Position Interpolation: every position m becomes m / factor (Chen et al. 2023, arXiv 2306.15595, eq. 4).

    Attributes:
        factor: L' / L, the new window over the pretraining one; at least 1.
    """

    factor: float
    method: ClassVar[str] = "linear"
    label: ClassVar[str] = "PI"

    def __post_init__(self) -> None:
        _check_factor(self.factor, self.method)

    def inv_freq(self, rope: Rope) -> InvFreq:
        """Shape (d/2,), radians a token: theta_j / factor.

        The paper squeezes positions, f'(x, m) = f(x, m L / L'); turning more slowly by the same factor is the same
        thing, and it is the form that a model's config can say.
        """
        return rope.inv_freq() / self.factor


@dataclass(frozen=True)
class Ntk(Scaling):
    """Static NTK-aware scaling: a larger base instead of squeezed positions (u/bloc97, r/LocalLLaMA, June 2023).

    The base grows by factor^(d / (d - 2)), so the slowest pair turns `factor` times slower and the fastest not at all.

    Attributes:
        factor: new window over pretraining window; at least 1.
    """

    factor: float
    method: ClassVar[str] = "ntk"
    label: ClassVar[str] = "NTK"

    def __post_init__(self) -> None:
        _check_factor(self.factor, self.method)

    def base(self, rope: Rope) -> float:
        """The larger base c' = c factor^(d/(d-2)); a config stores it as a plain `rope_theta`."""
        if rope.head_dim < 4:
            raise UserError(f"NTK scaling needs at least 4 rotated coordinates, got {rope.head_dim}; use linear")
        return rope.base * self.factor ** (rope.head_dim / (rope.head_dim - 2))

    def inv_freq(self, rope: Rope) -> InvFreq:
        """Shape (d/2,), radians a token: c'^(-2j/d)."""
        return Rope(rope.head_dim, self.base(rope), rope.window).inv_freq()


@dataclass(frozen=True)
class Yarn(Scaling):
    """YaRN's "NTK-by-parts": fast pairs keep their speed, slow ones are squeezed (Peng et al. 2023, arXiv 2309.00071).

    A pair that makes more than `beta_fast` turns in the pretraining window is left alone; one that makes fewer than
    `beta_slow` is slowed by `factor`; in between, a ramp linear in the pair's index. The attention temperature that
    goes with YaRN is no rotation and is not here: transformers applies it from `attention_factor`.

    Attributes:
        factor: new window over pretraining window; at least 1.
        beta_fast, beta_slow: turns in the pretraining window at the ramp's two ends (32 and 1 in the paper).
        truncate: whether the ramp's ends are rounded outward to whole pairs, as the published code does.
    """

    factor: float
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    method: ClassVar[str] = "yarn"
    label: ClassVar[str] = "YaRN"

    def __post_init__(self) -> None:
        _check_factor(self.factor, self.method)
        if not 0 < self.beta_slow <= self.beta_fast < math.inf:
            raise UserError(
                f"yarn scaling needs beta_slow above 0 and at most beta_fast, got {self.beta_slow} and {self.beta_fast}; "
                "the paper has 1 and 32"
            )

    def _pair_with_turns(self, turns: float, rope: Rope) -> float:
        """The (fractional) pair index j that makes `turns` turns in L tokens: L theta_j = 2 pi turns, solved for j."""
        return rope.head_dim * math.log(rope.window / (turns * 2 * math.pi)) / (2 * math.log(rope.base))

    def inv_freq(self, rope: Rope) -> InvFreq:
        """Shape (d/2,), radians a token: between theta_j (fast pairs) and theta_j / factor (slow pairs)."""
        first, last = self._pair_with_turns(self.beta_fast, rope), self._pair_with_turns(self.beta_slow, rope)
        if self.truncate:
            first, last = math.floor(first), math.ceil(last)
        # The published code clamps the upper end at d - 1, not at d/2 - 1; a config means what the code does.
        first, last = max(first, 0), min(last, rope.head_dim - 1)
        if first == last:
            last += 0.001
        slowed = np.clip((np.arange(rope.head_dim // 2, dtype=np.float64) - first) / (last - first), 0, 1)
        theta = rope.inv_freq()
        return theta * (1 - slowed) + theta / self.factor * slowed


@dataclass(frozen=True)
class Llama3(Scaling):
    """Llama 3.1's scaling: by wavelength, with a smooth band between two thresholds (Meta's llama-models, 2024).

    Wavelengths under L / high are left alone, over L / low are slowed by `factor`, in between mixed.

    Attributes:
        factor: how much the slow pairs are slowed (8 in Llama 3.1; not the ratio of windows, which is 16 there).
        low_freq_factor, high_freq_factor: turns in the original window at the two thresholds.
        original_window: the window before scaling (8192 in Llama 3.1).
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_window: int
    method: ClassVar[str] = "llama3"
    label: ClassVar[str] = "Llama 3 scaling"

    def __post_init__(self) -> None:
        _check_factor(self.factor, self.method)
        if not self.low_freq_factor < self.high_freq_factor:
            raise UserError(
                f"llama3 scaling needs low_freq_factor below high_freq_factor, got {self.low_freq_factor} and "
                f"{self.high_freq_factor}; Llama 3.1 has 1 and 4"
            )

    def inv_freq(self, rope: Rope) -> InvFreq:
        """Shape (d/2,), radians a token."""
        theta = rope.inv_freq()
        turns = self.original_window * theta / (2 * math.pi)
        kept = np.clip((turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor), 0, 1)
        return theta * kept + theta / self.factor * (1 - kept)


#: Every scaling there is, by the word that configs, records and the command line have for it.
SCALINGS: dict[str, type[Scaling]] = {kind.method: kind for kind in (Plain, Linear, Ntk, Yarn, Llama3)}


def to_dict(scaling: Scaling) -> dict[str, Any]:
    """A scaling with all its parameters as JSON has it: `{"method": "yarn", "factor": 4.0, "beta_fast": 32.0, …}`."""
    return {"method": scaling.method, **vars(scaling)}


def from_dict(entry: dict[str, Any]) -> Scaling:
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
    """What a model scaled by `now` turns by after a further scaling `by`: the extension algebra.

    Linear on linear multiplies: a 2048 model interpolated to 4096 and then to 16384 has factor 8, not 4. NTK on NTK
    multiplies too, since the base grows by a power of the factor. What has no closed form in one family is refused.

    Raises:
        UserError: the two cannot be composed; the sentence says why.
    """
    if isinstance(now, Plain):
        return by
    if isinstance(by, Plain):
        return now
    if isinstance(now, Linear) and isinstance(by, Linear):
        return Linear(now.factor * by.factor)
    if isinstance(now, Ntk) and isinstance(by, Ntk):
        return Ntk(now.factor * by.factor)
    raise UserError(
        f"{by.method} scaling cannot be put on top of {now.method} (factor {now.factor:g}): the result is neither "
        f"of the two and no config can say it; extend the original model instead"
        + (f", or use --method {now.method}" if now.method in ("linear", "ntk") else "")
    )


def rotate(
    x: Float[np.ndarray, "... d"],
    positions: Float[np.ndarray, " n"] | np.ndarray,
    frequencies: InvFreq,
    *,
    pairing: Literal["half", "interleaved"] = "half",
) -> Float[np.ndarray, "... d"]:
    """Turn head vectors: pair j of x at position m is multiplied, as a complex number, by exp(i m theta_j).

    Args:
        x: (..., n, d) head vectors, one a position; coordinates past 2 len(frequencies) pass through (partial rotary).
        positions: (n,) positions in tokens; may be fractional.
        frequencies: (rotated / 2,) radians a token, from a scaling.
        pairing: "interleaved" pairs coordinates (2j, 2j + 1) as the papers do, "half" pairs (j, j + rotated/2) as
            Hugging Face does. The two differ by a permutation of the coordinates.

    Returns:
        (..., n, d), float64. Source: Su et al. 2021, eq. 16; Chen et al. 2023, eq. 1.
    """
    rotated = 2 * len(frequencies)
    if rotated > x.shape[-1]:
        raise ValueError(f"{len(frequencies)} frequencies turn {rotated} coordinates, but x has {x.shape[-1]}")
    angle = np.asarray(positions, dtype=np.float64)[:, None] * frequencies
    cos, sin = np.cos(angle), np.sin(angle)
    first, second = (
        (slice(0, rotated, 2), slice(1, rotated, 2))
        if pairing == "interleaved"
        else (slice(0, rotated // 2), slice(rotated // 2, rotated))
    )
    out = np.array(x, dtype=np.float64)
    out[..., first] = x[..., first] * cos - x[..., second] * sin
    out[..., second] = x[..., first] * sin + x[..., second] * cos
    return out
