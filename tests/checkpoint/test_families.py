"""The table of families against oracles that are not ours: the config classes of transformers."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers import CONFIG_MAPPING

from ropewalk import testing
from ropewalk.checkpoint.class_defaults import class_defaults, text_type, with_defaults
from ropewalk.checkpoint.families import FAMILIES, family_of
from ropewalk.checkpoint.family import FULL_LAYERS, Family
from ropewalk.checkpoint.read_rope import read_rope
from ropewalk.errors import UserError

MAKE = Path(__file__).resolve().parents[2] / "docs" / "make_families.py"
known = pytest.mark.parametrize("model_type", [name for name in FAMILIES if name in CONFIG_MAPPING])


def _config(model_type: str, **settings: Any) -> dict[str, Any]:
    """What transformers' class makes of a config.json that says no more than `settings`."""
    try:
        return CONFIG_MAPPING[model_type](**settings).to_dict()
    except Exception as error:  # a class that wants the configs of its parts, each version in its own words
        pytest.skip(str(error).splitlines()[0])


def test_class_defaults_are_those_of_the_transformers_that_they_were_made_with() -> None:
    make = runpy.run_path(str(MAKE))
    recorded = json.loads(make["DEFAULTS"].read_text(encoding="utf-8"))
    if recorded["transformers"] != transformers.__version__:
        pytest.skip(f"made with transformers {recorded['transformers']}")
    assert make["defaults_text"]() == make["DEFAULTS"].read_text(encoding="utf-8")


@known
def test_a_family_is_said_to_have_no_rope_where_its_class_names_none(model_type: str) -> None:
    if FAMILIES[model_type].instead_of_rope:
        assert not _config(model_type).get("rope_parameters")
        assert not class_defaults(model_type)


@pytest.mark.parametrize("layers", [4, 7, 13])
@pytest.mark.parametrize("model_type", [name for name, family in FAMILIES.items() if family.pattern])
def test_which_layers_see_everything_follows_from_the_rule_of_the_class(model_type: str, layers: int) -> None:
    shared = {"num_kv_shared_layers": 0} if model_type.startswith(("gemma3n", "gemma4")) else {}
    try:
        expected = _config(model_type, num_hidden_layers=layers, **shared)["layer_types"]
    except Exception as error:  # a class that checks other lists by layer against the number
        pytest.skip(str(error).splitlines()[0])
    pattern = FAMILIES[model_type].pattern
    assert pattern is not None
    assert pattern.layer_types(with_defaults({"model_type": model_type}), layers) == expected


@known
def test_other_facts_are_those_of_transformers(model_type: str) -> None:
    family = FAMILIES[model_type]
    if family.slides == "asked":
        assert _config(model_type)["use_sliding_window"] is False
    if family.logits_key and not family.refused:
        assert family.logits_key in _config(model_type)


@pytest.mark.parametrize("model_type", testing.FAMILIES)
def test_a_config_that_leaves_out_what_the_table_knows_is_read_alike(model_type: str) -> None:
    defaults = class_defaults(model_type)
    config = testing.tiny_config(model_type, head_dim=defaults.get("head_dim", 16)).to_dict()
    full = read_rope(config)
    for key in ("rope_parameters", "head_dim", "partial_rotary_factor", "transformers_version"):
        config.pop(key, None)
    assert read_rope(config) == full


@pytest.mark.parametrize("model_type", [name for name, family in FAMILIES.items() if family.instead_of_rope])
def test_a_family_without_rope_is_told_what_it_has(model_type: str) -> None:
    with pytest.raises(UserError, match=f"but {model_type} has {FAMILIES[model_type].instead_of_rope}"):
        read_rope({"model_type": model_type})


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"model_type": "falcon", "alibi": True}, "this falcon has ALiBi"),
        ({"model_type": "granitemoehybrid", "position_embedding_type": "nope"}, "has no positions at all"),
        ({"model_type": "zamba2", "use_mem_rope": False}, "has no positions at all"),
        ({"model_type": "chatglm", "rope_ratio": 50, "seq_length": 131072}, "rope_theta by rope_ratio in code of its own"),
        ({"model_type": "gptj"}, "by a table in its code"),
        ({"model_type": "cohere"}, "names no rope_theta"),  # 10000 in transformers 4, 500000 in 5
        ({"model_type": "llama", "rope_theta": None}, "names no rope_theta"),
        ({"model_type": "dots3_note_text"}, "none for full_attention layers"),
    ],
)  # fmt: skip
def test_what_no_config_can_scale_is_refused_by_name(config: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        read_rope(config)


def test_no_silent_family_none_without_rope_is_told_to_put_a_rope_theta_back() -> None:
    """transformers' whole list: encoders, encoder-decoders, image and audio models beside the language models."""
    for model_type in transformers.CONFIG_MAPPING:
        if not class_defaults(text_type({"model_type": model_type})):
            with pytest.raises(UserError) as told:
                read_rope({"model_type": model_type, "transformers_version": "5.0.0"})
            assert "put the model's own value back" not in str(told.value)


def test_the_rotated_coordinates_may_be_named_themselves() -> None:
    """As MiniMax-M2 is published: rotary_dim 64 of heads of 128, and no share."""
    named = read_rope({"model_type": "minimax_m2", "rotary_dim": 64, "head_dim": 128, "rope_theta": 5e6})
    assert (named.rope.head_dim, read_rope({"model_type": "minimax_m2", "rope_theta": 5e6}).rope.head_dim) == (64, 128)


def test_a_language_model_inside_a_multimodal_config_is_known_by_its_section_or_its_class() -> None:
    assert text_type({"model_type": "gemma3", "text_config": {"hidden_size": 64}}) == "gemma3_text"
    assert text_type({"model_type": "mistral3", "text_config": {"model_type": "llama"}}) == "llama"
    assert text_type({"model_type": "llama"}) == "llama"
    assert text_type({"model_type": "qwen2_5_vl"}) == "qwen2_5_vl_text"  # published without a text_config


def test_each_type_of_layer_has_the_rope_of_its_own_keys() -> None:
    olmo3 = read_rope({"model_type": "olmo3", "rope_theta": 500000, "max_position_embeddings": 8192})
    assert {kind: rope.rope_theta for kind, rope in olmo3.unscaled.items()} == {"sliding_attention": 500000.0}
    mimo = {"full_attention": {"rope_type": "default", "rope_theta": 5e6, "partial_rotary_factor": 0.5},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.25}}  # fmt: skip
    config = read_rope({"model_type": "mimo_v2_flash", "head_dim": 64, "rope_parameters": mimo})
    assert (config.rope.head_dim, config.rope.rope_theta) == (32, 5e6)
    assert (config.unscaled["sliding_attention"].head_dim, config.unscaled["sliding_attention"].rope_theta) == (16, 1e4)
    assert config.inv_freq().keys() == {FULL_LAYERS, "sliding_attention"}


def test_a_family_that_is_not_in_the_table_takes_everything_from_its_config() -> None:
    assert family_of("new-family") == Family()
