"""What `extend` refuses, with a sentence each, and that nothing half written is left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers.masking_utils import create_sliding_window_causal_mask

from extending import LONGER, WINDOW, edit_config
from ropewalk import testing
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.files import read_config, whole_directory
from ropewalk.checkpoint.headers import INDEX
from ropewalk.checkpoint.layers import is_masked
from ropewalk.checkpoint.read_rope import read_rope
from ropewalk.errors import UserError
from ropewalk.model.extend import extend, extended_config
from ropewalk.model.load import load_model, load_tokenizer
from ropewalk.rope.scaling import Llama3
from ropewalk.settings.scaling import ScalingOptions


def _shorter(file: Path) -> None:
    with open(file, "r+b") as stream:
        stream.truncate(file.stat().st_size - 100)


BAD = {
    "truncated weights": (lambda a: _shorter(a / "model.safetensors"), "truncated: .* bytes"),
    "empty weights": (lambda a: (a / "model.safetensors").write_bytes(b""), "no whole safetensors"),
    "no weights": (lambda a: (a / "model.safetensors").unlink(), "lacks model.safetensors"),
    "no config": (lambda a: (a / "config.json").unlink(), "config.json does not exist"),
    "broken config": (lambda a: (a / "config.json").write_text("{"), "cannot be read"),
    "lost theta": (
        lambda a: edit_config(a, rope_parameters={"rope_type": "linear", "factor": 8.0}),
        "names no rope_theta",
    ),
    "no RoPE": (lambda a: edit_config(a, model_type="gpt2"), "gpt2 model has one table of positions .* has 0"),
    "ALiBi": (lambda a: edit_config(a, model_type="mpt"), "mpt has ALiBi"),
    "fixed table": (lambda a: edit_config(a, model_type="gptj"), "gptj rotates by a table"),
    "dynamic": (
        lambda a: edit_config(a, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}),
        "changes? with the length",
    ),
    "unknown scaling": (
        lambda a: edit_config(a, rope_parameters={"rope_type": "magic", "rope_theta": 1e4}),
        "scaled by 'magic'",
    ),
    "infinite factor": (
        lambda a: edit_config(a, rope_parameters={"rope_type": "linear", "factor": float("inf"), "rope_theta": 1e4}),
        "finite",
    ),
    "a foreign linear model": (
        lambda a: edit_config(a, rope_parameters={"rope_type": "linear", "factor": 8.0, "rope_theta": 1e4}),
        r"--current-window 64 \(original window 8\) or --current-window 512",
    ),
    "remote code": (
        lambda a: edit_config(a, model_type="mystery", auto_map={"AutoConfig": "mystery.Config"}),
        "does not run unasked",
    ),
    "float heads": (lambda a: edit_config(a, head_dim=None, num_attention_heads=2.5), "whole number"),
    "missing shard": (
        lambda a: (
            (a / "model.safetensors").unlink()
            or (a / INDEX).write_text('{"weight_map": {"x": "model-00002-of-00002.safetensors"}}')
        ),
        "lacks model-00002",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_a_sentence_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    spoil, sentence = BAD[name]
    a = testing.tiny_directory(tmp_path / "a", window=WINDOW)
    spoil(a)
    with pytest.raises(UserError, match=sentence):
        extend(a, window=LONGER * 4, out=tmp_path / "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


@pytest.mark.parametrize("window", [64, 1])
def test_a_window_not_above_the_current_one_is_refused(window: int, tmp_path: Path) -> None:
    testing.tiny_directory(tmp_path / "a", window=WINDOW)
    with pytest.raises(UserError, match=f"window {window} is not longer than the model's own 64"):
        extend(tmp_path / "a", window=window, out=tmp_path / "b")


def test_an_existing_output_is_kept_unless_overwrite_is_asked_for(tmp_path: Path) -> None:
    testing.tiny_directory(tmp_path / "a", window=WINDOW)
    (tmp_path / "b").mkdir()
    (tmp_path / "b/precious").write_text("kept")
    with pytest.raises(UserError, match="exists"):
        extend(tmp_path / "a", window=LONGER, out=tmp_path / "b")
    (tmp_path / "b/config.json").write_text("{}")  # as any model has
    with pytest.raises(UserError, match="replaces only what ropewalk made, and .*b has no .ropewalk.json"):
        extend(tmp_path / "a", window=LONGER, out=tmp_path / "b", overwrite=True)
    assert (tmp_path / "b/precious").read_text() == "kept"
    extend(tmp_path / "a", window=LONGER, out=tmp_path / "c")
    extend(tmp_path / "a", window=2 * LONGER, out=tmp_path / "c", overwrite=True)
    assert Checkpoint.open(tmp_path / "c").rope.window == 2 * LONGER


def test_overwriting_never_takes_the_model_that_is_extended(tmp_path: Path) -> None:
    model = testing.tiny_directory(tmp_path / "models/a", window=WINDOW)
    (tmp_path / "models/config.json").write_text("{}")
    for out in (tmp_path / "models", model):
        with pytest.raises(UserError, match="would be replaced, and with it"):
            extend(model, window=LONGER, out=out, overwrite=True)
    assert (model / "model.safetensors").exists()


def test_a_hub_id_without_network_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no directory here, and the hub could not be reached"):
        extend("nobody/no-such-model", window=LONGER, out=tmp_path / "b")


def test_linear_on_llama_3_scaling_is_refused_with_the_reason(tmp_path: Path) -> None:
    config_dict = testing.tiny_config(window=131072).to_dict()
    config_dict["rope_parameters"] = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    assert read_rope(config_dict).scaling == Llama3(8.0, 1.0, 4.0, 8192)
    with pytest.raises(UserError, match="linear scaling cannot be put on top of llama3"):
        extended_config(
            Checkpoint("llama-3", tmp_path, config_dict), window=262144, options=ScalingOptions(method="linear")
        )


def test_an_edited_ropewalk_config_is_noticed(tmp_path: Path) -> None:
    testing.tiny_directory(tmp_path / "a", window=WINDOW)
    extend(tmp_path / "a", window=LONGER, out=tmp_path / "b")
    config_dict = read_config(tmp_path / "b")
    config_dict["rope_scaling"]["factor"] = 2.0
    with pytest.raises(UserError, match="one was edited without the other"):
        read_rope(config_dict)


def test_a_model_that_lacks_tensors_is_not_filled_with_random_ones(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = testing.tiny_directory(tmp_path / "a", window=WINDOW) / "model.safetensors"
    tensors = load_file(file)
    tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match="lacks 1 tensor "):
        load_model(tmp_path / "a")


def test_a_model_without_tokenizer_says_so(tmp_path: Path) -> None:
    testing.tiny_directory(tmp_path / "a", window=WINDOW)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "a" / name).unlink()
    with pytest.raises(UserError, match="has no tokenizer"):
        load_tokenizer(tmp_path / "a")


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small disk needs root on Linux")
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "none", disk], capture_output=True).returncode:
        pytest.skip("this machine mounts no tmpfs")
    try:
        testing.tiny_directory(tmp_path / "a", window=WINDOW)
        with pytest.raises(UserError, match=r"b takes [\d.]+ MiB, and its disk has 0.2 MiB free; make room"):
            extend(tmp_path / "a", window=LONGER, out=disk / "b")
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)  # something else fills it meanwhile
        with pytest.raises(UserError, match="the disk is full"):
            extend(tmp_path / "a", window=LONGER, out=disk / "b")
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)
        shutil.rmtree(disk)


def test_a_directory_that_vanishes_midway_leaves_the_old_one(tmp_path: Path) -> None:
    with whole_directory(tmp_path / "out") as beside:
        (beside / "old").write_text("old")
    with pytest.raises(RuntimeError), whole_directory(tmp_path / "out", overwrite=True) as beside:
        (beside / "new").write_text("half")
        raise RuntimeError("killed")
    assert {path.name for path in tmp_path.rglob("*")} == {"out", "old", ".ropewalk.json"}


def test_what_is_wrong_with_a_file_is_said_by_the_name_that_the_user_knows(tmp_path: Path) -> None:
    """And not by that of the place where the extension lies until it is whole."""
    base = testing.tiny_directory(tmp_path / "base", window=64)
    (base / "tokenizer.json").write_text(json.dumps({"model": {}}))
    with pytest.raises(UserError, match="the tokenizer in [^ ]*/base cannot be loaded"):
        extend(base, window=128, out=tmp_path / "longer")


def test_no_layer_sees_beyond_the_reach_that_the_refusal_names(tmp_path: Path) -> None:
    """Oracle: transformers' own mask. Two layers of 16 positions reach 31 back; with raised windows the last token sees the first."""
    sliding = dict(model_type="mistral", architectures=["MistralForCausalLM"], sliding_window=16)
    base = testing.tiny_directory(tmp_path / "base", window=64)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | sliding))
    with pytest.raises(UserError, match="31 through all layers.*--raise-sliding-window"):
        extend(base, window=128, out=tmp_path / "longer")

    def changes_the_last(model: torch.nn.Module, position: int) -> bool:
        tokens = torch.arange(2, 66)[None]
        other = tokens.clone()
        other[0, position] = 99
        with torch.no_grad():
            return bool((model(tokens).logits[0, -1] != model(other).logits[0, -1]).any())

    model = load_model(base)
    assert [changes_the_last(model, 63 - back) for back in (15, 30, 31, 63)] == [True, True, False, False]
    extend(base, window=128, out=tmp_path / "longer", raise_sliding_window=True)
    raised = load_model(tmp_path / "longer")
    assert changes_the_last(raised, 0)
    for tokens, masked in (
        (128, False),
        (130, True),
    ):  # for layers that see the whole window transformers makes no mask of all pairs
        mask = create_sliding_window_causal_mask(raised.config, torch.zeros(1, tokens, 1), None, None)
        assert (mask is not None) == masked == is_masked(tokens, raised.config.sliding_window)
