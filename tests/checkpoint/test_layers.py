"""What is said of the layers of published configs: by hand, from their papers. tests/model/test_published.py holds it against the models."""

from __future__ import annotations

from typing import Any

import pytest

from ropewalk import testing
from ropewalk.checkpoint.layers import refuse_to_extend, with_raised_window
from ropewalk.checkpoint.read_layers import read_layers
from ropewalk.errors import UserError

MISTRAL: dict[str, Any] = {
    "model_type": "mistral", "num_hidden_layers": 32, "sliding_window": 4096, "max_position_embeddings": 32768,
}  # fmt: skip
SENTENCES: dict[str, tuple[dict[str, Any], str]] = {
    "Llama 3": ({"model_type": "llama", "num_hidden_layers": 32}, "32 layers; all rotate; all see the whole window"),
    "Mistral v0.1": (MISTRAL, "32 layers; all rotate; all see 4096 tokens only, 131041 through all layers"),
    "Mistral v0.2": ({**MISTRAL, "sliding_window": None}, "32 layers; all rotate; all see the whole window"),
    "Qwen 2.5": (
        {"model_type": "qwen2", "num_hidden_layers": 28, "use_sliding_window": False, "sliding_window": 32768},
        "28 layers; all rotate; all see the whole window",
    ),
    "Qwen 2 that slides": (
        {"model_type": "qwen2", "num_hidden_layers": 28, "use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 21},
        "28 layers; all rotate; 7 see 4096 tokens only, with the same RoPE",
    ),
    "SmolLM3": (
        {"model_type": "smollm3", "num_hidden_layers": 36, "no_rope_layers": [1, 1, 1, 0] * 9},
        "36 layers; 27 rotate, 9 have no positions; all see the whole window",
    ),
    "Gemma 3 4B": (
        {"model_type": "gemma3_text", "num_hidden_layers": 34, "sliding_window": 1024},
        "34 layers; all rotate; 29 see 1024 tokens only, with a RoPE of their own that is not scaled",
    ),
    "Gemma 2 2B": (
        {"model_type": "gemma2", "num_hidden_layers": 26, "sliding_window": 4096},
        "26 layers; all rotate; 13 see 4096 tokens only, with the same RoPE",
    ),
    "Command R7B": (
        {"model_type": "cohere2", "num_hidden_layers": 32, "sliding_window": 4096, "sliding_window_pattern": 4},
        "32 layers; 24 rotate, 8 have no positions; those that rotate see 4096 tokens only",
    ),
    "EXAONE 4 32B": (
        {"model_type": "exaone4", "num_hidden_layers": 64, "sliding_window": 4096, "sliding_window_pattern": "LLLG"},
        "64 layers; 48 rotate, 16 have no positions; those that rotate see 4096 tokens only",
    ),
    "EXAONE 4 1.2B": (
        {"model_type": "exaone4", "num_hidden_layers": 30, "sliding_window": None},
        "30 layers; all rotate; all see the whole window",
    ),
    "Llama 4 Scout": (
        {"model_type": "llama4_text", "num_hidden_layers": 48, "attention_chunk_size": 8192, "no_rope_layers": []},
        "48 layers; 36 rotate, 12 have no positions; those that rotate see 8192 tokens only",
    ),
    "Qwen3-Next": (
        {"model_type": "qwen3_next", "num_hidden_layers": 48},
        "12 of 48 layers have attention; all rotate; all see the whole window",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SENTENCES)
def test_a_published_models_layers_in_a_sentence(name: str) -> None:
    text, sentence = SENTENCES[name]
    assert str(read_layers(text)) == sentence


def test_layers_that_see_part_of_the_window_reach_farther_together() -> None:
    # Four layers of 64 tokens: 63 back each, and the token itself.
    text = {"model_type": "mistral", "num_hidden_layers": 4, "sliding_window": 64}
    assert read_layers(text).reach == 4 * 63 + 1
    assert read_layers({**text, "sliding_window": None}).reach is None


@pytest.mark.parametrize("name", ["Mistral v0.1", "Command R7B", "EXAONE 4 32B", "Llama 4 Scout"])
def test_R5_where_no_layer_needs_another_rotation_nothing_is_extended(name: str) -> None:
    text = SENTENCES[name][0]
    with pytest.raises(UserError, match="ropewalk train --method plain"):
        refuse_to_extend(read_layers(text), 65536, text["model_type"])


def test_a_sliding_window_as_long_as_the_new_window_hinders_nothing() -> None:
    layout = read_layers({**MISTRAL, "sliding_window": 131072})
    refuse_to_extend(layout, 131072, "mistral")
    with pytest.raises(UserError, match="--raise-sliding-window"):
        refuse_to_extend(layout, 131073, "mistral")


def test_R5_a_raised_window_starts_from_what_layers_saw_before() -> None:
    raised = with_raised_window(MISTRAL, read_layers(MISTRAL), 16384)
    assert (raised["sliding_window"], raised["max_position_embeddings"]) == (16385, 4096)
    assert MISTRAL["sliding_window"] == 4096
    refuse_to_extend(read_layers(raised), 16384, "mistral")
    scaled = {**MISTRAL, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}
    with pytest.raises(UserError, match="was scaled while its layers saw 4096 tokens"):
        with_raised_window(scaled, read_layers(scaled), 65536)
    with pytest.raises(UserError, match="here it does not"):
        with_raised_window(SENTENCES["Llama 3"][0], read_layers(SENTENCES["Llama 3"][0]), 65536)


@pytest.mark.parametrize("key", ["layer_types", "no_rope_layers"])
def test_a_list_that_does_not_fit_the_number_of_layers_is_named(key: str) -> None:
    with pytest.raises(UserError, match=f"{key} has an entry for each of its 36 layers"):
        read_layers({"model_type": "smollm3", "num_hidden_layers": 36, key: ["full_attention"] * 35})


def test_a_layer_that_slides_by_nobody_knows_how_far_is_refused() -> None:
    config = testing.tiny_config("gemma3_text", 64).to_dict() | {"sliding_window": None}
    with pytest.raises(UserError, match="sliding_attention see as many tokens as the config's sliding_window .* says"):
        read_layers(config)
    assert read_layers(config | {"layer_types": ["full_attention"] * config["num_hidden_layers"]}).sliding == []
