"""Extension as a user has it: a directory in, a directory out, and plain transformers reading it as Position Interpolation."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch

from extending import LONGER, WINDOW, plain_model, random_ids
from ropewalk import testing
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.files import link_or_copy, read_config, whole_directory
from ropewalk.checkpoint.read_rope import read_rope
from ropewalk.checkpoint.window import Answers
from ropewalk.errors import UserError
from ropewalk.model.extend import extend, extended_config
from ropewalk.model.load import load_model, load_tokenizer
from ropewalk.model.save import save_model
from ropewalk.model.verify import pin_rope, rotary_tables, verify_rope
from ropewalk.rope.scaling import Linear, Ntk, Rope


@pytest.mark.parametrize("family", [name for name in testing.FAMILIES if name != "gemma3_text"])
def test_plain_transformers_computes_position_interpolation(family: str, tmp_path: Path) -> None:
    original = testing.tiny_directory(tmp_path / "original", family, WINDOW)
    extend(original, window=LONGER, method="linear", out=tmp_path / "longer")
    ids = random_ids(LONGER)
    # The reference knows nothing of scaling: the original model is fed squeezed positions, m L / L'.
    squeezed = (torch.arange(LONGER) * (WINDOW / LONGER))[None].expand(2, -1)
    with torch.no_grad():
        by_hand = plain_model(original)(ids, position_ids=squeezed).logits
        extended = plain_model(tmp_path / "longer")(ids).logits
        unscaled = plain_model(original)(ids).logits
    # Same float32 arithmetic but for where the division by 4 stands; 4 is a power of two.
    torch.testing.assert_close(extended, by_hand, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(extended, unscaled, atol=1e-3), "a test that plain RoPE would pass too shows nothing"


def test_gemma_3_interpolates_its_global_layers_only(tmp_path: Path) -> None:
    original = testing.tiny_directory(tmp_path / "original", "gemma3_text", WINDOW)
    extend(original, window=LONGER, method="linear", out=tmp_path / "longer")
    before, after = (dict(plain_model(tmp_path / name).named_buffers()) for name in ("original", "longer"))
    same, slower = "model.rotary_emb.sliding_attention_inv_freq", "model.rotary_emb.full_attention_inv_freq"
    torch.testing.assert_close(after[same], before[same], rtol=0, atol=0)
    torch.testing.assert_close(after[slower], before[slower] / 4, rtol=1e-6, atol=0)


@pytest.mark.parametrize("family", testing.FAMILIES)
def test_a_second_extension_multiplies_and_keeps_the_history(family: str, tmp_path: Path) -> None:
    testing.tiny_directory(tmp_path / "a", family, WINDOW)
    extend(tmp_path / "a", window=128, out=tmp_path / "b")
    state = extend(tmp_path / "b", window=512, out=tmp_path / "c")
    assert (state.original_window, state.window, state.factor) == (64, 512, 8.0)
    history = read_config(tmp_path / "c")["ropewalk"]["history"]
    assert [(step["from"], step["to"], step["factor"]) for step in history] == [(64, 128, 2.0), (128, 512, 4.0)]


@pytest.mark.parametrize("family", testing.FAMILIES)
def test_loading_saving_and_loading_again_keeps_the_speeds(family: str, tmp_path: Path) -> None:
    testing.tiny_directory(tmp_path / "a", family, WINDOW)
    extend(tmp_path / "a", window=LONGER, out=tmp_path / "b")
    loaded = load_model(tmp_path / "b")
    save_model(loaded, load_tokenizer(tmp_path / "b"), tmp_path / "c", steps=30)
    again = load_model(tmp_path / "c")
    for (name, one), (_, other) in zip(loaded.named_buffers(), again.named_buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, msg=name)
    assert Checkpoint.open(tmp_path / "c").info.steps == 30
    legacy = read_config(tmp_path / "c")
    assert legacy["rope_theta"] and legacy["rope_scaling"], "a v4 reader needs both"


def test_a_model_trained_at_one_length_starts_its_count_again_at_the_next(tmp_path: Path) -> None:
    testing.tiny_directory(tmp_path / "a", window=WINDOW)
    extend(tmp_path / "a", window=128, out=tmp_path / "b")
    save_model(load_model(tmp_path / "b"), None, tmp_path / "c", steps=30)
    extend(tmp_path / "c", window=LONGER, out=tmp_path / "d")
    block = read_config(tmp_path / "d")["ropewalk"]
    assert block["steps"] == 0 and block["history"][0]["steps"] == 30


@pytest.mark.parametrize("method", ["linear", "ntk", "yarn"])
def test_every_spelling_says_the_same(method: str, tmp_path: Path) -> None:
    testing.tiny_directory(tmp_path / "a", window=WINDOW)
    extend(tmp_path / "a", window=LONGER, out=tmp_path / "b", method=method)
    config_dict = read_config(tmp_path / "b")
    assert config_dict["rope_theta"] == config_dict["rope_parameters"]["rope_theta"]
    assert type(config_dict["max_position_embeddings"]) is int and config_dict["max_position_embeddings"] == LONGER
    if method == "ntk":
        assert config_dict["rope_scaling"] is None and config_dict["rope_theta"] == pytest.approx(
            10000 * 4 ** (16 / 14)
        )
    else:
        for block in (config_dict["rope_scaling"], config_dict["rope_parameters"]):
            assert block["rope_type"] == method and type(block["factor"]) is float
        assert config_dict["rope_scaling"]["type"] == method
    lengths = json.loads((tmp_path / "b/tokenizer_config.json").read_text())
    assert lengths["model_max_length"] == LONGER


def test_the_generation_limit_grows_with_the_window(tmp_path: Path) -> None:
    testing.tiny_directory(tmp_path / "a", window=WINDOW)
    (tmp_path / "a/generation_config.json").write_text('{"max_length": 64, "temperature": 0.6}')
    extend(tmp_path / "a", window=LONGER, out=tmp_path / "b")
    config_dict = json.loads((tmp_path / "b/generation_config.json").read_text())
    assert config_dict == {"max_length": LONGER, "temperature": 0.6}


def test_auto_keeps_the_method_the_model_has(tmp_path: Path) -> None:
    testing.tiny_directory(tmp_path / "a", window=WINDOW)
    extend(tmp_path / "a", window=128, out=tmp_path / "b", method="ntk")
    state = extend(tmp_path / "b", window=LONGER, out=tmp_path / "c", method="auto")
    assert (state.method, state.factor) == ("ntk", 4.0)


def test_weights_are_linked_and_saving_over_the_link_leaves_the_original(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "ropewalk")
    original = testing.tiny_directory(tmp_path / "a", window=WINDOW) / "model.safetensors"
    extend(tmp_path / "a", window=LONGER, out=tmp_path / "b")
    assert f"weights: the same files on the disk as those of {tmp_path / 'a'} (hard links)" in caplog.text
    before = original.read_bytes()
    assert os.stat(original).st_ino == os.stat(tmp_path / "b/model.safetensors").st_ino
    testing.tiny("llama", WINDOW, seed=1).save_pretrained(tmp_path / "b")
    assert original.read_bytes() == before


def test_saving_over_a_hard_link_leaves_the_other_file_alone(tmp_path: Path) -> None:
    first, link = tmp_path / "first.safetensors", tmp_path / "link.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(4)}, first)
    link_or_copy(first, link)
    safetensors.torch.save_file({"a": torch.ones(4)}, link)
    assert not safetensors.torch.load_file(first)["a"].any()


def test_whom_the_umask_lets_read_may_read_the_weights(tmp_path: Path) -> None:
    original = tmp_path / "original.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(4)}, original)
    original.chmod(0o600)
    before = os.umask(0o027)
    try:
        with whole_directory(tmp_path / "out") as beside:
            (beside / "state").mkdir()
            safetensors.torch.save_file({"a": torch.zeros(4)}, beside / "state/new.safetensors")
            link_or_copy(original, beside / "linked.safetensors")
    finally:
        os.umask(before)
    assert (tmp_path / "out/state/new.safetensors").stat().st_mode & 0o777 == 0o640
    assert original.stat().st_mode & 0o777 == 0o600


def test_a_hub_id_in_the_cache_is_read_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    snapshot = tmp_path / "hub/models--rope--walk/snapshots/0123"
    testing.tiny_directory(snapshot, window=WINDOW)
    (tmp_path / "hub/models--rope--walk/refs").mkdir()
    (tmp_path / "hub/models--rope--walk/refs/main").write_text("0123")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert extend("rope/walk", window=LONGER, out=tmp_path / "b").factor == 4.0


def test_a_foreign_linear_model_is_extended_once_its_window_is_said(tmp_path: Path) -> None:
    config_dict = testing.tiny_config(window=4096).to_dict()
    config_dict["rope_parameters"] = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
    checkpoint = Checkpoint("foreign", tmp_path, config_dict, answers=Answers(current_window=4096))
    new = extended_config(checkpoint, window=16384)
    assert new["rope_parameters"]["factor"] == 8.0 and new["ropewalk"]["original_window"] == 2048


def test_v4_configs_are_read_too() -> None:
    v4 = {
        "model_type": "llama",
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "max_position_embeddings": 32768,
        "rope_theta": 10000.0,
        "rope_scaling": {"type": "linear", "factor": 8},
    }
    found = read_rope(v4)
    assert (found.rope, found.scaling, found.window) == (Rope(128, 10000.0, 4096), Linear(8.0), 32768)
    first_llama = {
        "model_type": "llama",
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
    }
    assert read_rope(first_llama).rope == Rope(128, 10000.0, 2048)


def test_ntk_is_read_back_as_ntk(tmp_path: Path) -> None:
    testing.tiny_directory(tmp_path / "a", window=WINDOW)
    extend(tmp_path / "a", window=LONGER, out=tmp_path / "b", method="ntk")
    found = read_rope(read_config(tmp_path / "b"))
    assert (found.scaling, found.rope) == (Ntk(4.0), Rope(16, 10000.0, WINDOW))


def test_a_cast_that_rounds_the_speeds_is_caught_and_pinned(tmp_path: Path) -> None:
    testing.tiny_directory(tmp_path / "a", window=WINDOW)
    extend(tmp_path / "a", window=LONGER, out=tmp_path / "b")
    cast = load_model(tmp_path / "b").to(torch.bfloat16)
    with pytest.raises(UserError, match="must be float32"):
        verify_rope(cast)
    pin_rope(cast)
    rounded = load_model(tmp_path / "b")
    table = next(rotary_tables(rounded))[3]
    table.copy_(table.bfloat16())
    with pytest.raises(UserError, match="does not rotate as its config says"):
        verify_rope(rounded)
