"""How a window is made longer: what `ropewalk extend` and `ropewalk train` may be told of the scaling, one option a field.

in   a method's word and its parameters
out  `ScalingOptions`, which `extended_config` reads
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from ropewalk.settings.values import Range
from ropewalk.settings.windows import WindowOptions

#: The one list for type checkers; tests/rope/test_scaling.py holds it equal to the table of rope/scaling.py.
ExtendMethod = Literal["linear", "ntk", "abf", "yarn", "auto"]
TrainMethod = Literal[ExtendMethod, "plain"]


@dataclass(frozen=True, kw_only=True)
class ScalingOptions(WindowOptions):
    """How a model's window is made longer.

    A field beside the method is a parameter of a scaling, by the name it has in that scaling's class; None leaves it to the class.
    """

    method: TrainMethod = "linear"
    """linear is Position Interpolation; auto keeps the method the model has, linear if it has none."""
    raise_sliding_window: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Where attention slides in every layer (Mistral v0.1, Phi-3-mini-4k): let each layer see the new window, scaled from what it sees now."""
    rope_theta: Annotated[float, Range(1, 10**15, above=True)] | None = None
    """The RoPE base of method abf (adjusted base frequency, Xiong et al. 2023, arXiv 2309.16039), above the model's own."""

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters that were given, by name."""
        return {name: getattr(self, name) for name in parameter_names() if getattr(self, name) is not None}


def parameter_names() -> list[str]:
    """The fields of `ScalingOptions` that are parameters of a scaling."""
    others = {"method", "raise_sliding_window", *(each.name for each in dataclasses.fields(WindowOptions))}
    return [each.name for each in dataclasses.fields(ScalingOptions) if each.name not in others]
