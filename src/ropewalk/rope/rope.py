"""Rotary position embedding (RoPE) as pretrained, and what every scaling of it must say of itself. Float64, numpy alone.

in   how many coordinates of a head are rotated, rope_theta, the pretraining window
out  inv_freq: the angle by which each pair of coordinates is rotated per token, in radians

Letters: d the number of rotated coordinates of a head (even), c the base (`rope_theta`), L the pretraining window,
L' the new one, m a position, theta_j = c^(-2j/d) the inv_freq of pair j = 0 .. d/2 - 1.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Float

from ropewalk.errors import UserError

InvFreq = Float[np.ndarray, " half"]
#: No window is longer by more: readers count positions in 32 bits.
_LARGEST_FACTOR = 2**31


@dataclass(frozen=True)
class Rope:
    """A model's rotary embedding as it was pretrained.

    Attributes:
        head_dim: d, the rotated coordinates of a head (even). With partial rotary this is less than the head's size.
        rope_theta: c, the base of the powers; 10000 in RoFormer and LLaMA.
        window: L, the pretraining window in tokens.
    """

    head_dim: int
    rope_theta: float = 10000.0
    window: int = 2048

    def __post_init__(self) -> None:
        if not 2 <= self.head_dim <= 2**16 or self.head_dim % 2:
            raise UserError(
                f"a rotary dimension must be even and at least 2, got {self.head_dim}; "
                "check head_dim and partial_rotary_factor in the config"
            )
        if not (math.isfinite(self.rope_theta) and self.rope_theta > 1):
            raise UserError(f"rope_theta must be finite and above 1, got {self.rope_theta}; LLaMA has 10000")
        if self.window < 1:
            raise UserError(f"a window holds at least 1 token, got {self.window}; check max_position_embeddings")

    def inv_freq(self) -> InvFreq:
        """theta_j = c^(-2j/d), radians a token, shape (d/2,) (Su et al. 2021, arXiv 2104.09864, eq. 15)."""
        return self.rope_theta ** (-np.arange(0, self.head_dim, 2, dtype=np.float64) / self.head_dim)


class Scaling(abc.ABC):
    """A way to scale a rotary embedding; each is a frozen dataclass of its parameters.

    A class says of itself:
        method: its word in records, in the `ropewalk` block and for `--method`.
        label: what a page calls it.
        rope_types: the `rope_type` words by which a config names it. Empty if a config only shows another rope_theta: then the
            `ropewalk` block alone tells it from a model that was pretrained so.
        extends: whether `ropewalk extend` offers it.
        multiplies: whether a second scaling of the same class, with the same parameters, is one with the product of both factors.
        factor_is_ratio: whether the window grows by the factor: original window x factor = window.
        continued_by: the method by which `--method auto` makes a model with it longer; its own if empty.
        takes_place: whether it is said relative to the RoPE as pretrained, and so takes the place of any scaling in force.
        untrainable: why a model with it can be measured, but neither trained nor extended; empty where it can.
        original_is_named: whether a config with it names the original window, so that nothing is open: original x factor is the window.

    Every class has a `factor`: by how much it scales, 1 for not at all.
    """

    method: ClassVar[str]
    label: ClassVar[str]
    rope_types: ClassVar[tuple[str, ...]] = ()
    extends: ClassVar[bool] = False
    multiplies: ClassVar[bool] = False
    factor_is_ratio: ClassVar[bool] = True
    original_is_named: ClassVar[bool] = False
    continued_by: ClassVar[str] = ""
    takes_place: ClassVar[bool] = False
    untrainable: ClassVar[str] = ""

    if TYPE_CHECKING:  # a property that is really there would be taken for the default of each class's own field

        @property
        def factor(self) -> float: ...

        def __init__(self, factor: float, **parameters: Any) -> None: ...

    @abc.abstractmethod
    def inv_freq(self, rope: Rope) -> InvFreq:
        """Shape (d/2,), radians a token, of a model that was pretrained with `rope`, in its whole window."""

    def inv_freq_at(self, rope: Rope, length: int) -> InvFreq:
        """The same for an input of `length` tokens, on which dynamic NTK and LongRoPE depend."""
        return self.inv_freq(rope)

    def attention_factor(self, rope: Rope) -> float:
        """What queries and keys are multiplied by beside their rotation, so that scores grow by its square: 1 but for YaRN and LongRoPE."""
        return 1.0

    @property
    def temperature_of_all(self) -> float:
        """What DeepSeek's families multiply the scores of whole heads by, rotated or not: 1 but for YaRN with mscale_all_dim."""
        return 1.0

    @classmethod
    def for_extension(cls, rope: Rope, factor: float, **parameters: Any) -> Scaling:
        """This method for a window `factor` times as long.

        Args:
            rope: the rotary embedding as pretrained, with the rope_theta that the model has now (NTK and ABF raise it).
            factor: new window over old window.
            parameters: what the user said beside it, by the names of this class's fields.

        Raises:
            UserError: a parameter that this method does not have, or one outside its range.
        """
        names = {field.name for field in dataclasses.fields(cls)}  # pyrefly: ignore[bad-argument-type]  # each is one
        for name in set(parameters) - names:
            raise UserError(f"{cls.method} scaling has no --{name.replace('_', '-')}; leave it out")
        return cls(factor=factor, **parameters)

    @classmethod
    def from_config(cls, entry: Mapping[str, Any], *, window: int, original: int) -> Scaling:
        """The scaling that a config's RoPE dictionary names.

        Args:
            entry: with one of `rope_types` under `rope_type`.
            window: the config's max_position_embeddings.
            original: its original_max_position_embeddings; `window` where it has none.

        Raises:
            KeyError: a parameter is absent.
            UserError: a parameter is no number or outside its range.
        """
        raise UserError(f"no config names {cls.method} scaling; use `ropewalk extend`")

    def kept(self) -> dict[str, Any]:
        """The parameters that a second scaling of this class keeps unless others are given."""
        return {name: value for name, value in vars(self).items() if name != "factor"} if self.multiplies else {}

    def config_entry(self, rope: Rope) -> tuple[dict[str, Any], float]:
        """How a config says this scaling of `rope`: the keys of its RoPE dictionary, and its rope_theta."""
        raise UserError(
            f"ropewalk reads {self.method} scaling but does not write it; use a method that `ropewalk extend` offers"
        )

    def then(self, by: Scaling) -> Scaling:
        """What a model with this scaling has after a further scaling `by`, which is not "plain".

        Raises:
            UserError: no scaling in the table is the two together.
        """
        if self.multiplies and type(by) is type(self):
            both: Any = dataclasses.replace(by, factor=self.factor * by.factor)  # pyrefly: ignore[bad-specialization]
            if both == dataclasses.replace(self, factor=both.factor):  # pyrefly: ignore[bad-specialization]
                return both
            raise UserError(
                f"a second {self.method} scaling has the parameters of the first; leave them out, or extend the original model instead"
            )
        raise UserError(
            f"{by.method} scaling cannot be put on top of {self.method} (factor {self.factor:g}): the result is neither "
            f"of the two; extend the original model instead"
            + (f", or use --method {self.method}" if self.multiplies else "")
        )


def check_factor(factor: float, method: str) -> None:
    """Raises UserError for a factor that scales nothing or the wrong way."""
    if not 1 <= factor <= _LARGEST_FACTOR:
        raise UserError(
            f"the {method} factor must be finite and at least 1, got {factor}; it is new window / old window"
        )
