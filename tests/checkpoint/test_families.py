"""The table of families against oracles that are not ours: the config classes of transformers."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import CONFIG_MAPPING

from ropewalk import testing
from ropewalk.checkpoint.families import FAMILIES, FULL_LAYERS, Family, family_of
from ropewalk.checkpoint.rope_config import read_rope
from ropewalk.errors import UserError

known = pytest.mark.parametrize("model_type", [name for name in FAMILIES if name in CONFIG_MAPPING])


def _config(model_type: str) -> dict[str, Any]:
    """The config class's own defaults: what transformers takes where a config.json says nothing."""
    return CONFIG_MAPPING[model_type]().to_dict()


def _rope_parameters(model_type: str) -> dict[str, Any]:
    parameters = _config(model_type).get("rope_parameters") or {}
    return parameters.get(FULL_LAYERS, parameters)


@known
def test_defaults_of_rope_are_those_of_transformers(model_type: str) -> None:
    family, parameters = FAMILIES[model_type], _rope_parameters(model_type)
    if family.rope_theta is not None:
        assert family.rope_theta == parameters["rope_theta"]
        assert family.rotated_share == parameters.get("partial_rotary_factor", 1.0)
    if family.instead_of_rope or family.fixed_rope:
        assert not parameters


@known
def test_sizes_and_ties_are_those_of_transformers(model_type: str) -> None:
    family, config = FAMILIES[model_type], _config(model_type)
    if family.head_dim is not None:
        assert family.head_dim == config["head_dim"]
    if family.window is not None:
        assert family.window == config["max_position_embeddings"]
    if family.layers is not None:
        assert family.tied == config["tie_word_embeddings"]
        flags = [flag for flag in (family.layers.qkv_bias, family.layers.out_bias) if isinstance(flag, str)]
        assert all(config[flag] == family.layers.bias_default for flag in flags)


@known
def test_types_of_layers_are_those_of_transformers(model_type: str) -> None:
    family, config = FAMILIES[model_type], _config(model_type)
    layer_types = config.get("layer_types") or []
    if family.full_every:
        full = [index + 1 for index, layer_type in enumerate(layer_types) if layer_type == FULL_LAYERS]
        assert full == list(range(family.full_every, len(layer_types) + 1, family.full_every))
    if family.unscaled_layers:
        assert config["rope_parameters"][family.unscaled_layers]["rope_theta"] == family.unscaled_theta
    if family.sliding_if_asked:
        assert config["use_sliding_window"] is False
    if family.logits_key:
        assert family.logits_key in config


@pytest.mark.parametrize("model_type", testing.FAMILIES)
def test_a_config_that_leaves_out_what_the_table_knows_is_read_alike(model_type: str) -> None:
    config = testing.tiny_config(model_type, head_dim=FAMILIES[model_type].head_dim or 16).to_dict()
    full = read_rope(config)
    for key in ("rope_parameters", "head_dim", "partial_rotary_factor", "transformers_version"):
        config.pop(key, None)
    assert read_rope(config) == full


@pytest.mark.parametrize("model_type", [name for name, family in FAMILIES.items() if family.instead_of_rope])
def test_a_family_without_rope_is_told_what_it_has(model_type: str) -> None:
    with pytest.raises(UserError, match=f"but {model_type} has {FAMILIES[model_type].instead_of_rope}"):
        read_rope({"model_type": model_type})


def test_a_family_that_is_not_in_the_table_takes_everything_from_its_config() -> None:
    assert family_of("new-family") == Family()
