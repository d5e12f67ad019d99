"""Write what transformers' config classes take where a config.json says nothing, and what ropewalk makes of every family.

python docs/make_families.py

in   the config classes of the installed transformers
out  src/ropewalk/checkpoint/class_defaults.json, a line a family, for families.py to read without transformers;
     docs/families.md, a verdict a family: each is extended in small, and proved, or refused with a sentence
     tests/checkpoint/test_families.py and tests/docs/test_families.py hold both to what is installed
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from ropewalk import testing
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.position_table import PositionTable
from ropewalk.errors import UserError
from ropewalk.model.architecture import auto_class
from ropewalk.model.extend import extended_config, prove_extension
from ropewalk.settings.scaling import ScalingOptions

ROOT = Path(__file__).resolve().parents[1]
VERDICTS = ROOT / "docs" / "families.md"
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
    made = config_class()
    if (
        vars(made).get("head_dim", 0) is None
    ):  # its readers divide the width by the heads, its RoPE functions stop at null
        defaults["head_dim"] = None
    rope_parameters = made.rope_parameters
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


def class_defaults() -> dict[str, Any]:
    """By `model_type`, of every family that has RoPE; and under `without_rope` the names of the others."""
    families: dict[str, Any] = {"without_rope": []}
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
        else:
            families["without_rope"].append(name)
    return families


def defaults_text() -> str:
    """The file: a line a family."""
    lines = [f"  {json.dumps(name)}: {json.dumps(entry, sort_keys=True)}" for name, entry in class_defaults().items()]
    lines = [f'  "transformers": "{transformers.__version__}"', f'  "text_types": {json.dumps(text_types())}', *lines]
    return "{\n" + ",\n".join(lines) + "\n}\n"


#: What published configs have where no model can be made of a class's own defaults.
AS_PUBLISHED: dict[str, dict[str, Any]] = {
    "dots1": {
        "n_routed_experts": 128,
        "num_experts_per_tok": 6,
        "n_group": 1,
        "topk_group": 1,
        "num_key_value_heads": 32,
    },
    "glm4_moe": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128},
    "lfm2_moe": {"layer_types": ["conv", "conv", "full_attention", "conv"] * 8},
}


def small_configs() -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """A config of every family: of a small published model where testing.py has one, else of its class's defaults; or why there is none."""
    configs: dict[str, Any] = {}
    without = {}
    names = {*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES}
    for name in sorted(names & set(transformers.CONFIG_MAPPING)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                configs[name] = transformers.CONFIG_MAPPING[name](**AS_PUBLISHED.get(name, {}))
        except (StrictDataclassError, TypeError, ValueError) as error:
            without[name] = " ".join(str(error).split())
    for name in reversed(testing.PUBLISHED):  # the first of a family stays
        config = testing.tiny_config(name)
        configs[config.model_type] = config
    dictionaries = {name: json.loads(config.to_json_string(use_diff=False)) for name, config in configs.items()}
    return dictionaries, {name: why for name, why in without.items() if name not in configs}


def verdict(name: str, config: dict[str, Any]) -> tuple[str, str]:
    """What becomes of a family: extended fourfold in small and proved, or refused; and its layers, or the sentence."""
    checkpoint = Checkpoint(name, Path("nowhere"), config)
    try:
        auto_class(config)
        if isinstance(checkpoint.positions, PositionTable):
            return "table interpolated", "a learned table of positions"
        options = ScalingOptions(method="auto")
        extended = extended_config(checkpoint, window=4 * checkpoint.rope.window, options=options)
        prove_extension(checkpoint, checkpoint.with_config(extended), options)
    except UserError as error:
        return "refused", str(error).replace("|", "\\|").replace("<", "&lt;")
    return "extended", str(checkpoint.layers)


def verdicts_text() -> str:
    """The page."""
    configs, without = small_configs()
    rows = [(name, *verdict(name, config)) for name, config in configs.items()]
    rows += [
        (name, "not tried", f"its class makes no config of its own defaults: {why}") for name, why in without.items()
    ]
    rows.sort()
    counts = Counter(outcome for _, outcome, _ in rows)
    summary = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
    table = "\n".join(f"| {name} | {outcome} | {sentence} |" for name, outcome, sentence in rows)
    return PAGE.format(version=transformers.__version__, families=len(rows), summary=summary, table=table)


PAGE = """# What becomes of each family

Every causal language model of transformers {version}, alone or beside an image encoder, by the `model_type` of its config.json:
{families} families, {summary}.

Each was extended fourfold in small (a published model's shape where ropewalk has one, else its class's defaults), by `--method auto`, and
proved: positions four times as far give what they gave before, the same positions something else, and the layers rotate and reach as
[read_layers.py](../src/ropewalk/checkpoint/read_layers.py) says. What is not extended is refused with the sentence beside it. `extend` and `train`
run the same proof on a small copy of the user's own config each time.

The same by name for language models inside multimodal ones (Mistral Small 3.1, Qwen3-VL, Gemma 3): the language model is extended, trained
and measured with text, and what stands beside it is carried as it is.

| family | verdict | layers, or the sentence |
|---|---|---|
{table}

python docs/make_families.py wrote this page.
"""


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    DEFAULTS.write_text(defaults_text(), encoding="utf-8")
    VERDICTS.write_text(verdicts_text(), encoding="utf-8")
