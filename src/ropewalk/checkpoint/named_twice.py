"""Keys of RoPE that a config names in two places, with two values: which of them is the model's own, nobody can tell.

in   a config's section of the language model
out  a sentence; empty where every key says one thing
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ropewalk.checkpoint.families import family_of
from ropewalk.checkpoint.family import FULL_LAYERS, SLIDING_LAYERS
from ropewalk.checkpoint.named_scaling import rope_type_of
from ropewalk.checkpoint.window import ORIGINAL_KEYS
from ropewalk.sentences import joined

#: The two dictionaries, as transformers 5 takes them; version 4 reads the first alone, llama.cpp the second before it.
BLOCKS = ("rope_scaling", "rope_parameters")
#: Words of one meaning.
_SAME_TYPES = {"su": "longrope", "mrope": "default"}
_NO_SCALING = {"default", "mrope"}


def named_twice(text: Mapping[str, Any], model_type: str, *, block: bool) -> str:
    """What a config's section names twice with two values, each with its place, and the way out; empty where it names nothing so.

    block: whether a `ropewalk` block, which is certain, stands in the config.
    """
    differing = {
        key: values
        for key, values in _named(text, model_type)
        if any(_differ(one, other) for one in values.values() for other in values.values())
    }
    if not differing:
        return ""
    key, values = next(iter(differing.items()))
    named = joined(f"{value if key != 'rope_type' else repr(value)} ({place})" for place, value in values.items())
    others = f"; so it does {', '.join(list(differing)[1:])}" if len(differing) > 1 else ""
    way_out = "ropewalk doctor --fix goes by the ropewalk block" if block else "take out the one that is wrong"
    return f"the config names {key} more than once, {named}{others}, and programs differ in which they take; {way_out}"


def _named(text: Mapping[str, Any], model_type: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each key with its values, by the place where they stand."""
    family, blocks = family_of(model_type), _blocks(text)
    top = {key: text[key] for key in text if not isinstance(text[key], dict)}
    elsewhere = {
        "rope_theta": ("rope_theta", family.theta_key, "rotary_emb_base"),
        "partial_rotary_factor": ("partial_rotary_factor", family.share_key, "rotary_pct"),
        "original_max_position_embeddings": ORIGINAL_KEYS,
    }
    for key in dict.fromkeys([*elsewhere, *(key for block in blocks.values() for key in block)]):
        if key in ("rope_type", "type"):
            continue
        values = {place: block[key] for place, block in blocks.items() if block.get(key) is not None}
        names = [name for name in elsewhere.get(key, ()) if top.get(name) is not None]
        values |= {name if name != key else "the top level": top[name] for name in names}
        if key == "partial_rotary_factor" and top.get(family.rotated_key) and top.get("head_dim"):
            values[f"{family.rotated_key} / head_dim"] = top[family.rotated_key] / top["head_dim"]
        yield key, values
    yield "rope_type", dict(_types(blocks))
    local = {
        "rope_parameters": _object(_object(text.get("rope_parameters")).get(SLIDING_LAYERS)).get("rope_theta"),
        family.local_theta_key: top.get(family.local_theta_key),
    }
    if family.local_theta_key not in ("", "rope_theta"):
        yield f"the {SLIDING_LAYERS} layers' rope_theta", {place: value for place, value in local.items() if value is not None}  # fmt: skip


def _blocks(text: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The RoPE dictionaries that are there, of the layers that see the whole window where there is one a layer type."""
    blocks = {place: _object(text.get(place)) for place in BLOCKS}
    whole = {place: _object(block.get(FULL_LAYERS)) or block for place, block in blocks.items()}
    flat = {place: {key: value for key, value in block.items() if not isinstance(value, dict)} for place, block in whole.items()}  # fmt: skip
    return {place: block for place, block in flat.items() if block}


def _types(blocks: Mapping[str, dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """The words for the scaling. A whole block that says "default" is passed over beside one that scales, which somebody put there."""
    scales = any(rope_type_of(block) not in _NO_SCALING for block in blocks.values())
    for place, block in blocks.items():
        named = {word: str(block[word]) for word in ("rope_type", "type") if block.get(word)}
        if scales and set(named.values()) <= _NO_SCALING:
            continue
        for word, value in named.items():
            yield f"{word} in {place}", _SAME_TYPES.get(value, value)


def _differ(one: Any, other: Any) -> bool:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (one, other))
    return abs(one - other) > 1e-9 * abs(one) if numbers else one != other


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
