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
            f"the ropewalk block says {scaling.label} factor {scaling.factor:g} on rope_theta {rope_theta:g}, but the config's RoPE keys say "
            f"{named.method} with factor {named.factor:g} on rope_theta {rope.rope_theta:.6g}: one was edited without the other; run "
            "`ropewalk extend` on the original model again"
        )
    return rope_theta, scaling, windows


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
