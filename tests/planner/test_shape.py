"""A model's shape out of its config: weights, keys and what may share a window, against transformers' own models."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import ropewalk
from on_paper import CONFIGS, LLAMA, config_of, job_of
from ropewalk import testing
from ropewalk.checkpoint.class_defaults import text_type
from ropewalk.checkpoint.families import family_of
from ropewalk.errors import UserError
from ropewalk.model.architecture import auto_class, decoder_of
from ropewalk.model.layers import layout_of
from ropewalk.planner import plan
from ropewalk.planner.named import shape_of
from ropewalk.planner.shape import read_shape

COUNTED = [name for name, config in CONFIGS.items() if family_of(text_type(config.to_dict())).layers is not None]
#: Billions of weights, as their makers and transformers have them, of published configs that leave out class defaults.
PUBLISHED_CONFIGS: dict[str, tuple[dict[str, Any], float]] = {
    "SmolLM3 3B": (
        {"model_type": "smollm3", "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
         "num_key_value_heads": 4, "vocab_size": 128256},
        3.075,
    ),
    "Nemotron-Mini 4B": (
        {"model_type": "nemotron", "hidden_size": 3072, "intermediate_size": 9216, "num_hidden_layers": 32, "num_attention_heads": 24,
         "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 256000, "tie_word_embeddings": False},
        4.191,
    ),
    "Command R7B": (
        {"model_type": "cohere2", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
         "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 256000},
        8.028,
    ),
    "Gemma 3 4B": (
        {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240,
                                                 "num_hidden_layers": 34, "sliding_window": 1024}},
        3.880,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COUNTED)
def test_weights_are_counted_as_transformers_builds_them(name: str) -> None:
    config = CONFIGS[name]
    with torch.device("meta"):
        model = auto_class(config.to_dict()).from_config(config)
    shape = read_shape(json.loads(config.to_json_string(use_diff=False)), name=name)
    # Of a multimodal model the language model is counted.
    weights = {*decoder_of(model).parameters(), *model.get_output_embeddings().parameters()}
    assert shape.counted == sum(weight.numel() for weight in weights)


@pytest.mark.parametrize("name", PUBLISHED_CONFIGS)
def test_published_configs_that_leave_out_class_defaults_have_their_weights(name: str) -> None:
    config, billions = PUBLISHED_CONFIGS[name]
    assert round(read_shape(config, name=name).counted / 1e9, 3) == billions


def test_the_papers_models_have_the_weights_that_llama_reports() -> None:
    # Touvron et al. 2023, table 2: 6.7, 13.0, 32.5 and 65.2 billion.
    assert [round(shape.parameters / 1e9, 1) for shape in LLAMA.values()] == [6.7, 13.0, 32.5, 65.3]
    assert round(LLAMA["llama-65b"].parameters / 1e9, 2) == 65.29


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "mistral-v0.1"])
def test_a_token_costs_what_the_training_log_counts(family: str) -> None:
    from ropewalk.training import lora
    from ropewalk.training.throughput import flops_per_token

    model = testing.tiny(family, window=64, num_key_value_heads=2)
    shape = read_shape(model.config.to_dict(), name="tiny")
    assert shape.flops(64) == pytest.approx(flops_per_token(model, 64), rel=1e-12)
    adapted, plain = lora.add(model, rank=4, alpha=8), job_of(shape, 64)
    job = replace(plain, recipe=replace(plain.recipe, mode="lora"))
    assert job.flops / 64 == pytest.approx(flops_per_token(adapted, 64), rel=1e-12)
    assert job.flops < 0.9 * plain.flops


def test_layers_with_a_sliding_window_cost_less_attention() -> None:
    gemma = read_shape(CONFIGS["gemma3_text"].to_dict(), name="gemma")
    assert (gemma.sliding, gemma.sliding_window) == (1, 16)
    full = replace(gemma, sliding=0)
    assert gemma.attention_flops(64) < full.attention_flops(64)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "mistral-v0.1", "cohere2"])
def test_keys_are_those_that_transformers_lets_a_query_see(family: str) -> None:
    model = testing.tiny(family, window=64, attn_implementation="eager").eval()
    weights = model(torch.zeros(1, 64, dtype=torch.long), output_attentions=True).attentions
    seen = [float((layer[0, 0] > 0).sum()) / 64 for layer in weights]
    # A triangle is counted as half its square, without half of the diagonal: half a key a query.
    assert layout_of(model).keys_seen(64) == pytest.approx(sum(seen), abs=0.6 * len(seen))


@pytest.mark.parametrize(
    "key", ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"]
)
def test_a_missing_key_is_named(key: str) -> None:
    # Of a family whose class is not known: what a known one's config leaves out is its class's.
    config = {k: v for k, v in CONFIGS["llama"].to_dict().items() if k != key} | {"model_type": "of nobody"}
    with pytest.raises(UserError, match=key):
        read_shape(config, name="x")


def test_layers_of_another_kind_are_refused_by_their_key() -> None:
    with pytest.raises(UserError, match="kv_lora_rank"):
        read_shape({**CONFIGS["llama"].to_dict(), "model_type": "deepseek_v3", "kv_lora_rank": 512}, name="x")


def test_a_plan_with_its_sliding_window_raised_is_of_the_model_that_is_trained(tmp_path) -> None:
    """Mistral v0.1: each layer sees 4096 of 32768 tokens, and 16384 is a longer window once they see it."""
    base = testing.tiny_directory(tmp_path / "base", "mistral", window=64, sliding_window=16)
    with pytest.raises(UserError, match="reads 64 tokens already"):
        plan(base, window=32, gpus="H100")
    planned = plan(base, window=32, gpus="H100", raise_sliding_window=True)
    made = ropewalk.extend(base, window=32, out=tmp_path / "longer", raise_sliding_window=True)
    assert (planned.info.original_window, planned.info.scaling) == (16, made.scaling)
    assert planned.job.shape.sliding_window == 33


def test_a_row_for_a_shorter_window_is_of_the_model_whose_layers_see_that_window(tmp_path) -> None:
    """Phi-3-mini-4k: a reach of the window's own length sees all of it, and was masked where it was typed and not in the row."""
    path = config_of(
        tmp_path / "a", "phi3", hidden_size=3072, intermediate_size=8192, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=32, vocab_size=32064, sliding_window=47,
    )  # fmt: skip
    asked = dict(gpus="1xL4", raise_sliding_window=True)
    row = plan(path, window=2**19, **asked).others[-1]
    words = row.options.split()
    typed = {name[2:].replace("-", "_"): value for name, value in zip(words[::2], words[1::2], strict=True)}
    numbers = {name: int(typed.pop(name)) for name in ("window", "base_bits") if name in typed}
    anew = plan(path, **asked, **typed, **numbers)
    assert anew.fits and numbers["window"] < 2**19
    assert (anew.memory, anew.time) == (row.memory, row.time)
    assert not anew.job.shape.slides(anew.job.length)


