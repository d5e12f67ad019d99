"""The `ropewalk` block of a config.json: what its other keys cannot say.

in   a scaling, the RoPE as pretrained, windows, steps, history; or a block and what the other keys say
out  the block's dictionary; or the RoPE as pretrained, the scaling and the window
"""

from __future__ import annotations

from typing import Any

from ropewalk.checkpoint.window import Windows
from ropewalk.errors import UserError
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
        The pretrained rope_theta, the scaling, the windows. The block alone knows the original window, and a scaling of which the
        other keys show nothing but another rope_theta (NTK, ABF).

    Raises:
        UserError: the block is damaged, or contradicts the other keys.
    """
    try:
        windows = Windows(int(block["original_window"]), int(block["window"]))
        scaling, rope_theta = from_dict(block["scaling"]), float(block["rope_theta"])
    except (KeyError, TypeError, ValueError, UserError) as error:
        raise UserError(f"the config's ropewalk block is damaged ({error!r}); run `ropewalk extend` again") from None
    if not scaling.rope_types:
        pretrained = Rope(rope.head_dim, rope_theta, windows.original)
        _, scaled_theta = scaling.config_entry(pretrained)
        if abs(scaled_theta / rope.rope_theta - 1) > 1e-9:
            raise UserError(
                f"the ropewalk block says {scaling.label} factor {scaling.factor:g} on rope_theta {rope_theta:g}, which makes "
                f"{scaled_theta:.6g}, but the config has {rope.rope_theta:.6g}; run `ropewalk extend` on the original model again"
            )
        return rope_theta, scaling, windows
    if (named.method, named.factor) != (scaling.method, scaling.factor):
        raise UserError(
            f"the ropewalk block says {scaling.method} with factor {scaling.factor:g}, but the config's RoPE keys say {named.method} "
            f"with factor {named.factor:g}: one was edited without the other; run `ropewalk extend` on the original model again"
        )
    return rope.rope_theta, named, windows
