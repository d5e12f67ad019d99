"""A small random copy of a language model: one layer of each kind, narrow, with the RoPE, windows and head size of the original.

in   the dictionary of a config.json
out  its language model in small, in transformers' own class
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ropewalk.checkpoint.class_defaults import class_defaults, text_type
from ropewalk.checkpoint.files import write_json
from ropewalk.checkpoint.rope_config import text_section
from ropewalk.errors import UserError, is_shortage

_HEADS = 4
#: Tokens that layers see which do not see all.
SEEN = 8


def _at_most(size: int, keys: str) -> dict[str, int]:
    return dict.fromkeys(keys.split(), size)


#: How large a number of a small config is at most, by its key.
_LARGEST = {
    **_at_most(
        64,
        "vocab_size vocab_size_per_layer_input intermediate_size moe_intermediate_size shared_expert_intermediate_size "
        "shared_intermediate_size intermediate_size_mlp ffn_hidden_size moe_shared_expert_intermediate_size",
    ),
    **_at_most(
        16,
        "q_lora_rank kv_lora_rank o_lora_rank qk_nope_head_dim v_head_dim hidden_size_per_layer_input mamba_d_state "
        "linear_key_head_dim linear_value_head_dim",
    ),
    **_at_most(4, "mamba_n_heads num_experts num_local_experts n_routed_experts moe_num_experts"),
    **_at_most(2, "num_experts_per_tok moe_k moe_topk linear_num_key_heads linear_num_value_heads mamba_n_groups"),
    **_at_most(1, "n_group topk_group first_k_dense_replace"),
    **_at_most(0, "num_kv_shared_layers"),
    **_at_most(SEEN, "sliding_window attention_chunk_size attention_window_size"),
    "local_attention": 2 * SEEN,
}


def small_model(config_dict: dict[str, Any], *, code: str | None = None) -> Any:
    """A small random copy of a config's language model, in evaluation mode; the same weights each time.

    Args:
        config_dict: of the config.json.
        code: directory of trusted model code, for a family that transformers does not have.

    Raises:
        UserError: none could be made.
    """
    model_type = text_type(config_dict)
    text = {**text_section(config_dict), "model_type": model_type}
    try:
        config = _class_of(model_type, code)(**small_config(text, code=code))
        config.name_or_path = code or ""  # where transformers looks for a class of the checkpoint's own
        known = model_type in transformers.CONFIG_MAPPING
        bare = known and model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        if bare and type(config) not in transformers.AutoModel._model_mapping:
            raise ValueError("transformers has no class for this language model by itself")
        auto: Any = transformers.AutoModel if bare else transformers.AutoModelForCausalLM
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = auto.from_config(config, attn_implementation="eager", trust_remote_code=not known)
            _spread(model)
    except Exception as error:  # whatever keeps a family's own code from making one
        raise no_copy(str(model_type), error) from error
    return model.float().eval()


def no_copy(family: str, error: Exception) -> UserError:
    """What a user is told whose config no small copy can be made of, or none that runs; a shortage of memory is raised as it is."""
    if is_shortage(error):
        raise error
    reason = " ".join(str(error).split())[:200]
    return UserError(
        f"each extension is proved on a small random copy of the model, and none of this {family} config runs ({reason}); "
        "mend its config.json, or choose another family"
    )


def _spread(model: nn.Module) -> None:
    """Weights large enough that attention is neither even nor all on one token, so that a rotation shows."""
    for weight in model.parameters():
        if weight.dim() > 1:
            nn.init.normal_(weight, std=1 / weight.shape[-1] ** 0.5)


def _class_of(model_type: Any, code: str | None) -> Any:
    if code is None or model_type in transformers.CONFIG_MAPPING:
        return transformers.CONFIG_MAPPING[model_type]
    return type(transformers.AutoConfig.from_pretrained(code, trust_remote_code=True, local_files_only=True))


def _parsed(config_class: Any, text: dict[str, Any]) -> Any:
    """A config as transformers reads it from a file, infinities and all."""
    with tempfile.TemporaryDirectory(prefix="ropewalk-") as folder:
        write_json(Path(folder) / "config.json", text)
        return config_class.from_pretrained(folder, local_files_only=True)


def small_config(text: dict[str, Any], *, code: str | None = None) -> dict[str, Any]:
    """The keys of a small model's config, from a config's section of the language model."""
    config: dict[str, Any] = _parsed(_class_of(text.get("model_type"), code), text).to_dict()
    names = {
        key: own for key, own in class_defaults(str(text.get("model_type"))).get("names", {}).items() if own in config
    }
    config |= {key: config.pop(own) for key, own in names.items()}
    kept = _one_of_each(config)
    layers = config["num_hidden_layers"]
    small = {key: _fewer(value, layers, kept) for key, value in config.items()}
    if config.get("attn_layer_indices"):
        small["attn_layer_indices"] = [
            place for place, index in enumerate(kept) if index in config["attn_layer_indices"]
        ]
    small |= {key: min(value, _LARGEST[key]) for key, value in small.items() if _is_count(value) and key in _LARGEST}
    small |= {
        key: min(value, small["vocab_size"] - 1)
        for key, value in small.items()
        if key.endswith("token_id") and _is_count(value)
    }
    small |= _fewer_heads(config) | {"num_hidden_layers": len(kept), "dtype": "float32"}
    if "mamba_d_head" in small:
        small["mamba_d_head"] = "auto"  # which depends on the width
    return {names.get(key, key): value for key, value in small.items()}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_by_layer(value: Any, layers: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == layers
        and all(isinstance(entry, str | int | float | None) for entry in value)
    )


def _one_of_each(config: dict[str, Any]) -> list[int]:
    """Indices of the first layer of each sort, as far as lists by layer tell them apart; two layers at least."""
    layers = config["num_hidden_layers"]
    lists = [value for value in config.values() if _is_by_layer(value, layers)]
    lists.append([index in (config.get("attn_layer_indices") or ()) for index in range(layers)])
    sorts: dict[tuple[Any, ...], int] = {}
    for index in range(layers):
        sorts.setdefault(tuple(values[index] for values in lists), index)
    first = list(sorts.values())
    return first if len(first) > 1 or layers == 1 else [0, layers - 1]


def _fewer(value: Any, layers: int, kept: list[int]) -> Any:
    """A value of a config for the layers that are kept: lists by layer, and tables by a layer's index."""
    if _is_by_layer(value, layers):
        return [value[index] for index in kept]
    if isinstance(value, dict) and value and all(str(key).isdigit() for key in value):
        return {place: entry for place, index in enumerate(kept) for key, entry in value.items() if int(key) == index}
    return value


def _fewer_heads(config: dict[str, Any]) -> dict[str, Any]:
    """Fewer heads of the size they had, in groups as large as they were where that goes."""
    heads = config["num_attention_heads"]
    size = config.get("head_dim") or config["hidden_size"] // heads
    few = min(_HEADS, heads)
    keys = [key for key in ("num_key_value_heads", "num_kv_heads") if config.get(key)]
    groups = {key: max(1, few // max(1, heads // config[key])) for key in keys}
    return {"num_attention_heads": few, "hidden_size": few * size, **groups}
