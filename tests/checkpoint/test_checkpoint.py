"""A checkpoint is opened once: what it says of itself, and how often a training step reads it."""

from __future__ import annotations

import json
import math
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import ropewalk
import ropewalk.training.run  # so that every module which reads is loaded before its readings are counted
from ropewalk import testing
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.files import read_config
from ropewalk.checkpoint.headers import check_safetensors
from ropewalk.checkpoint.hub import locate
from ropewalk.checkpoint.read_rope import read_rope
from ropewalk.errors import UserError
from ropewalk.model.extend import extend
from ropewalk.model.load import load_model, load_tokenizer
from ropewalk.planner.named import shape_of
from ropewalk.rope.scaling import Linear, Plain, Rope


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return testing.tiny_directory(tmp_path / "model", window=64)


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """How often each thing was read, by its name and the directory it lies in. RoPE is told apart by its window."""
    count: Counter[tuple[str, str]] = Counter()

    def counted(what: str, function: Any, place: Any) -> None:
        def call(*arguments: Any, **options: Any) -> Any:
            count[what, place(arguments[0])] += 1
            return function(*arguments, **options)

        # Wherever a module took the function under its own name; a module that is not loaded yet takes it from these.
        for module in [module for name, module in sys.modules.items() if name.startswith("ropewalk")]:
            for name in [name for name, value in vars(module).items() if value is function]:
                monkeypatch.setattr(module, name, call)

    counted("located", locate, lambda name: Path(name).name)
    counted("config", read_config, lambda directory: directory.name)
    counted("RoPE", read_rope, lambda config: str(config["max_position_embeddings"]))
    counted("header", check_safetensors, lambda file: file.parent.name)
    return count


@pytest.mark.parametrize("given", [str, Path, Checkpoint.open])
def test_a_training_step_reads_the_checkpoint_it_starts_from_once(given, model, readings, tmp_path) -> None:
    (tmp_path / "text.txt").write_text(testing.prose(2000), encoding="utf-8")
    settings = dict(data=[tmp_path / "text.txt"], window=128, steps=1, batch_size=1, out=tmp_path / "out")
    info = ropewalk.train(given(model), **settings)
    assert info.window == 128
    # The source: found, parsed, its RoPE read, its one header read, once each.
    assert {what: count for (what, place), count in readings.items() if place in ("model", "64")} == dict.fromkeys(
        ("located", "config", "header", "RoPE"), 1
    )
    # What training writes is another directory. Its config is parsed to be rewritten in every spelling, then the directory is opened
    # as a proof before it is moved into place (.final…), and opened once more where it lies then, for what is returned.
    written = Counter(what for what, place in readings.elements() if place not in ("model", "64"))
    # RoPE at 128 tokens: of the config that is trained, and of those two.
    assert written == {"located": 2, "config": 3, "header": 1, "RoPE": 3}


def test_loading_and_extending_read_a_checkpoint_once(model, readings, tmp_path) -> None:
    checkpoint = Checkpoint.open(model)
    load_model(checkpoint)
    load_tokenizer(checkpoint)
    extend(checkpoint, window=128, out=tmp_path / "longer")
    assert checkpoint.info.parameters and checkpoint.fingerprint
    assert {what: readings[what, place] for what, place in readings if place in ("model", "64")} == dict.fromkeys(
        ("located", "config", "header", "RoPE"), 1
    )


def test_what_a_checkpoint_says_of_itself(model) -> None:
    checkpoint = Checkpoint.open(model)
    assert (str(checkpoint), Path(checkpoint), checkpoint.dtypes) == (str(model), model, {"F32"})
    assert (checkpoint.rope.rope, checkpoint.rope.scaling) == (Rope(16, 10000.0, 64), Plain())
    assert [file.name for file in checkpoint.weight_files] == list(checkpoint.headers) == ["model.safetensors"]
    weights = testing.tiny(window=64).state_dict()
    assert checkpoint.parameters == sum(math.prod(tensor.shape) for tensor in weights.values())
    assert (checkpoint.info.name, checkpoint.info.parameters) == (str(model), checkpoint.parameters)
    assert Checkpoint.open(checkpoint) is checkpoint


def test_an_extension_knows_what_its_base_is_called_wherever_it_was_made_from(model, tmp_path) -> None:
    extend(model, window=128, out=tmp_path / "longer")
    extend(tmp_path / "longer", window=256, out=tmp_path / "longest")
    in_memory = Checkpoint.open(model).with_config(Checkpoint.open(tmp_path / "longer").config)
    named = [Checkpoint.open(place).info.base for place in (model, tmp_path / "longer", tmp_path / "longest")]
    assert [*named, in_memory.info.base] == ["", model.name, model.name, model.name]


def test_fingerprints_tell_configs_apart_and_do_not_depend_on_the_directory(model, tmp_path) -> None:
    again = testing.tiny_directory(tmp_path / "again", window=64)
    wider = testing.tiny_directory(tmp_path / "wider", window=64, intermediate_size=96)
    same, other = Checkpoint.open(again).fingerprint, Checkpoint.open(wider).fingerprint
    assert Checkpoint.open(model).fingerprint == same != other


def test_weights_that_are_damaged_are_told_when_they_are_asked_for(model) -> None:
    (model / "model.safetensors").write_bytes(b"")
    checkpoint = Checkpoint.open(model)
    assert checkpoint.info.parameters == 0
    for ask in ("headers", "parameters", "dtypes", "fingerprint", "weight_files"):
        with pytest.raises(UserError, match="no whole safetensors"):
            getattr(checkpoint, ask)


def test_the_same_weights_under_another_config(model) -> None:
    source = Checkpoint.open(model)
    config = {**source.config, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}}
    config["max_sequence_length"] = 128
    scaled = source.with_config(config)
    assert scaled.rope.scaling == Linear(2.0) and source.rope.scaling == Plain()
    assert scaled.headers is source.headers and scaled.weights_of is source
    (model / "config.json").write_text(json.dumps({}), encoding="utf-8")
    assert scaled.at(model / "elsewhere").rope is scaled.rope


@pytest.mark.parametrize("name", ["refs/main", "snapshots/one/config.json", "snapshots/one/tokenizer.model"])
@pytest.mark.parametrize("command", [lambda: Checkpoint.open("owner/name"), lambda: shape_of("owner/name")])
def test_a_pipe_in_the_hubs_cache_is_refused_and_not_waited_for(tmp_path, monkeypatch, name, command):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    pipe = tmp_path / "models--owner--name" / name
    pipe.parent.mkdir(parents=True)
    os.mkfifo(pipe)
    with pytest.raises(UserError, match=f"the hub's cache holds files, but {pipe} is a pipe"):
        command()


def test_a_pipe_that_is_called_like_a_gguf_file_is_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "a.gguf")
    with pytest.raises(UserError, match="a.gguf is a pipe; give a file"):
        Checkpoint.open(tmp_path / "a.gguf")
