"""The RoPE of a Hugging Face config.json, read as a `RopeConfig`; write_rope.py writes one.

in   the dictionary of a config.json, in any spelling: v4 (`rope_theta`, `rope_scaling`) or v5 (`rope_parameters`)
out  a `RopeConfig`

Pure JSON, no torch: the planner, the theory and `extend` read a model of any size in milliseconds. That transformers reads
the written file the same way is not assumed here; `model.verify` holds it against the inv_freq that transformers computes.
"""

from __future__ import annotations

from typing import Any

from ropewalk.checkpoint.class_defaults import class_defaults, text_type, with_defaults
from ropewalk.checkpoint.families import family_of, is_language_model, refuse_without_rope
from ropewalk.checkpoint.family import FULL_LAYERS
from ropewalk.checkpoint.named_scaling import SCALING_KEYS, named_original, read_scaling, rope_type_of
from ropewalk.checkpoint.named_twice import named_twice
from ropewalk.checkpoint.rope_config import RopeConfig, text_section
from ropewalk.checkpoint.ropewalk_block import read_block
from ropewalk.checkpoint.window import (
    NOTHING_SAID,
    Answers,
    WindowQuestion,
    answered_by_keys,
    doubt,
    readings,
    readings_of_block,
    second_lengths,
    settled,
)
from ropewalk.errors import Unsupported, UserError
from ropewalk.rope.config_numbers import as_number, whole_number
from ropewalk.rope.scaling import Dynamic, Ntk, Proportional, Rope


def read_rope(
    config_dict: dict[str, Any], *, answers: Answers = NOTHING_SAID, tokenizer_length: int | None = None
) -> RopeConfig:
    """What a config.json says of RoPE. Windows that it leaves open are no error here: `RopeConfig.question` says what is open.

    Args:
        config_dict: of the config.json.
        answers: what the user said of the windows.
        tokenizer_length: the tokenizer's model_max_length, which may answer an open question.

    Raises:
        UserError: no RoPE, a RoPE that no config can scale, a scaling that ropewalk does not know, a lost rope_theta, or an answer
            that contradicts the config.
    """
    text = text_section(config_dict)
    model_type = text_type(config_dict)
    refuse_without_rope(text, model_type)
    text = with_defaults({**text, "model_type": model_type})
    entry, unscaled = rope_entries(text, model_type)
    rope_theta = _rope_theta(text, entry, model_type, config_dict)
    head_dim = rotated_coordinates(text, entry, FULL_LAYERS)
    entry, rope_theta = _stretched(entry, rope_theta, head_dim, family_of(model_type).theta_stretch)
    named, named_by = _length(text, config_dict, answers)
    original = named_original(entry, text, named=named)
    scaling = read_scaling(entry, text, model_type, named=named, original=original or named)
    pretrained = family_of(model_type).pretrained_window
    block = config_dict.get("ropewalk") or {}
    if block:
        rope_theta, scaling, windows = read_block(block, Rope(head_dim, rope_theta, original or named), scaling)
        candidates = readings_of_block(scaling, windows, pretrained)
        open_question = (
            f"its ropewalk block names windows that differ by another factor ({windows.original} and {windows.window})"
        )
    else:
        candidates = readings(scaling, named, original, pretrained, after=bool(unscaled))
        length = f"its {named_by}" if named_by else "max_position_embeddings"
        open_question = f"its config does not say whether {length} {named} is the window before or after that"
    candidates = settled(scaling, candidates, answers, pretrained)
    key = named_by
    if len(candidates) > 1 and not block:
        candidates, key = answered_by_keys(candidates, second_lengths(text, config_dict), tokenizer_length) or (
            candidates,
            key,
        )
    windows = candidates[0]
    if scaling.original_is_named and not block and windows.window != named:
        key = f"{scaling.method} factor {scaling.factor:g}"
    rope = Rope(head_dim, rope_theta, windows.original)
    lengths = [*second_lengths(text, config_dict).values(), tokenizer_length or 0]
    asks = not block and answers == NOTHING_SAID and not isinstance(scaling, Dynamic)  # of that, the two are one
    return RopeConfig(
        family=model_type,
        rope=rope,
        scaling=scaling,
        window=windows.window,
        unscaled={
            layer_type: Rope(rotated_coordinates(text, of_layers, layer_type), of_layers["rope_theta"], rope.window)
            for layer_type, of_layers in unscaled.items()
        },
        block=block,
        question=WindowQuestion(scaling, open_question, candidates) if len(candidates) > 1 else None,
        window_key=key,
        doubt=doubt(scaling, named, original, lengths) if asks else None,
        named_twice=named_twice(text_section(config_dict), model_type, block=bool(block)),
    )


