"""The `ropewalk` block of a config.json: what its other keys cannot say.

in   a scaling, the RoPE as pretrained, windows, steps, history; or a block and what the other keys say
out  the block's dictionary; or the RoPE as pretrained, the scaling and the window
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ropewalk.checkpoint.window import Windows
from ropewalk.errors import UserError, reason
from ropewalk.rope.config_numbers import number, whole_number
from ropewalk.rope.scaling import Rope, Scaling, from_dict, to_dict


def block_for(
    scaling: Scaling, rope: Rope, *, window: int, steps: int, history: list[dict[str, Any]]
) -> dict[str, Any]:
    """What stands under `ropewalk` in a config: what its other keys cannot say.

    Args:
        scaling: relative to `rope`, the rotary embedding as pretrained.
        window: tokens the model is meant for now.
        steps: fine-tuning steps since the last extension.
        history: the extensions so far, oldest first.
    """
    return {
        "original_window": rope.window,
        "window": window,
        "scaling": to_dict(scaling),
        "rope_theta": rope.rope_theta,
        "steps": steps,
        "history": history,
    }


def read_block(block: dict[str, Any], rope: Rope, named: Scaling) -> tuple[float, Scaling, Windows]:
    """What the `ropewalk` block says, held against what the config's other keys say.

    Args:
        block: the dictionary under `ropewalk`.
        rope, named: the RoPE and the scaling that the other keys name.

    Returns:
        The pretrained rope_theta, the scaling, the windows. The block alone knows the original window, and by which method a rotation
        was made that the other keys say in another way (NTK and ABF as a rope_theta, any as Phi-3's factors).

    Raises:
        UserError: the block is damaged, or contradicts the other keys.
    """
    try:
        windows = Windows(whole_number(block, "original_window"), whole_number(block, "window"))
        scaling, rope_theta = from_dict(block["scaling"]), number(block, "rope_theta")
    except (KeyError, TypeError, ValueError, UserError) as error:
        why = reason(error)
        raise UserError(f"the config's ropewalk block is damaged ({why}); run `ropewalk extend` again") from None
    pretrained = Rope(rope.head_dim, rope_theta, windows.original)
    if not _same_rotation(named, rope, scaling, pretrained):
        raise UserError(
            f"{_difference(named, rope, scaling, pretrained)}: one was edited without the other; run `ropewalk extend` on the original model again"
        )
    return rope_theta, scaling, windows


def _difference(named: Scaling, rope: Rope, scaling: Scaling, pretrained: Rope) -> str:
    """The keys that differ, each with the value that follows from the block and the one that is there."""
    try:
        (by_block, block_theta), (by_keys, keys_theta) = scaling.config_entry(pretrained), named.config_entry(rope)
    except UserError:  # no config says one of them
        by_block, by_keys = ({"rope_type": each.method, "factor": each.factor} for each in (scaling, named))
        block_theta, keys_theta = pretrained.rope_theta, rope.rope_theta
    by_block, by_keys = by_block | {"rope_theta": block_theta}, by_keys | {"rope_theta": keys_theta}
    keys = [key for key in by_block | by_keys if by_block.get(key) != by_keys.get(key)]
    if "rope_type" in keys:  # most others are of one type alone
        keys = [key for key in keys if key in by_block and key in by_keys]
    sides = [", ".join(f"{key} {side.get(key, 'absent')!s:.60}" for key in keys) for side in (by_block, by_keys)]
    return f"the ropewalk block says {sides[0]}, but the config's RoPE keys say {sides[1]}"


def _same_rotation(named: Scaling, rope: Rope, scaling: Scaling, pretrained: Rope) -> bool:
    """Whether two scalings, each of its own RoPE, turn and weigh alike at every length; 1e-6 is far below any other parameter's effect."""
    lengths = (1, max(rope.window, pretrained.window) + 1)
    return (
        all(
            np.allclose(named.inv_freq_at(rope, length), scaling.inv_freq_at(pretrained, length), rtol=1e-6, atol=0)
            for length in lengths
        )
        and abs(named.attention_factor(rope) / scaling.attention_factor(pretrained) - 1) < 1e-6
    )
