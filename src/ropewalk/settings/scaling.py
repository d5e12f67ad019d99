"""How a window is made longer: what `ropewalk extend` and `ropewalk train` may be told of the scaling, one option a field.

in   a method's word and its parameters
out  `ScalingOptions`, which `extended_config` reads
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from ropewalk.errors import UserError
from ropewalk.settings.command import Settings

#: The one list for type checkers; tests/rope/test_scaling.py holds it equal to the table of rope/scaling.py.
ExtendMethod = Literal["linear", "ntk", "abf", "yarn", "auto"]
TrainMethod = Literal[ExtendMethod, "plain"]


@dataclass(frozen=True, kw_only=True)
class ScalingOptions(Settings):
    """How a model's window is made longer.

    A field beside these two is a parameter of a scaling, by the name it has in that scaling's class; None leaves it to the class.
    """

    method: TrainMethod = "linear"
    """linear is Position Interpolation; auto keeps the method the model has, linear if it has none."""
    current_window: int | None = None
    """What the model reads now, if its config leaves that open."""
    rope_theta: float | None = None
    """The RoPE base of method abf (adjusted base frequency, Xiong et al. 2023, arXiv 2309.16039), above the model's own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.rope_theta, int | float | None):
            raise UserError(f"rope-theta is a number, got {self.rope_theta!r}; Xiong et al. take 500000 for Llama 2")

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters that were given, by name."""
        return {name: getattr(self, name) for name in parameter_names() if getattr(self, name) is not None}


def parameter_names() -> list[str]:
    """The fields of `ScalingOptions` that are parameters of a scaling."""
    return [each.name for each in dataclasses.fields(ScalingOptions) if each.name not in ("method", "current_window")]
