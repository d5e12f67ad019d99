"""`ropewalk extend`."""

from __future__ import annotations

from dataclasses import dataclass

from ropewalk.settings.options import Checkpointed, Flag
from ropewalk.settings.scaling import ExtendMethod
from ropewalk.settings.values import Tokens


@dataclass(frozen=True, kw_only=True)
class ExtendSettings(Checkpointed):
    """Write a checkpoint with a longer context window. No weight is loaded or changed."""

    window: Tokens
    """The new window in tokens, L'; longer than the current one."""
    method: ExtendMethod = "linear"
    """linear, or pi, is Position Interpolation (Chen et al. 2023, section 2.3); ntk, abf, yarn, llama3, longrope, factors, proportional: docs/guide.md; auto keeps the method the model has, yarn if it has none (docs/results.md says why)."""
    convert_pickle: Flag = False
    """Rewrite pickled weights as safetensors (weights-only load)."""
