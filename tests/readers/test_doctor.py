"""`ropewalk doctor`: the right verdict on a shelf of configs, and what it mends. How it ends is in test_examine.py."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from pathlib import Path

import pytest

import ropewalk
import shelf
import sick_shelf
from diagnosed import write, wrong
from ropewalk import cli, testing
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.errors import UserError
from ropewalk.model.verify import by_transformers
from ropewalk.readers.examine import examine
from ropewalk.readers.rules import READERS

SOUND, SICK = shelf.SOUND | shelf.ALSO_SOUND, sick_shelf.SICK | sick_shelf.ALSO_SICK


@pytest.mark.parametrize("kind", SOUND)
def test_nothing_is_wrong_in_a_sound_config_and_alone_it_is_no_whole_model(kind: str, tmp_path: Path) -> None:
    diagnosis = examine(write(tmp_path, SOUND[kind]()))
    assert not diagnosis.wrong and diagnosis.verdict == "incomplete" and not diagnosis.sound


@pytest.mark.parametrize("kind", SICK)
def test_what_is_wrong_is_found_and_what_is_certain_mended(kind: str, tmp_path: Path) -> None:
    config, checks, mended = SICK[kind]
    write(tmp_path, config)
    before = (tmp_path / "config.json").read_bytes()
    assert wrong(examine(tmp_path)) == checks
    after = examine(tmp_path, fix=True)
    assert (not after.wrong) == mended, after.wrong
    if mended:
        assert after.changed and (tmp_path / "config.json.before-fix-1").read_bytes() == before
        assert examine(tmp_path, fix=True).changed == ()  # there is nothing left to mend
        assert not (tmp_path / "config.json.before-fix-2").exists()


@pytest.mark.parametrize("kind", [kind for kind, (_, _, mended) in SICK.items() if mended])
def test_what_was_mended_rotates_as_before_in_the_reader_that_was_right(kind: str, tmp_path: Path) -> None:
    """transformers 5 read every one of these, or the block says what it would have read."""
    config, _, _ = SICK[kind]
    was = READERS["transformers 5"].inv_freq(config)
    examine(write(tmp_path, config), fix=True)
    new = json.loads((tmp_path / "config.json").read_text())
    four, five = (READERS[f"transformers {version}"].inv_freq(new) for version in (4, 5))
    assert four == pytest.approx(five, rel=1e-12)
    if was is not None and "no rope_theta" not in kind:
        assert five == pytest.approx(was, rel=1e-12)


def test_r4_the_spelling_that_transformers_5_drops_is_put_back(tmp_path: Path) -> None:
    """R4: any save_pretrained of transformers 5 leaves a scaled model unscaled in every reader of version 4."""
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=64,
        num_attention_heads=4,
        max_position_embeddings=256,
        rope_parameters=dict(rope_type="linear", factor=4.0, rope_theta=500000.0),
    )
    config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert "rope_scaling" not in saved and "rope_theta" not in saved  # else there would be nothing to test
    diagnosis = examine(tmp_path)
    assert wrong(diagnosis) == {1} and "save_pretrained of version 5" in diagnosis.wrong[0].sentence
    assert not examine(tmp_path, fix=True).wrong
    mended = json.loads((tmp_path / "config.json").read_text())
    assert mended["rope_scaling"] == dict(rope_type="linear", type="linear", factor=4.0)
    assert mended["rope_theta"] == 500000.0


def test_a_theta_that_one_spelling_alone_says_is_taken_with_a_reservation(tmp_path: Path, capsys) -> None:
    model = testing.tiny_directory(tmp_path / "model", window=64)
    config = json.loads((model / "config.json").read_text())
    config.pop("rope_theta", None)
    config["rope_parameters"]["rope_theta"] = 500000.0
    diagnosis = examine(write(model, config))
    assert "either the key was dropped or the theta was edited" in diagnosis.wrong[0].sentence
    with contextlib.suppress(SystemExit):
        cli.main(["doctor", str(model), "--fix"])
    assert "\nsound, if rope_theta 500000 is the model's own" in capsys.readouterr().out
    assert examine(model).unconfirmed == "rope_theta 500000"  # the fix confirmed nothing
    extended = tmp_path / "extended"
    ropewalk.extend(model, window=256, out=extended)
    assert examine(extended).unconfirmed == ""  # by its digest


def test_a_scaling_without_its_factor_is_told_what_to_put_back(tmp_path: Path) -> None:
    model = testing.tiny_directory(tmp_path / "model", window=64)
    config = json.loads((model / "config.json").read_text())
    scaling = {"rope_type": "yarn", "original_max_position_embeddings": 16}
    for keys, told in (({}, False), ({"rope_scaling": scaling}, True)):
        with pytest.raises(UserError) as refused, by_transformers(Checkpoint.open(write(model, config | keys))):
            raise KeyError("Missing required keys in `rope_parameters` for 'rope_type'='yarn': {'factor'}")
        assert ("put that back into the scaling" in str(refused.value)) is told, keys


@pytest.mark.parametrize("family", testing.PUBLISHED)
def test_r4_what_version_5_saved_of_any_family_is_mended_as_promised(family: str, tmp_path: Path) -> None:
    testing.tiny_config(family).save_pretrained(tmp_path)
    after = examine(tmp_path, fix=True)
    assert 1 not in wrong(after), after.wrong
    config = json.loads((tmp_path / "config.json").read_text())
    four, five = (READERS[f"transformers {version}"] for version in (4, 5))
    assert (
        four.refusal(config)
        or four.scaling_is_ignored(config)
        or four.inv_freq(config) == pytest.approx(five.inv_freq(config))
    )


def test_a_key_that_transformers_5_renamed_is_found_and_written_under_its_older_name(tmp_path: Path) -> None:
    """Of 8 experts under the newer name transformers 4.57.6 makes 128, its class's default, and does not load the weights."""
    config = {key: value for key, value in shelf.qwen3_moe().items() if key != "num_experts"}
    diagnosis = examine(write(tmp_path, config | {"num_local_experts": 8}))
    [sentence] = [finding.sentence for finding in diagnosis.wrong]
    assert (
        "transformers 4 takes num_experts from a key of that name alone" in sentence
        and "num_local_experts 8" in sentence
    )
    assert not examine(tmp_path, fix=True).wrong
    assert json.loads((tmp_path / "config.json").read_text())["num_experts"] == 8


