"""Why a reader would not load a config, or would get it wrong in another way than by its rotation: a function a reason.

in   a config's section of the language model, and the keys that the reader finds
out  the end of a sentence whose first word is the reader's name; None where there is nothing to object to
"""

from __future__ import annotations

from dataclasses import replace
from math import isclose
from typing import Any

from ropewalk.checkpoint.class_defaults import class_defaults
from ropewalk.checkpoint.families import family_of
from ropewalk.checkpoint.rope_config import text_section
from ropewalk.checkpoint.write_rope import lost_names
from ropewalk.readers.reader import BAD_VALUES, ORIGINAL, POSITIONS, Reader, model_type_of
from ropewalk.readers.spectra import Keys, attention_factor

#: Families whose pattern of layers no key of a GGUF file, or of mlx-lm's, says.
_BY_HEART = frozenset("gemma2 gemma3_text olmo3 gpt_oss cohere2".split())
#: How experts are chosen: the key, what llama.cpp takes it for, and what transformers takes where a config names none.
_ROUTERS: dict[str, tuple[str, Any, Any]] = {
    "qwen3_moe": ("norm_topk_prob", True, False),
    "qwen2_moe": ("norm_topk_prob", False, False),
    "olmoe": ("norm_topk_prob", False, False),
}
_LAYERS_OF_LITE = (26, 27)
_LARGEST_GEMMA = {"gemma2": 46, "gemma3_text": 62}
#: Language models that came after transformers 4.57.6.
_AFTER_4 = frozenset(
    "gemma4_text gemma4_unified_text ministral3 mistral4 qwen3_5_text qwen3_5_moe_text olmo_hybrid granite_swa granitemoe_swa "
    "cohere2_moe cohere_compass_text deepseek_v32 deepseek_v4 exaone_moe glm4_moe_lite glm_moe_dsa hyperclovax internlm3 "
    "iquestcoder kimi_linear laguna lfm2_moe lfm3 mellum mimo_v2_flash minicpm3 minimax_m2 nanochat nemotron_h solar_open "
    "step3p5 youtu zaya hy_v3 afmoe cwm jais2".split()
)


#: Counts that transformers 5 takes as whole numbers only; 4096.0 is none.
WHOLE = (
    POSITIONS, ORIGINAL, "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_size", "intermediate_size", "head_dim",
    "vocab_size", "sliding_window",
)  # fmt: skip


def no_whole_length(text: dict[str, Any], keys: Keys) -> str | None:
    key = next((key for key in WHOLE if isinstance(text.get(key), float | bool | str)), None)
    return f"takes {key} as a whole number only, not {text[key]!r}" if key else None


def earlier_longrope(text: dict[str, Any], keys: Keys) -> str | None:
    """Phi-3's class of transformers 5 takes "su" where the original window stands beside it, and its other classes nowhere."""
    known = model_type_of(text) == "phi3" and keys.entry.get(ORIGINAL)
    return "loads no rope_type 'su', as longrope was called at first" if keys.rope_type == "su" and not known else None


def su_elsewhere(text: dict[str, Any], keys: Keys) -> str | None:
    """transformers 4.57 takes "su" as `type` of Phi-3's rope_scaling alone."""
    return earlier_longrope(text, keys) if model_type_of(text) != "phi3" else None


#: A legacy `type` and its `rope_type` that mean one scaling.
SAME_TYPES = (["su", "longrope"], ["mrope", "default"])


def two_types(text: dict[str, Any], keys: Keys) -> str | None:
    """`type` and `rope_type` name two scalings."""
    old, new = keys.entry.get("type"), keys.entry.get("rope_type")
    differ = bool(old and new) and old != new and [old, new] not in SAME_TYPES
    return f"finds type {old!r} beside rope_type {new!r}" if differ else None


def whole_factor(text: dict[str, Any], keys: Keys) -> str | None:
    """A linear factor without a decimal point, over which vLLM and SGLang iterate."""
    factor = keys.entry.get("factor")
    whole = keys.rope_type == "linear" and isinstance(factor, int)
    return f"takes a linear factor as a float only: {factor}.0 in place of {factor}" if whole else None


def three_keys_of_phi3(text: dict[str, Any], keys: Keys) -> str | None:
    wrong = model_type_of(text) == "phi3" and keys.entry and set(keys.entry) != {"type", "short_factor", "long_factor"}
    return "takes Phi-3's rope_scaling with type, short_factor and long_factor, and no other key" if wrong else None


