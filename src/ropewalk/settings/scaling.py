"""How a window is made longer: what `ropewalk extend` and `ropewalk train` may be told of the scaling, one option a field.

in   a method's word and its parameters
out  `ScalingOptions`, which `extended_config` reads
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from ropewalk.settings.command import Settings

#: The one list for type checkers; tests/rope/test_scaling.py holds it equal to the table of rope/scaling.py.
ExtendMethod = Literal["linear", "ntk", "yarn", "auto"]
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

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters that were given, by name."""
        names = {field.name for field in dataclasses.fields(ScalingOptions)} - {"method", "current_window"}
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}
