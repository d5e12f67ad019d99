"""A config that names a key of RoPE twice, with two values: refused by whoever reads it, and found by doctor, in one sentence."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import pytest

import ropewalk
import shelf
from ropewalk import testing
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.data.documents import Document
from ropewalk.errors import UserError
from ropewalk.model.extend import extended_config
from ropewalk.readers import spelling_checks
from ropewalk.readers.examine import examine

YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=4096)
LONGROPE = dict(rope_type="longrope", short_factor=[1.0] * 64, long_factor=[2.0] * 64, factor=2.0)
#: What somebody wrote into a sound config → the key that then stands twice.
TWICE: dict[str, tuple[dict[str, Any], str]] = {
    "theta, top and rope_parameters": (shelf.llama_2() | dict(rope_theta=77000.0, rope_parameters=dict(rope_type="default", rope_theta=20000.0)), "rope_theta"),
    "theta, top and rope_scaling": (shelf.llama_2() | dict(rope_scaling=YARN | dict(rope_theta=20000.0)), "rope_theta"),
    "theta, full layers": (shelf.gemma_3_270m() | dict(rope_parameters=dict(full_attention=dict(rope_type="default", rope_theta=5e5), sliding_attention=dict(rope_type="default", rope_theta=1e4))), "rope_theta"),
    "theta, sliding layers": (shelf.gemma_3_270m() | dict(rope_parameters=dict(full_attention=dict(rope_type="default", rope_theta=1e6), sliding_attention=dict(rope_type="default", rope_theta=5e3))), "sliding_attention layers' rope_theta"),
    "theta, older key": (shelf.pythia() | dict(rope_theta=77000), "rope_theta"),
    "share, top and rope_parameters": (shelf.nemotron_mini() | dict(rope_parameters=dict(rope_type="default", rope_theta=10000, partial_rotary_factor=1.0)), "partial_rotary_factor"),
    "share, older key": (shelf.pythia() | dict(partial_rotary_factor=1.0), "partial_rotary_factor"),
    "share, rotary_dim": (dict(model_type="minimax_m2", head_dim=128, rotary_dim=64, partial_rotary_factor=1.0, rope_theta=5e6, hidden_size=3072, num_attention_heads=48, num_hidden_layers=2, max_position_embeddings=4096), "partial_rotary_factor"),
    "original window, yarn": (shelf.llama_2() | dict(original_max_position_embeddings=2048, rope_scaling=YARN), "original_max_position_embeddings"),
    "original window, longrope": (shelf.llama_2() | dict(max_position_embeddings=8192, original_max_position_embeddings=2048, rope_scaling=LONGROPE | dict(original_max_position_embeddings=4096)), "original_max_position_embeddings"),
    "original window, gpt-oss": (shelf.gpt_oss() | dict(initial_context_length=2048), "original_max_position_embeddings"),
    "factor": (shelf.llama_2() | dict(rope_scaling=YARN, rope_parameters=YARN | dict(factor=8.0, rope_theta=10000.0)), "factor"),
    "ramp": (shelf.llama_2() | dict(rope_scaling=YARN | dict(beta_fast=32), rope_parameters=YARN | dict(beta_fast=64, rope_theta=10000.0)), "beta_fast"),
    "lists": (shelf.llama_2() | dict(rope_scaling=LONGROPE, rope_parameters=LONGROPE | dict(long_factor=[3.0] * 64)), "long_factor"),
    "type beside rope_type": (shelf.llama_2() | dict(rope_scaling=YARN | dict(type="linear")), "rope_type"),
}  # fmt: skip


@pytest.mark.parametrize("kind", TWICE)
def test_what_stands_twice_is_refused_in_doctors_words(kind: str, tmp_path: Path) -> None:
    config, key = copy.deepcopy(TWICE[kind])
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=f"{key} more than once") as refused:
        extended_config(Checkpoint.open(tmp_path), window=10 * config["max_position_embeddings"])
    assert str(refused.value) in {finding.sentence for finding in examine(tmp_path).wrong}
    assert not any("say one thing" in finding.sentence for finding in examine(tmp_path).findings)


@pytest.mark.parametrize(
    "change", [{"rope_theta": 77000.0}, {"original_max_position_embeddings": 2048}, {"rope_scaling": YARN | {"factor": 2.0}}]
)  # fmt: skip
def test_where_the_block_decides_the_way_out_is_fix_and_it_works(change: dict[str, Any], tmp_path: Path) -> None:
    sound = shelf.extended_yarn()
    (tmp_path / "config.json").write_text(json.dumps(sound))
    reads = Checkpoint.open(tmp_path).rope
    kept = {"rope_scaling": dict(sound["rope_parameters"], type="yarn")}
    (tmp_path / "config.json").write_text(json.dumps(sound | kept | change))
    if change.keys() != {"rope_scaling"} and "original_max_position_embeddings" not in change:
        with pytest.raises(UserError, match="ropewalk doctor --fix goes by the ropewalk block"):
            Checkpoint.open(tmp_path).rope  # noqa: B018  # a cached property
        examine(tmp_path, fix=True)
        assert Checkpoint.open(tmp_path).rope.inv_freq()[""] == pytest.approx(reads.inv_freq()[""])
    else:  # transformers 5 would go by the other value, which the block contradicts
        with pytest.raises(UserError, match="one was edited without the other"):
            Checkpoint.open(tmp_path).rope  # noqa: B018


def test_r4_reading_a_config_that_transformers_5_saved_is_told(tmp_path: Path, caplog) -> None:
    """R4: that version 4 would not find it all is said by every command that makes another model of it, and by none that measures it; doctor has the words."""
    scaling = dict(rope_type="linear", factor=4.0, rope_theta=20000.0)
    model = testing.tiny_directory(tmp_path / "model", rope_parameters=scaling)
    config = json.loads((model / "config.json").read_text())
    assert "rope_theta" not in config and not config.get("rope_scaling")  # as transformers 5 saves it
    assert any("save_pretrained" in finding.sentence for finding in examine(model).wrong)
    said = "is read rightly here; transformers 4, MLX and Ollama do so after: ropewalk doctor"
    reading = {
        "extend": lambda: ropewalk.extend(model, current_window=64, window=256, out=tmp_path / "longer"),
        "train": lambda: ropewalk.train(
            model,
            data=[Document("a", testing.prose(200, 0))],
            current_window=64,
            window=256,
            steps=1,
            batch_size=1,
            out=tmp_path / "trained",
        ),
        "theory": lambda: ropewalk.theory(model, current_window=64, out=tmp_path / "theory"),
        "plan": lambda: ropewalk.plan(model, current_window=64, window=128),
        "export": lambda: ropewalk.export(model, reader="vllm", current_window=64, out=tmp_path / "vllm"),
        "load_model": lambda: ropewalk.load_model(model, current_window=64),
    }
    for command, read in reading.items():
        spelling_checks._warned.clear()  # it is said once a process, which a command is
        caplog.clear()
        with caplog.at_level("INFO", "ropewalk"):
            read()
        assert caplog.text.count(said) == (command in ("extend", "train", "export")), command
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        ropewalk.load_model(tmp_path / "longer")  # what extend wrote has both spellings


@pytest.mark.parametrize(
    "family, change, words",
    [
        ("llama", {"max_position_embeddings": 64.0}, "max_position_embeddings as a whole number only, not 64.0"),
        ("llama", {"num_attention_heads": 4.0}, "num_attention_heads as a whole number only, not 4.0"),
        ("phi-3-mini-128k", {"type": "su"}, "no rope_type 'su', as longrope was called at first"),
    ],
)
def test_what_transformers_stops_at_names_fix_in_every_command_and_it_works(
    family, change, words, tmp_path: Path
) -> None:
    model = testing.tiny_directory(tmp_path / "model", family)
    config = json.loads((model / "config.json").read_text())
    if "type" in change:  # as Phi-3-mini-128k was published first
        lists = {key: config["rope_parameters"][key] for key in ("short_factor", "long_factor")}
        change = {"rope_parameters": None, "rope_theta": 10000.0, "rope_scaling": change | lists}
    (model / "config.json").write_text(json.dumps(config | change))
    factors = tmp_path / "factors.json"
    factors.write_text(json.dumps({"short_factor": [1.0] * 8, "long_factor": [8.0] * 8}))
    longer = {"factors": factors} if family != "llama" else {}
    for read in (
        lambda: ropewalk.extend(model, window=128, out=tmp_path / "longer", **longer),
        lambda: ropewalk.load_model(model),
        lambda: ropewalk.export(model, reader="vllm", out=tmp_path / "vllm"),
    ):
        with pytest.raises(UserError, match=f"{words}; ropewalk doctor --fix mends that"):
            read()
    assert examine(model, fix=True).changed
    ropewalk.load_model(model)
    assert ropewalk.extend(model, window=128, out=tmp_path / "longer", **longer).window == 128


def test_a_key_that_stands_twice_in_one_json_object_is_refused(tmp_path: Path) -> None:
    """Python takes the last, other programs the first."""
    text = json.dumps(shelf.llama_2()).replace('"rope_theta": 10000.0', '"rope_theta": 10000.0, "rope_theta": 5e5')
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match="names rope_theta twice, 10000.0 and 500000.0; take out the one that is wrong"):
        Checkpoint.open(tmp_path)
    (tmp_path / "config.json").write_text(text.replace("5e5", "1e4").replace("null", "NaN"))
    assert Checkpoint.open(tmp_path).config["rope_theta"] == 10000.0


def test_a_scaling_that_was_put_beside_none_is_read_and_warned_of(tmp_path: Path) -> None:
    """As Qwen's instructions have it, in a config that transformers 5 saved: it reads rope_scaling, llama.cpp the other."""
    model = testing.tiny_directory(tmp_path / "model")
    scaling = dict(YARN, type="yarn", original_max_position_embeddings=64)
    config = json.loads((model / "config.json").read_text()) | {"rope_scaling": scaling}
    (model / "config.json").write_text(json.dumps(config))
    with pytest.warns(
        UserWarning, match="names no rope_theta where readers look for it"
    ):  # transformers 5 takes 10000, whatever it was
        assert ropewalk.extend(model, window=384, out=tmp_path / "long").window == 384
    (model / "config.json").write_text(json.dumps(config | {"rope_theta": 10000.0}))
    with pytest.warns(UserWarning, match="rope_scaling and rope_parameters say two things"):
        assert ropewalk.extend(model, window=512, out=tmp_path / "longer").window == 512


def test_a_sliding_window_of_0_is_a_wrong_number(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(shelf.mistral() | dict(sliding_window=0)))
    with pytest.raises(UserError, match="sliding_window as a whole number above 0, got 0"):
        Checkpoint.open(tmp_path).layers  # noqa: B018