def factors_for_each_pair(text: dict[str, Any], keys: Keys) -> str | None:
    lists = [keys.entry[name] for name in ("short_factor", "long_factor") if isinstance(keys.entry.get(name), list)]
    wrong = next((len(each) for each in lists if len(each) != keys.rotated // 2), None)
    return f"wants a longrope factor for each of {keys.rotated // 2} pairs, not {wrong}" if wrong is not None else None


def longrope_without_factor(text: dict[str, Any], keys: Keys) -> str | None:
    answers = (keys.entry.get("factor"), keys.entry.get("attention_factor"), text.get(ORIGINAL))
    if keys.rope_type not in ("longrope", "su") or any(answers):
        return None
    return f"wants the factor of a longrope scaling, or {ORIGINAL} beside {POSITIONS}"


def layers_by_heart(text: dict[str, Any], keys: Keys) -> str | None:
    pattern, kinds = family_of(model_type_of(text)).pattern, text.get("layer_types")
    if pattern is None or model_type_of(text) not in _BY_HEART or not kinds:
        return None
    if kinds == replace(pattern, key="").layer_types(text, len(kinds)):
        return None
    return (
        f"takes every {pattern.every}th layer of {model_type_of(text)} models for a full one, whatever layer_types says"
    )


def scores_by_heart(text: dict[str, Any], keys: Keys) -> str | None:
    """llama.cpp divides Gemma's scores by the root of the head's size, or of width / heads in the largest model, known by its layers."""
    named, layers = text.get("query_pre_attn_scalar"), _LARGEST_GEMMA.get(model_type_of(text))
    if named is None or layers is None:
        return None
    whole = {**class_defaults(model_type_of(text)), **text}
    largest = whole["num_hidden_layers"] == layers
    known = whole["hidden_size"] / whole["num_attention_heads"] if largest else whole["head_dim"]
    return (
        None
        if named == known
        else f"divides scores by the root of {known:g}, whatever query_pre_attn_scalar {named!r} says"
    )


def router_by_heart(text: dict[str, Any], keys: Keys) -> str | None:
    key, known, default = _ROUTERS.get(model_type_of(text), ("", None, None))
    there = text.get(key, default)
    return (
        None
        if there == known
        else f"takes {known!r} for {key} in {model_type_of(text)} models, and this config has {there!r}"
    )


def deepseeks_scores(text: dict[str, Any], keys: Keys) -> str | None:
    """llama.cpp takes the temperature of DeepSeek's scores from YaRN's mscale_all_dim; run without it, the scores are others (2026.10).

    An attention factor beside it would be put into the scores of whole heads, too.
    """
    scaled = model_type_of(text) in ("deepseek_v2", "deepseek_v3") and keys.rope_type in ("linear", "yarn")
    wrong = scaled and (not keys.entry.get("mscale_all_dim") or not isclose(attention_factor(keys), 1))
    return (
        f"multiplies the scores of {keys.rope_type} {model_type_of(text)} models by a temperature of its own"
        if wrong
        else None
    )


def scores_without_mscale(text: dict[str, Any], keys: Keys) -> str | None:
    """DeepseekV2Attention of transformers 4.57 divides scores by the root of the head's size and no more; DeepseekV3Attention does."""
    wrong = model_type_of(text) == "deepseek_v2" and keys.rope_type == "yarn" and keys.entry.get("mscale_all_dim")
    return "leaves mscale_all_dim out of the scores of deepseek_v2 models" if wrong else None


def queries_by_position(text: dict[str, Any], keys: Keys) -> str | None:
    """vLLM finds the scaling of Ministral 3's queries by position under a name of Mistral's own files (models/mistral.py)."""
    wrong = keys.entry.get("llama_4_scaling_beta") and not text.get("llama_4_scaling")
    return "takes llama_4_scaling_beta from a key llama_4_scaling alone, which export writes" if wrong else None


def queries_by_heart(text: dict[str, Any], keys: Keys) -> str | None:
    """Whether DeepSeek's queries are of low rank: llama.cpp knows the Lite models by their number of layers and does not load others."""
    whole = {**class_defaults(model_type_of(text)), **text}
    layers = whole.get("num_hidden_layers")
    wrong = (
        model_type_of(text) in ("deepseek_v2", "deepseek_v3")
        and whole.get("q_lora_rank", 0) is None
        and layers not in _LAYERS_OF_LITE
    )
    return (
        f"loads {model_type_of(text)} models without q_lora_rank of 26 or 27 layers only, not {layers}"
        if wrong
        else None
    )


def unnamed_sigmoid(text: dict[str, Any], keys: Keys) -> str | None:
    wrong = model_type_of(text) == "deepseek_v3" and text.get("scoring_func") != "sigmoid"
    return (
        'takes the experts\' scores for a softmax where no "scoring_func": "sigmoid" stands in config.json (put it there)'
        if wrong
        else None
    )


def two_keys(text: dict[str, Any], keys: Keys) -> str | None:
    wrong = model_type_of(text) in ("olmo", "olmo2") and keys.entry and set(keys.entry) != {"type", "factor"}
    return "takes OLMo's rope_scaling with type and factor, and no other key" if wrong else None


def lost_key(text: dict[str, Any], keys: Keys) -> str | None:
    """A key that transformers 5 saved under another name only, where this reader takes its class's default."""
    lost = lost_names(text, family_of(model_type_of(text)))
    older, newer = next(iter(lost.items()), ("", ""))
    return f"takes {older} from a key of that name alone, and here it is {newer} {text[newer]!r}" if lost else None


def younger_family(text: dict[str, Any], keys: Keys) -> str | None:
    return f"knows no {model_type_of(text)} models" if model_type_of(text) in _AFTER_4 else None


#: Those at which a reader does not stop by itself: it loads the model and computes something else.
_SILENT = (
    scores_without_mscale, layers_by_heart, scores_by_heart, router_by_heart, unnamed_sigmoid, deepseeks_scores, queries_by_position, lost_key,
)  # fmt: skip


def silent_fault(reader: Reader, config: dict[str, Any]) -> str | None:
    """What a reader, which would load this config, gets wrong beside the rotation, without a word; None where nothing is known."""
    text = text_section(config)
    try:
        keys = reader.keys(config)
        objecting = (objection for objection in reader.objections if objection(text, keys))
        first = next(objecting, None)
    except BAD_VALUES:
        return None
    return first(text, keys) if first in _SILENT else None
