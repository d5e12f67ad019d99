"""The scaling that a config's RoPE dictionary names, with its parameters.

in   the dictionary in force, the config's section of the text model
out  a `Scaling`; or a sentence why ropewalk has none for it
"""

from __future__ import annotations

from typing import Any

from ropewalk.errors import UserError
from ropewalk.rope.config_numbers import as_number, whole_number
from ropewalk.rope.scaling import SCALINGS, Linear, Scaling

#: Scalings of other tools that no class here stands for.
_REFUSED = {
    "dynamic": "its inv_freq changes with the length of each input, so there is no one rotation to train or to verify",
    "longrope": "its factors were searched per pair and cannot be composed with another scaling",
    "su": "its factors were searched per pair and cannot be composed with another scaling",
}


def named_original(entry: dict[str, Any], text: dict[str, Any]) -> int | None:
    """The window before scaling, where a config names it: at the top level, which wins in transformers 5, or beside the factor."""
    key = "original_max_position_embeddings"
    return next((whole_number(part, key) for part in (text, entry) if part.get(key) is not None), None)


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
    rope_type = str(entry.get("rope_type") or entry.get("type") or "default")
    kind = next((kind for kind in SCALINGS.values() if rope_type in kind.rope_types), None)
    try:
        if kind is not None:
            return kind.from_config(entry, window=named, original=original)
    except KeyError as error:
        raise UserError(
            f"the config's {rope_type} RoPE scaling lacks {error}; put it back or start from the original model"
        ) from None
    if rope_type in ("longrope", "su") and (factor := _uniform(entry, text, named)):
        return Linear(factor)
    reason = _REFUSED.get(rope_type, "ropewalk does not know it")
    raise UserError(
        f"this {model_type} model is scaled by {rope_type!r}: {reason}; start from the model it was made from"
    )


def _uniform(entry: dict[str, Any], text: dict[str, Any], window: int) -> float | None:
    """The one factor of a longrope block whose factors are all the same and whose attention is not rescaled: that is PI.

    Phi-3's config takes no other scaling, so this is how `write_rope` says linear to it.
    """
    lists = {key: entry.get(key) for key in ("short_factor", "long_factor")}
    factors = {as_number(x, key) for key, values in lists.items() if isinstance(values, list) for x in values}
    original = text.get("original_max_position_embeddings", entry.get("original_max_position_embeddings"))
    rescaled = entry.get("attention_factor", 1.0 if original == window else None)
    return factors.pop() if len(factors) == 1 and rescaled == 1.0 else None