def _length(text: dict[str, Any], config_dict: dict[str, Any], answers: Answers) -> tuple[int, str]:
    """The length that max_position_embeddings says, in tokens; and what says it where the config leaves that key out.

    In its place stand what the user said, the one other length that the config names, or the default of its class in transformers.

    Raises:
        UserError: several other lengths, which disagree.
    """
    section, key = text_section(config_dict), "max_position_embeddings"
    own = class_defaults(text["model_type"]).get("names", {}).get(key, key)
    if section.get(key) is not None or section.get(own) is not None:
        return whole_number(text, key), ""
    if said := answers.original_window or answers.current_window:
        return said, ""
    lengths = second_lengths(section, config_dict)
    if len(set(lengths.values())) > 1:
        named = ", ".join(f"{name} {tokens}" for name, tokens in lengths.items())
        answer = " or ".join(f"--current-window {tokens}" for tokens in sorted(set(lengths.values())))
        raise UserError(
            f"this model's config names no max_position_embeddings, and other lengths disagree ({named}); add {answer}"
        )
    if lengths:
        name = next(iter(lengths))
        return whole_number(lengths, name), name
    return whole_number(text, key), "class's default of max_position_embeddings"


def rope_entries(text: dict[str, Any], model_type: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The RoPE dictionary in force (v5's rule: `rope_scaling` wins), and by layer type those of layers that are not scaled."""
    parameters, legacy = _object(text, "rope_parameters"), _object(text, "rope_scaling")
    family, defaults = family_of(model_type), class_defaults(model_type).get("rope_parameters", {})
    if not any(isinstance(value, dict) for value in (defaults | parameters).values()):
        # In transformers 5 the older dictionary takes the place of the newer, whose "rope_type": "default" must not win over its "type".
        past = SCALING_KEYS - {"rope_theta"} if legacy else ()
        return {**{key: value for key, value in parameters.items() if key not in past}, **legacy}, {}
    if FULL_LAYERS not in defaults | parameters or not isinstance((defaults | parameters)[FULL_LAYERS], dict):
        raise UserError(
            f"{model_type} has a RoPE per layer type ({', '.join(defaults | parameters)}), and none for {FULL_LAYERS} layers, "
            "which are those that ropewalk scales; choose another family"
        )
    unscaled = {
        layer_type: _unscaled_entry(
            text, layer_type, {**(defaults.get(layer_type) or {}), **_object(parameters, layer_type)}
        )
        for layer_type in (defaults | parameters)
        if layer_type != FULL_LAYERS and isinstance((defaults | parameters)[layer_type], dict)
    }
    flat = {key: value for key, value in parameters.items() if not isinstance(value, dict)}
    whole = parameters.get(FULL_LAYERS) or (defaults[FULL_LAYERS] if not family.full_scaling_key else {})
    return {**flat, **whole, **legacy}, unscaled


def _unscaled_entry(text: dict[str, Any], layer_type: str, entry: dict[str, Any]) -> dict[str, Any]:
    """The RoPE dictionary of layers that are not scaled; those that slide, mostly."""
    if entry.get("rope_type", "default") != "default":
        raise UserError(
            f"the {layer_type} layers of this model are scaled ({entry['rope_type']}), and ropewalk scales {FULL_LAYERS} layers alone; "
            "start from the model it was made from"
        )
    key = family_of(str(text.get("model_type", ""))).local_theta_key
    named = _object(_object(text, "rope_parameters"), layer_type).get(
        "rope_theta", text.get(key, entry.get("rope_theta"))
    )
    return {"rope_type": "default", **entry, "rope_theta": as_number(named, f"the {layer_type} layers' rope_theta")}


def _rope_theta(text: dict[str, Any], entry: dict[str, Any], model_type: str, config_dict: dict[str, Any]) -> float:
    """rope_theta as the config names it, or the family's default where a config of v4 may leave it out."""
    older = family_of(model_type).theta_key or "rotary_emb_base"
    named = entry.get("rope_theta", text.get("rope_theta", text.get(older)))
    if named is not None:
        return as_number(named, "rope_theta")
    written_by_v5 = "rope_parameters" in text or str(config_dict.get("transformers_version", "0")).split(".")[0] >= "5"
    defaults = class_defaults(model_type).get("rope_parameters", {})
    default = defaults.get(FULL_LAYERS, defaults).get("rope_theta")
    if model_type and not is_language_model(model_type):
        raise Unsupported(
            f"{model_type} is no language model that ropewalk knows, and its config names no rope_theta; choose a RoPE model (Llama, "
            "Mistral, Qwen, Gemma, GPT-NeoX, Phi-3, …) as transformers has it"
        )
    if default is None or written_by_v5 or "rope_theta" in text:  # null, which no reader replaces
        raise UserError(
            f"the config of this {model_type or 'unnamed'} model names no rope_theta, so its inv_freq is lost (a reader would "
            'silently take a default); put the model\'s own value back, as "rope_theta": 10000.0 for LLaMA'
        )
    return default


def _stretched(entry: dict[str, Any], rope_theta: float, head_dim: int, key: str) -> tuple[dict[str, Any], float]:
    """A "dynamic" scaling that only stretches rope_theta, the same at every length, is no scaling but the rope_theta of pretraining."""
    if rope_type_of(entry) != "dynamic" or not entry.get(key):
        return entry, rope_theta
    return {"rope_type": "default"}, Ntk(as_number(entry[key], key)).rope_theta(Rope(head_dim, rope_theta, 1))


def rotated_coordinates(text: dict[str, Any], entry: dict[str, Any], layer_type: str) -> int:
    """d, the coordinates of a head that are rotated in layers of a type."""
    defaults = class_defaults(text["model_type"]).get("rope_parameters", {})
    head = whole_head(text, layer_type)
    if rope_type_of(entry) in Proportional.rope_types:  # its share is one of pairs: all coordinates have one, some of 0
        return head
    share = entry.get("partial_rotary_factor", text.get("partial_rotary_factor", text.get("rotary_pct")))
    if share is None and text.get(key := family_of(text["model_type"]).rotated_key) is not None:
        share = whole_number(text, key) / head
    if share is None:
        share = defaults.get(layer_type, defaults).get("partial_rotary_factor", 1.0)
    if not 0 < as_number(share, "partial_rotary_factor") <= 1:
        raise UserError(
            f"the rotated share of a head is above 0 and at most 1, got {share}; check partial_rotary_factor in the config"
        )
    return int(head * share)


def whole_head(text: dict[str, Any], layer_type: str = FULL_LAYERS) -> int:
    """Coordinates of a head in layers of a type, rotated or not."""
    family = family_of(text["model_type"])
    if family.full_head_key and layer_type == FULL_LAYERS:
        # transformers 5.23 writes the overrides of single layers, which are the full ones here, in the place of the key.
        # It writes none where all layers have one size.
        overrides = [layer.get("head_dim") for layer in _object(text, "per_layer_config").values()]
        usual = text.get("head_dim") if text.get("per_layer_config") == {} else family.full_head_dim
        named = {"head_dim": overrides[0] if overrides else text.get(family.full_head_key, usual)}
        return whole_number(named, "head_dim")
    # Null means absent. 0 is a wrong value: it is looked up, so that it is refused, where `or` would take it for absent.
    keys = ("qk_rope_head_dim", "head_dim", "kv_channels")
    key = next((key for key in keys if text.get(key) is not None), None)
    if key:
        return whole_number(text, key)
    return whole_number(text, "hidden_size") // whole_number(text, "num_attention_heads")


def _object(text: dict[str, Any], key: str) -> dict[str, Any]:
    """The dictionary under a key; empty where it is null or absent."""
    value = text.get(key)
    if not isinstance(value, dict | None):
        raise UserError(f"a model's config names {key} as an object or null, got {value!r}; mend its config.json")
    return value or {}
