"""How a window is made longer: what `ropewalk extend` and `ropewalk train` may be told of the scaling, one option a field.

in   a method's word and its parameters
out  `ScalingOptions`, which `extended_config` reads
"""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ropewalk.errors import STRANGE_DATA, UserError, read_text, told
from ropewalk.settings.command import option_name
from ropewalk.settings.values import PATH, Kind, Range, Refused, Spellings
from ropewalk.settings.windows import WindowOptions

#: The one list for type checkers; tests/rope/test_scaling.py holds it equal to the table of rope/scaling.py.
ExtendMethod = Literal["pi", "linear", "ntk", "abf", "yarn", "llama3", "longrope", "factors", "proportional", "auto"]
TrainMethod = Literal[ExtendMethod, "plain"]
#: Other words for a method.
ALIASES = {"pi": "linear"}
#: Names that papers and configs have for them. Dynamic NTK is no extension here (its base grows with the input), NTK-by-parts is a part of YaRN.
SPELLINGS = Spellings(
    taken={
        "positioninterpolation": "linear",
        "ntkaware": "ntk",
        "adjustedbasefrequency": "abf",
        "llama31": "llama3",
        "su": "longrope",
    },
    near={"dynamic": "ntk", "dynamicntk": "ntk", "ntkbyparts": "yarn"},
)


def _take_factors(value: Any) -> Any:
    """Numbers, in words or not, as a list of floats; a path as it is."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        return PATH.take(value)
    try:
        numbers = [float(each) for each in value if not isinstance(each, bool)]
    except (TypeError, ValueError):
        if len(value) == 1:  # the command line's only word
            return PATH.take(value[0])
        raise Refused from None
    if len(numbers) != len(value) or not numbers or not all(0 < number < math.inf for number in numbers):
        raise Refused
    return numbers


FACTORS = Kind("a JSON file, or a finite number above 0 for each pair", _take_factors)
if TYPE_CHECKING:
    Factors = str | Path | Sequence[float]
else:
    Factors = Annotated[Any, FACTORS]
_Turns = Annotated[float, Range(0, 10**6, above=True)]


@dataclass(frozen=True, kw_only=True)
class ScalingOptions(WindowOptions):
    """How a model's window is made longer.

    A field beside the method is a parameter of a scaling, by the name it has in that scaling's class; None leaves it to the class.
    """

    method: Annotated[TrainMethod, SPELLINGS] = "auto"
    """linear or pi: Position Interpolation, every position divided by the factor (Chen et al. 2023, section 2.3). ntk: a larger RoPE base, so that fast pairs hardly change. abf: the base that --rope-theta names. yarn: slow pairs interpolated, fast ones left alone, attention sharpened. llama3: as yarn, by Llama 3.1's rule and without the sharpening. longrope, factors: a factor for each pair (--factors, from `ropewalk search`), with LongRoPE's attention factor or without. proportional: slow pairs stand still. auto: the method that the model has, yarn if it has none (on SmolLM2-135M at factor 4, of those that find most of the passkeys, it loses least in the old window, docs/results.md; linear on one of whose config a model was measured to do better by it, as gemma-3-270m was; of a learned table linear, the only one there is)."""
    raise_sliding_window: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Where attention slides in every layer (Mistral v0.1, Phi-3-mini-4k): let each layer see the new window, scaled from what it sees now."""
    rope_theta: Annotated[float, Range(1, 10**15, above=True)] | None = None
    """The RoPE base of method abf (adjusted base frequency, Xiong et al. 2023, arXiv 2309.16039), above the model's own; 50 times that is what was measured."""
    temperature: Annotated[float, Range(0, 100, above=True)] | None = None
    """Of method yarn: attention scores are divided by it; (0.1 ln factor + 1)^-2 if not given (Peng et al. 2023, arXiv 2309.00071, eq. 22)."""
    beta_fast: _Turns | None = None
    """Of method yarn: pairs with more turns in the original window are left alone (32)."""
    beta_slow: _Turns | None = None
    """Of method yarn: pairs with fewer turns in the original window are interpolated whole (1)."""
    low_freq_factor: _Turns | None = None
    """Of method llama3: pairs with fewer turns in the original window are interpolated whole (1)."""
    high_freq_factor: _Turns | None = None
    """Of method llama3: pairs with more turns in the original window are left alone (4)."""
    factors: Annotated[
        Factors | None,
        tyro.conf.arg(constructor=list[str] | None, metavar="FILE|FLOAT...", help_behavior_hint="(default: None)"),
    ] = None
    """Of methods longrope and factors: by how much each pair turns slower than as pretrained, a number a pair, or a JSON file with a list of them, or with short_factor and long_factor."""
    rotated_share: Annotated[float, Range(0, 1)] | None = None
    """Of method proportional: the share of pairs that go on turning; the slower ones stand still (p-RoPE; 0 is NoPE)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "method", ALIASES.get(self.method, self.method))

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """The parameters that were given, by name; factors by their values, wherever they were read."""
        given = {name: getattr(self, name) for name in parameter_names() if getattr(self, name) is not None}
        if isinstance(self.factors, str | Path):
            content = self._factors_file
            # The file of a search, or a whole RoPE dictionary of a config: its two lists are what is asked for.
            lists = {key: content[key] for key in _LISTS if key in content} if isinstance(content, dict) else content
            given["factors"] = lists
        return given

    @property
    def typed(self) -> str:
        """All of it as it is typed; nothing where all is left to `auto`."""
        words = [] if self.method == "auto" else ["--method", self.method]
        words += ["--raise-sliding-window"] * self.raise_sliding_window
        for name in self.parameters:
            value = getattr(self, name)
            listed = value if isinstance(value, list) else [value]
            words += [
                f"--{option_name(name)}",
                *(f"{each:.10g}" if isinstance(each, float) else str(each) for each in listed),
            ]
        return shlex.join(words)

    @cached_property
    def _factors_file(self) -> Any:
        """What lies in the file that --factors names; None where it names none."""
        return _json_in(Path(self.factors)) if isinstance(self.factors, str | Path) else None

    def refuse_factors_of_other_windows(self, original: int, window: int) -> None:
        """Hold the windows that `ropewalk search` wrote beside its factors against those that are asked for.

        Raises:
            UserError: they were searched for others.
        """
        content = self._factors_file
        if not isinstance(content, dict):
            return
        searched = content.get("original_window", original), content.get("window", window)
        if searched != (original, window):
            raise UserError(
                f"the factors in {self.factors} were searched for {searched[0]} to {searched[1]} tokens, not {original} to {window}; search "
                f"again with --window {window}, or give the numbers themselves"
            )


#: The names that a config has for the factors in and beyond the original window.
_LISTS = ("short_factor", "long_factor")


def parameter_names() -> list[str]:
    """The fields of `ScalingOptions` that are parameters of a scaling."""
    others = {"method", "raise_sliding_window", *(each.name for each in dataclasses.fields(WindowOptions))}
    return [each.name for each in dataclasses.fields(ScalingOptions) if each.name not in others]


def _json_in(path: Path) -> Any:
    """What a JSON file of factors holds: a list of them, both lists by the names that a config has for them, or what a search wrote.

    Raises:
        UserError: the file is missing or is no JSON.
    """
    with told(
        f"--factors is a JSON file or numbers, and {path} cannot be read", "check the path", (*STRANGE_DATA, OSError)
    ):
        return json.loads(read_text(path, "--factors is a JSON file or numbers"))