def test_chips_share_the_window_of_a_model_whose_layers_were_raised_to_see_all_of_it(tmp_path) -> None:
    path = config_of(tmp_path / "a", "mistral-v0.1")
    asked = dict(gpus="2x3090", window=2**20, batch_size=1)
    with pytest.raises(UserError, match="2 chips cannot share 1 windows"):
        plan(path, **asked)
    assert plan(path, **asked, raise_sliding_window=True).job.cp == 2
    assert plan(path, **asked, cp=2, raise_sliding_window=True).job.cp == 2


@pytest.mark.parametrize("family", ["gemma3_text", "gemma2", "gpt_oss", "mistral-v0.1", "falcon-7b", "seed_oss"])
def test_chips_share_a_window_in_a_plan_only_where_they_do_in_training(family: str, tmp_path: Path) -> None:
    path = config_of(tmp_path / "a", family)
    asked = dict(window=2**20, batch_size=8)
    planned = plan(path, gpus="8x3090", **asked)
    assert planned.job.cp == 1 and all(row.job.cp == 1 for row in planned.others)
    with pytest.raises(UserError, match="use --cp 1"):
        plan(path, gpus="8x3090", cp=2, **asked)
    with pytest.raises(UserError, match="2 chips cannot share 1 windows"):
        plan(path, gpus="2x3090", window=2**20, batch_size=1)
    llama = config_of(tmp_path / "b", "llama")
    assert plan(llama, gpus="2x3090", window=2**20, batch_size=1).job.cp == 2


def test_chips_share_no_window_that_longrope_turns_by_the_farthest_position(tmp_path: Path) -> None:
    scaling = dict(rope_type="longrope", short_factor=[1.0] * 8, long_factor=[2.0] * 8)
    keys = dict(sliding_window=None, rope_parameters=scaling, original_max_position_embeddings=32)
    path = config_of(tmp_path / "a", "phi3", **keys)
    asked = dict(gpus="2x3090", batch_size=2)
    assert plan(path, cp=2, window=128, **asked).job.cp == 2  # auto takes another method, by one list of factors
    with pytest.raises(UserError, match="rotate it by the same factors, and LongRoPE has others"):
        plan(path, cp=2, window=64, **asked)
    with pytest.raises(UserError, match="2 chips cannot share 1 windows"):
        plan(path, window=64, gpus="2x3090", batch_size=1)


@pytest.mark.parametrize("family", testing.PUBLISHED)
def test_what_a_config_says_of_sharing_a_window_is_what_transformers_model_allows(family: str) -> None:
    model = testing.tiny(family)
    config, layout = model.config.get_text_config(), layout_of(model)
    kinds = getattr(config, "layer_types", None) or [
        "sliding" if getattr(config, "sliding_window", None) else "full_attention"
    ]
    full = all(kind == "full_attention" for kind in kinds)
    replaceable = model._supports_sdpa and model._can_set_attn_implementation()
    more = ("attn_logit_softcapping", "attention_dropout", "kv_lora_rank", "attention_chunk_size")
    assert layout.is_plain == (full and replaceable and not any(getattr(config, key, None) for key in more))


def test_hemp_and_directories_are_read_without_weights_or_torch(tmp_path: Path) -> None:
    directory = testing.tiny_directory(tmp_path / "a", window=64)
    assert shape_of(directory).stored == shape_of(directory).counted
    assert shape_of("hemp").stored == shape_of("hemp").counted
    (directory / "model.safetensors").unlink()
    assert shape_of(directory).stored is None
    code = (
        "import sys; from ropewalk.planner.planner import plan; "
        f"plan({str(directory)!r}, window=128, gpus='H100'); plan('hemp', window=1024, gpus='8xH200'); "
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
