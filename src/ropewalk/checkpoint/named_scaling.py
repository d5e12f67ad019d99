"""The scaling that a config's RoPE dictionary names, with its parameters.

in   the dictionary in force, the config's section of the text model
out  a `Scaling`; or a sentence why ropewalk has none for it
"""

from __future__ import annotations

from typing import Any

from ropewalk.errors import UserError, nearest
from ropewalk.rope.config_numbers import whole_number
from ropewalk.rope.scaling import SCALINGS, LongRope, Scaling

#: What scalings write into a RoPE dictionary. Any other key there (mrope_section, partial_rotary_factor) says something else and stays.
SCALING_KEYS = frozenset(
    "rope_type type rope_theta factor original_max_position_embeddings attention_factor beta_fast beta_slow truncate mscale "
    "mscale_all_dim low_freq_factor high_freq_factor short_factor long_factor finetuned alpha".split()
)


def named_original(entry: dict[str, Any], text: dict[str, Any], *, named: int) -> int | None:
    """The window before scaling, where a config names it: at the top level, which wins in transformers 5, or beside the factor.

    None, too, where a longrope dictionary names the window itself for it: that only says that attention is not rescaled.
    """
    key = "original_max_position_embeddings"
    original = next((whole_number(part, key) for part in (text, entry) if part.get(key) is not None), None)
    return None if original == named and rope_type_of(entry) in LongRope.rope_types else original


def rope_type_of(entry: dict[str, Any]) -> str:
    """The word by which a RoPE dictionary names its scaling, in either spelling."""
    return str(entry.get("rope_type") or entry.get("type") or "default")


def read_scaling(entry: dict[str, Any], text: dict[str, Any], model_type: str, *, named: int, original: int) -> Scaling:
    """The scaling that a RoPE dictionary names.

    Args:
        entry: the dictionary in force.
        text: the config's section of the text model.
        model_type: of the text model, for sentences.
        named: max_position_embeddings.
        original: the window before scaling; `named` where the config names none.

    Raises:
        UserError: a scaling that ropewalk does not know, or parameters that are absent or out of range.
    """
    rope_type = rope_type_of(entry)
    kind = next((kind for kind in SCALINGS.values() if rope_type in kind.rope_types), None)
    try:
        if kind is not None:
            return kind.from_config(entry, window=named, original=original)
    except KeyError as error:
        raise UserError(
            f"the config's {rope_type} RoPE scaling lacks {error}; put it back or start from the original model"
        ) from None
    names = [name for kind in SCALINGS.values() for name in kind.rope_types]
    raise UserError(
        f"this {model_type} model is scaled by {rope_type!r}, which ropewalk does not know; "
        + nearest(rope_type, names, "start from the model it was made from")
    )
