"""Write what transformers' config classes take where a config.json says nothing, for families.py to read without transformers.

python docs/make_families.py

in   the config classes of the installed transformers
out  src/ropewalk/checkpoint/class_defaults.json, a line a family; tests/checkpoint/test_families.py holds it to the classes
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

ROOT = Path(__file__).resolve().parents[1]
DEFAULTS = ROOT / "src" / "ropewalk" / "checkpoint" / "class_defaults.json"
#: Keys that RoPE, the layout of layers or the count of weights depend on.
KEYS = """
hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim vocab_size tie_word_embeddings
max_position_embeddings sliding_window use_sliding_window max_window_layers attention_chunk_size no_rope_layer_interval
sliding_window_pattern global_attn_every_n_layers full_attention_interval window_pattern alibi position_embedding_type use_mem_rope
qk_rope_head_dim attention_bias attention_out_bias mlp_bias use_bias use_qkv_bias use_qk_norm use_parallel_residual
num_local_experts num_experts num_experts_per_tok moe_intermediate_size intermediate_size_mlp interleave_moe_layer_step
shared_expert_intermediate_size decoder_sparse_step
""".split()


#: Families whose classes in transformers 4.57 and 5 take another rope_theta where a config.json names none: it has to.
DISPUTED = {"cohere", "falcon_h1", "olmo3", "persimmon", "qwen3_vl_text", "qwen3_vl_moe_text"}


def defaults_of(name: str) -> dict[str, Any]:
    """What a config class takes where a config.json says nothing; nulls, which mean "derived from the others", left out.

    `names`: keys that a family has another name for.
    """
    config_class: Any = transformers.CONFIG_MAPPING[name]
    declared = {field.name: field.default for field in dataclasses.fields(config_class)}
    defaults = {key: declared[key] for key in KEYS if isinstance(declared.get(key), int | float | str)}
    rope_parameters = config_class().rope_parameters
    for entry in [rope_parameters, *(value for value in rope_parameters.values() if isinstance(value, dict))]:
        if name in DISPUTED:
            entry.pop("rope_theta", None)
    names = {key: own for key, own in config_class.attribute_map.items() if key in KEYS}
    defaults |= {key: declared[own] for key, own in names.items() if isinstance(declared.get(own), int | float | str)}
    return defaults | ({"names": names} if names else {}) | {"rope_parameters": rope_parameters}


def text_types() -> dict[str, str]:
    """By the `model_type` of a multimodal config, that of its language model where its `text_config` names none."""
    types: dict[str, str] = {}
    for name in sorted({*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES}):
        with contextlib.suppress(StrictDataclassError, TypeError, ValueError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            text = getattr(transformers.CONFIG_MAPPING[name](), "text_config", None)
            if getattr(text, "model_type", ""):
                types[name] = text.model_type
    return types


def language_models() -> list[str]:
    """Every `model_type` that a language model's section of a config.json can have."""
    names = {*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *text_types().values()}
    return sorted(name for name in names if name in transformers.CONFIG_MAPPING)


def class_defaults() -> dict[str, dict[str, Any]]:
    """By `model_type`, of every family that has RoPE."""
    families: dict[str, dict[str, Any]] = {}
    for name in language_models():
        config_class = transformers.CONFIG_MAPPING[name]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                has_rope = bool(getattr(config_class(), "rope_parameters", None))
            except StrictDataclassError:
                continue  # no model of this family can be made from defaults
        if has_rope:
            families[name] = defaults_of(name)
    return families


def defaults_text() -> str:
    """The file: a line a family."""
    lines = [f"  {json.dumps(name)}: {json.dumps(entry, sort_keys=True)}" for name, entry in class_defaults().items()]
    lines = [f'  "transformers": "{transformers.__version__}"', f'  "text_types": {json.dumps(text_types())}', *lines]
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    DEFAULTS.write_text(defaults_text(), encoding="utf-8")
