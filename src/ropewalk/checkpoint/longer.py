"""The scaling by which a model reads a longer window: what `extend`, `train`, `ablate` and `plan` take for a method, and for `auto`.

in   what a config says of RoPE, a window, a method and its parameters
out  what the config of the longer model says
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ropewalk.checkpoint.families import family_of
from ropewalk.checkpoint.position_table import Positions
from ropewalk.checkpoint.rope_config import RopeConfig
from ropewalk.checkpoint.write_rope import unsaid
from ropewalk.errors import UserError
from ropewalk.rope.scaling import EXTENDING, SCALINGS, Llama3, Plain, Rope, Scaling, compose


def longer(now: RopeConfig, window: int, method: str, parameters: Mapping[str, Any]) -> RopeConfig:
    """A model's RoPE once its window is `window` tokens.

    Args:
        now: as it is.
        method: one of `EXTENDING`, or `auto`: the method that the model has, YaRN if it has none, and where a config cannot say that (Phi-3's has no word
            for a temperature) Llama 3's rule, the nearest to it that leaves scores alone (docs/results.md).
        parameters: of the method, by the names of its class.

    Raises:
        UserError: there is no such method, it does not have these parameters or needs others, or it cannot follow the scaling in force.
    """
    rope = now.rope
    if isinstance(now.scaling, Plain):  # one that was trained past its pretraining window, unscaled, has another by now
        rope = dataclasses.replace(rope, window=now.window)
    refuse_untrainable(now.scaling)
    is_open = method == "auto"
    if is_open:
        method = now.scaling.continued_by or now.scaling.method
    if method not in EXTENDING:
        raise UserError(
            f"a method is one of {', '.join(EXTENDING)} or auto, got {method}; linear is Position Interpolation"
        )
    scaling = _scaling(now, rope, window, method, parameters)
    if family_of(now.family).only_longrope and (refusal := unsaid(scaling, rope)):
        if not is_open or parameters:
            raise refusal
        scaling = _scaling(now, rope, window, Llama3.method, {})
    return dataclasses.replace(now, rope=rope, scaling=scaling, window=window)


def _scaling(now: RopeConfig, rope: Rope, window: int, method: str, parameters: Mapping[str, Any]) -> Scaling:
    kind = SCALINGS[method]
    if kind.takes_place:
        return kind.for_extension(rope, window / rope.window, **parameters)
    kept = now.scaling.kept() if isinstance(now.scaling, kind) else {}
    if not now.scaling.rope_types:  # all that the config shows of it is another rope_theta: the model's own by now
        _, rope_theta = now.scaling.config_entry(rope)
        rope = dataclasses.replace(rope, rope_theta=rope_theta)
    return compose(now.scaling, kind.for_extension(rope, window / now.window, **{**kept, **parameters}))


def refuse_untrainable(scaling: Scaling) -> None:
    """Refuse to train or extend a model with a scaling that can only be measured.

    Raises:
        UserError: why, and what can be done.
    """
    if scaling.untrainable:
        raise UserError(
            f"a model scaled by {scaling.method!r} is measured, and neither trained nor extended: {scaling.untrainable}; take the scaling out of its "
            "config.json (rope_scaling null), which gives the model that it was pretrained as"
        )


def rotated_apart(now: Positions) -> str:
    """Why devices cannot share a window: LongRoPE's modules choose their factors by the farthest position that they see. Empty where they can."""
    if not (isinstance(now, RopeConfig) and now.turns_by_length):
        return ""
    return (
        f"devices that share a window rotate it by the same factors, and {now.scaling.label} has others for short inputs; use --cp 1, or --factors with "
        "one list"
    )


def refuse_as_it_is(now: Positions, window: int, method: str, parameters: Mapping[str, Any]) -> None:
    """Hold a training that leaves positions as they are, in the model's own window or by method plain in a longer one, against the model.

    Raises:
        UserError: parameters that nothing reads, or a scaling that cannot be trained so.
    """
    for name in parameters:
        raise UserError(
            f"--{name.replace('_', '-')} says how a model is extended, and nothing is: the model reads {now.window} tokens, and this "
            f"is method {method} at window {window}; leave it out"
        )
    refuse_untrainable(now.scaling)
    if window > now.window and not isinstance(now.scaling, Plain):
        raise UserError(
            f"method plain trains an unscaled model past its window, and this one is scaled ({now}); use --method auto, or train "
            f"it at its own window {now.window}"
        )
