"""Extension as a user has it: a directory in, a directory out, and plain transformers reading it as Position Interpolation."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers
from transformers.masking_utils import create_sliding_window_causal_mask

from ropewalk import testing
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.files import link_or_copy, read_config, whole_directory
from ropewalk.checkpoint.headers import INDEX
from ropewalk.checkpoint.layers import is_masked
from ropewalk.checkpoint.read_rope import read_rope
from ropewalk.checkpoint.window import Answers
from ropewalk.errors import UserError
from ropewalk.model.extend import extend, extended_config
from ropewalk.model.load import load_model, load_tokenizer
from ropewalk.model.save import save_model
from ropewalk.model.verify import pin_rope, rotary_tables, verify_rope
from ropewalk.rope.scaling import Abf, Linear, Llama3, Ntk, Rope
from ropewalk.settings.scaling import ScalingOptions

WINDOW, LONGER = 64, 256


def _ids(n: int) -> torch.Tensor:
    return torch.randint(0, testing.BYTE_VOCABULARY, (2, n), generator=torch.Generator().manual_seed(0))


def _plain(directory: Path) -> transformers.PreTrainedModel:
    return transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


@pytest.mark.parametrize("family", [name for name in testing.FAMILIES if name != "gemma3_text"])
def test_plain_transformers_computes_position_interpolation(family: str, tmp_path: Path) -> None:
    original = testing.tiny_directory(tmp_path / "original", family, WINDOW)
    extend(original, window=LONGER, method="linear", out=tmp_path / "longer")
    ids = _ids(LONGER)
    # The reference knows nothing of scaling: the original model is fed squeezed positions, m L / L'.
    squeezed = (torch.arange(LONGER) * (WINDOW / LONGER))[None].expand(2, -1)
    with torch.no_grad():
        by_hand = _plain(original)(ids, position_ids=squeezed).logits
        extended = _plain(tmp_path / "longer")(ids).logits
        unscaled = _plain(original)(ids).logits
    # Same float32 arithmetic but for where the division by 4 stands; 4 is a power of two.
    torch.testing.assert_close(extended, by_hand, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(extended, unscaled, atol=1e-3), "a test that plain RoPE would pass too shows nothing"


def test_gemma_3_interpolates_its_global_layers_only(tmp_path: Path) -> None:
    original = testing.tiny_directory(tmp_path / "original", "gemma3_text", WINDOW)
    extend(original, window=LONGER, method="linear", out=tmp_path / "longer")
    before, after = (dict(_plain(tmp_path / name).named_buffers()) for name in ("original", "longer"))
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


def test_pickled_weights_are_refused_and_converted_on_request(tmp_path: Path) -> None:
    testing.tiny_directory(tmp_path / "a", window=WINDOW)
    weights = testing.tiny(window=WINDOW).state_dict()
    (tmp_path / "a/model.safetensors").unlink()
    torch.save(weights, tmp_path / "a/pytorch_model.bin")
    with pytest.raises(UserError, match="pickled weights .*--convert-pickle"):
        extend(tmp_path / "a", window=LONGER, out=tmp_path / "b")
    assert not (tmp_path / "b").exists()
    extend(tmp_path / "a", window=LONGER, out=tmp_path / "b", convert_pickle=True)
    torch.testing.assert_close(load_model(tmp_path / "b").state_dict(), dict(weights), rtol=0, atol=0)


class _Hostile:
    def __reduce__(self):
        return os.system, ("touch hostile-code-ran",)


def test_a_hostile_pickle_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    testing.tiny_directory(tmp_path / "a", window=WINDOW)
    (tmp_path / "a/model.safetensors").unlink()
    torch.save({"weight": _Hostile()}, tmp_path / "a/pytorch_model.bin")
    with pytest.raises(UserError, match="more than weights"):
        extend(tmp_path / "a", window=LONGER, out=tmp_path / "b", convert_pickle=True)
    assert not (tmp_path / "hostile-code-ran").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


def _shorter(file: Path) -> None:
    with open(file, "r+b") as stream:
        stream.truncate(file.stat().st_size - 100)


def _edit(directory: Path, **changes: object) -> None:
    config_dict = read_config(directory)
    for key, value in changes.items():
        if value is None:
            config_dict.pop(key, None)
        else:
            config_dict[key] = value
    (directory / "config.json").write_text(json.dumps(config_dict))


BAD = {
    "truncated weights": (lambda a: _shorter(a / "model.safetensors"), "truncated: .* bytes"),
    "empty weights": (lambda a: (a / "model.safetensors").write_bytes(b""), "no whole safetensors"),
    "no weights": (lambda a: (a / "model.safetensors").unlink(), "lacks model.safetensors"),
    "no config": (lambda a: (a / "config.json").unlink(), "config.json does not exist"),
    "broken config": (lambda a: (a / "config.json").write_text("{"), "cannot be read"),
    "lost theta": (lambda a: _edit(a, rope_parameters={"rope_type": "linear", "factor": 8.0}), "names no rope_theta"),
    "no RoPE": (lambda a: _edit(a, model_type="gpt2"), "gpt2 model has one table of positions .* has 0"),
    "ALiBi": (lambda a: _edit(a, model_type="mpt"), "mpt has ALiBi"),
    "fixed table": (lambda a: _edit(a, model_type="gptj"), "gptj rotates by a table"),
    "dynamic": (
        lambda a: _edit(a, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}),
        "changes? with the length",
    ),
    "unknown scaling": (
        lambda a: _edit(a, rope_parameters={"rope_type": "magic", "rope_theta": 1e4}),
        "scaled by 'magic'",
    ),
    "infinite factor": (
        lambda a: _edit(a, rope_parameters={"rope_type": "linear", "factor": float("inf"), "rope_theta": 1e4}),
        "finite",
    ),
    "a foreign linear model": (
        lambda a: _edit(a, rope_parameters={"rope_type": "linear", "factor": 8.0, "rope_theta": 1e4}),
        r"--current-window 64 \(original window 8\) or --current-window 512",
    ),
    "remote code": (
        lambda a: _edit(a, model_type="mystery", auto_map={"AutoConfig": "mystery.Config"}),
        "does not run unasked",
    ),
    "float heads": (lambda a: _edit(a, head_dim=None, num_attention_heads=2.5), "whole number"),
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


def test_a_hub_id_without_network_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no directory here, and the hub could not be reached"):
        extend("nobody/no-such-model", window=LONGER, out=tmp_path / "b")


def test_a_hub_id_in_the_cache_is_read_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    snapshot = tmp_path / "hub/models--rope--walk/snapshots/0123"
    testing.tiny_directory(snapshot, window=WINDOW)
    (tmp_path / "hub/models--rope--walk/refs").mkdir()
    (tmp_path / "hub/models--rope--walk/refs/main").write_text("0123")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert extend("rope/walk", window=LONGER, out=tmp_path / "b").factor == 4.0


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


def test_an_edited_ropewalk_config_is_noticed(tmp_path: Path) -> None:
    testing.tiny_directory(tmp_path / "a", window=WINDOW)
    extend(tmp_path / "a", window=LONGER, out=tmp_path / "b")
    config_dict = read_config(tmp_path / "b")
    config_dict["rope_scaling"]["factor"] = 2.0
    with pytest.raises(UserError, match="one was edited without the other"):
        read_rope(config_dict)


def test_ntk_is_read_back_as_ntk(tmp_path: Path) -> None:
    testing.tiny_directory(tmp_path / "a", window=WINDOW)
    extend(tmp_path / "a", window=LONGER, out=tmp_path / "b", method="ntk")
    found = read_rope(read_config(tmp_path / "b"))
    assert (found.scaling, found.rope) == (Ntk(4.0), Rope(16, 10000.0, WINDOW))


@pytest.mark.parametrize("family", [name for name in testing.FAMILIES if name != "gemma3_text"])
def test_plain_transformers_computes_abf(family: str, tmp_path: Path) -> None:
    original = testing.tiny_directory(tmp_path / "original", family, WINDOW)
    own = read_rope(read_config(original)).rope.rope_theta
    extend(original, window=LONGER, out=tmp_path / "longer", method="abf", rope_theta=8 * own)
    # The reference knows nothing of ropewalk: the original's weights under its own config, with the rope_theta replaced.
    config = transformers.AutoConfig.from_pretrained(original)
    config.rope_parameters = {**config.rope_parameters, "rope_theta": 8 * own}
    config.max_position_embeddings = LONGER
    other_base = transformers.AutoModelForCausalLM.from_pretrained(original, config=config, dtype=torch.float32).eval()
    ids = _ids(LONGER)
    with torch.no_grad():
        expected = other_base(ids).logits
        extended = _plain(tmp_path / "longer")(ids).logits
        unscaled = _plain(original)(ids).logits
    torch.testing.assert_close(extended, expected, rtol=0, atol=0)  # one arithmetic on both sides
    assert not torch.allclose(extended, unscaled, atol=1e-3), "a test that plain RoPE would pass too shows nothing"


def test_gemma_3_has_another_base_in_its_global_layers_only(tmp_path: Path) -> None:
    original = testing.tiny_directory(tmp_path / "original", "gemma3_text", WINDOW)
    extend(original, window=LONGER, out=tmp_path / "longer", method="abf", rope_theta=8e6)
    before, after = (dict(_plain(tmp_path / name).named_buffers()) for name in ("original", "longer"))
    same, slower = "model.rotary_emb.sliding_attention_inv_freq", "model.rotary_emb.full_attention_inv_freq"
    torch.testing.assert_close(after[same], before[same], rtol=0, atol=0)
    pairs = torch.arange(len(after[slower])) / len(after[slower])
    # float32 powers on both sides: a few units of 6e-8.
    torch.testing.assert_close(after[slower], 8e6**-pairs, rtol=1e-6, atol=0)


def test_abf_is_read_back_with_its_rope_theta_and_composes_with_itself(tmp_path: Path) -> None:
    testing.tiny_directory(tmp_path / "a", window=WINDOW)
    extend(tmp_path / "a", window=128, out=tmp_path / "b", method="abf", rope_theta=5e4)
    assert Checkpoint.open(tmp_path / "b").rope.scaling == Abf(2.0, 5e4)
    state = extend(tmp_path / "b", window=LONGER, out=tmp_path / "c", method="auto", rope_theta=5e5)
    written = read_config(tmp_path / "c")
    assert read_rope(written).rope == Rope(16, 10000.0, WINDOW) and state.scaling == Abf(4.0, 5e5)
    assert written["ropewalk"]["scaling"] == {"method": "abf", "factor": 4.0, "rope_theta": 5e5}
    assert [step["rope_theta"] for step in written["ropewalk"]["history"]] == [5e4, 5e5]
    assert written["rope_theta"] == written["rope_parameters"]["rope_theta"] == 5e5 and written["rope_scaling"] is None
    written["rope_theta"] = written["rope_parameters"]["rope_theta"] = 2e5
    with pytest.raises(
        UserError, match="block says rope_theta 500000.0, but the config's RoPE keys say rope_theta 200000.0"
    ):
        read_rope(written)


def test_abf_after_ntk_is_held_against_the_rope_theta_that_ntk_made(tmp_path: Path) -> None:
    testing.tiny_directory(tmp_path / "a", window=WINDOW)
    extend(tmp_path / "a", window=128, out=tmp_path / "b", method="ntk")
    now = 10000 * 2 ** (16 / 14)
    refusal = f"above the model's own {now:g}, got 15000; what was measured, at factor 4, is 50 times that: --rope-theta {50 * now:.0f} "
    with pytest.raises(UserError, match=refusal):
        extend(tmp_path / "b", window=LONGER, out=tmp_path / "c", method="abf", rope_theta=15000.0)
    assert extend(tmp_path / "b", window=LONGER, out=tmp_path / "c", method="abf", rope_theta=5e4).scaling == Abf(
        4.0, 5e4
    )


@pytest.mark.parametrize("method", ["linear", "ntk", "yarn", "auto"])
def test_a_rope_theta_with_another_method_is_refused(method: str, tmp_path: Path) -> None:
    testing.tiny_directory(tmp_path / "a", window=WINDOW)
    with pytest.raises(UserError, match="scaling has no --rope-theta; leave it out"):
        extend(tmp_path / "a", window=LONGER, out=tmp_path / "b", method=method, rope_theta=5e5)
    assert not (tmp_path / "b").exists()


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
