"""`ropewalk extend`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ropewalk.settings.options import Checkpointed, Flag
from ropewalk.settings.scaling import SPELLINGS, ExtendMethod
from ropewalk.settings.values import Tokens


@dataclass(frozen=True, kw_only=True)
class ExtendSettings(Checkpointed):
    """Write a checkpoint with a longer context window. No weight is loaded or changed."""

    window: Tokens
    """The new window in tokens, L'; longer than the current one."""
    method: Annotated[ExtendMethod, SPELLINGS] = "auto"
    """linear or pi: Position Interpolation, every position divided by the factor (Chen et al. 2023, section 2.3). ntk: a larger RoPE base, so that fast pairs hardly change. abf: the base that --rope-theta names. yarn: slow pairs interpolated, fast ones left alone, attention sharpened. llama3: as yarn, by Llama 3.1's rule and without the sharpening. longrope, factors: a factor for each pair (--factors, from `ropewalk search`), with LongRoPE's attention factor or without. proportional: slow pairs stand still. auto: the method that the model has, yarn if it has none (docs/results.md says why; linear on one of whose config a model was measured to do better by it, as gemma-3-270m was; of a learned table linear, the only one there is)."""
    convert_pickle: Flag = False
    """Rewrite pickled weights as safetensors (weights-only load)."""