def test_r14_casts_and_the_import_of_a_gguf_are_said(tmp_path: Path) -> None:
    """R14: transformers' own faults, which no file can mend."""
    said = [finding.sentence for finding in examine(write(tmp_path, shelf.extended())).findings if finding.number == 11]
    assert "rounds inv_freq" in said[0] and "GGUF" in said[0]
    import torch

    inv_freq = torch.tensor([1.0, 0.1333], dtype=torch.float32)
    rotary = torch.nn.Module()
    rotary.register_buffer("inv_freq", inv_freq)
    assert rotary.to(torch.bfloat16).inv_freq[1].item() != pytest.approx(0.1333, rel=1e-4)


def test_a_learned_table_is_no_rope_and_its_block_is_checked(tmp_path: Path) -> None:
    config = dict(model_type="gpt2", n_positions=256, n_layer=2, n_embd=64, n_head=4)
    block = dict(original_window=64, window=256, scaling=dict(method="interpolated-table", factor=4.0), steps=0)
    diagnosis = examine(write(tmp_path, config | dict(ropewalk=block)))
    assert not diagnosis.wrong and "256 positions" in diagnosis.summary and not diagnosis.readers
    assert wrong(examine(write(tmp_path, config | dict(ropewalk=block | dict(window=128))))) == {2}


def test_r3_the_original_window_follows_from_window_and_factor(tmp_path: Path) -> None:
    config = shelf.extended()
    config["ropewalk"]["original_window"] = 1024
    examine(write(tmp_path, config), fix=True)
    assert json.loads((tmp_path / "config.json").read_text())["ropewalk"]["original_window"] == 4096


def test_r6_the_window_of_another_tools_scaling_is_computed_and_what_readers_serve_instead_is_said(
    tmp_path: Path,
) -> None:
    """Vicuna names its window in max_sequence_length; Yarn-Llama-2's is original × factor; a config that says neither is asked about."""
    windows = {row.reader: row for row in examine(write(tmp_path, shelf.vicuna_16k())).readers}
    assert (windows["vllm"].window, windows["vllm"].window_differs) == (16384, False)
    assert (windows["sglang"].window, windows["sglang"].window_differs) == (65536, True)
    assert (windows["lm-eval"].window, windows["lm-eval"].window_differs) == (4096, True)
    assert not any(row.window_differs for row in examine(write(tmp_path, shelf.yarn_llama_2_64k())).readers)
    question = shelf.vicuna_16k()
    del question["max_sequence_length"]
    diagnosis = examine(write(tmp_path, question))
    assert not diagnosis.wrong and "window open" in diagnosis.summary
    assert any("--current-window 16384" in finding.sentence for finding in diagnosis.findings if finding.number == 4)


def test_r5_a_model_extended_beyond_the_reach_of_its_attention_is_wrong(tmp_path: Path) -> None:
    """R5: every layer of Mistral-7B-v0.1 sees 4096 tokens, and its far tokens change nothing; as published it is sound."""
    assert wrong(examine(write(tmp_path, shelf.extended(shelf.mistral("0.1"))))) == {6}
    assert any(finding.number == 6 for finding in examine(write(tmp_path, shelf.mistral("0.1"))).findings)


def test_what_settles_the_window_is_said_once_and_an_open_one_has_no_number(tmp_path: Path, capsys) -> None:
    config = shelf.vicuna_16k() | dict(
        hidden_size=64, intermediate_size=64, num_attention_heads=4, num_key_value_heads=4
    )
    with pytest.raises(SystemExit):
        cli.main(["doctor", str(write(tmp_path / "settled", config | dict(num_hidden_layers=1, vocab_size=64)))])
    printed = capsys.readouterr()
    assert (printed.out + printed.err).count("max_sequence_length says that the window is 16384") == 1
    del config["max_sequence_length"]
    assert (
        examine(write(tmp_path / "open", config)).summary
        == "llama, linear with factor 4 on rope_theta 10000; window open"
    )


def test_what_version_4_leaves_out_of_scores_is_said_by_doctor_extend_and_export(tmp_path: Path, caplog) -> None:
    """transformers 4.57 leaves mscale_all_dim out of DeepSeek 2's scores: 1.7 off in log-probabilities, and it says nothing."""
    left_out = "leaves mscale_all_dim out of the scores of deepseek_v2 models"
    model = testing.tiny_directory(tmp_path / "model", "deepseek-v2-lite")
    examine(model, fix=True)
    assert any(left_out in finding.sentence for finding in examine(model).findings if finding.number == 7)
    ropewalk.extend(model, window=256, out=tmp_path / "longer")
    assert f"transformers 4 {left_out}, without a word" in caplog.text
    assert left_out in ropewalk.export(tmp_path / "longer", reader="transformers", out=tmp_path / "out").says


def test_a_scaling_that_a_reader_leaves_out_is_said(tmp_path: Path) -> None:
    """R2, and of its kind: families that MLX rotates without scaling, Gemma 3 in SGLang."""
    for base, names in ((shelf.pythia, ("llama.cpp", "mlx")), (shelf.qwen3_moe, ("mlx",))):
        said = " ".join(f.sentence for f in examine(write(tmp_path, shelf.extended(base()))).findings if f.number == 7)
        assert "left out" in said and all(name in said for name in names)
    rows = {row.reader: row for row in examine(write(tmp_path, shelf.gemma_3_4b())).readers}
    assert rows["sglang"].inv_freq_differs and not rows["vllm"].inv_freq_differs


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model of one YaRN, as `extend` writes it."""
    out = tmp_path_factory.mktemp("longer") / "longer"
    ropewalk.extend("hemp", window=1024, method="yarn", out=out)
    return out


@pytest.mark.parametrize(
    ("key", "value", "causes", "sentence"),
    [
        ("rope_type", "yarm", {1}, "'yarm', which ropewalk does not know; did you mean yarn?"),
        ("rope_theta", 100000.0, {2}, "the ropewalk block says rope_theta 10000.0, but the config's RoPE keys say rope_theta 100000.0:"),
        ("beta_fast", 16.0, {2}, "the ropewalk block says beta_fast 32.0, but the config's RoPE keys say beta_fast 16.0:"),
        ("factor", 8.0, {2}, "the ropewalk block says factor 4.0, but the config's RoPE keys say factor 8.0:"),
    ],
)  # fmt: skip
def test_one_cause_is_one_fault_and_names_what_differs(
    key: str, value: object, causes: set[int], sentence: str, longer: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(longer, tmp_path / "model"))
    config = json.loads((model / "config.json").read_text())
    for part in (config, config["rope_parameters"], config["rope_scaling"]):
        part |= {name: value for name in (key, key.removeprefix("rope_")) if name in part}
    (model / "config.json").write_text(json.dumps(config))
    diagnosis = ropewalk.doctor(model)
    assert wrong(diagnosis) == causes and sentence in diagnosis.wrong[0].sentence
    texts = [finding.sentence for finding in diagnosis.findings if finding.number in (3, 9, 12)]
    assert texts == [f"not before what check {min(causes)} says is mended"] * 3
    assert not any("window is open" in finding.sentence for finding in diagnosis.findings)


def test_notes_count_where_they_are_asked_to(longer: Path, tmp_path: Path, capsys) -> None:
    """Ollama leaves this scaling out: a note. Of a model for a gate that has none but check 11's, `--strict` changes nothing."""
    assert ropewalk.doctor(longer).sound
    with pytest.raises(SystemExit) as stopped:
        cli.main(["doctor", str(longer), "--strict"])
    assert stopped.value.code == 1 and "nothing is wrong, and noted is readers that" in capsys.readouterr().out
    strict = ropewalk.doctor(longer, strict=True)
    assert strict.verdict == "noted" and not strict.sound and {each.number for each in strict.noted} == {7}
    asked = ropewalk.doctor(longer, strict=True, readers=["vllm", "transformers"])  # what Ollama does is no matter here
    assert asked.sound and [row.reader for row in asked.readers] == ["transformers 4", "transformers 5", "vllm"]
    others = [finding for finding in strict.findings if finding.number != 7]
    assert "note" in {each.verdict for each in others} and dataclasses.replace(strict, findings=tuple(others)).sound
