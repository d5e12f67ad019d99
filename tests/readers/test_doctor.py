"""`ropewalk doctor`: the right verdict on a shelf of configs; what it mends; what it cannot examine."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import os
import random
import shutil
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import ropewalk
import shelf
from ropewalk import cli, testing
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.errors import UserError
from ropewalk.model.verify import by_transformers
from ropewalk.readers.examine import examine
from ropewalk.readers.rules import READERS
from ropewalk.training import lora


def write(directory: Path, config: object, **others: object) -> Path:
    """A directory with a config.json and other JSON files, by their names."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in {"config": config, **others}.items():
        (directory / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return directory


def wrong(diagnosis) -> set[int]:
    return {finding.number for finding in diagnosis.wrong}


SOUND, SICK = shelf.SOUND | shelf.ALSO_SOUND, shelf.SICK | shelf.ALSO_SICK


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


def test_weights_of_another_dtype_than_the_config_names_are_noted(tmp_path: Path) -> None:
    model = testing.tiny_directory(tmp_path / "model", window=64)
    config = json.loads((model / "config.json").read_text())
    assert {finding.verdict for finding in examine(model).findings if finding.number == 10} == {"ok"}
    (said,) = [f for f in examine(write(model, config | {"dtype": "float16"})).findings if f.number == 10]
    assert said.verdict == "note" and "headers say float32 and the config float16" in said.sentence


def test_a_scaling_without_its_factor_is_told_what_to_put_back(tmp_path: Path) -> None:
    model = testing.tiny_directory(tmp_path / "model", window=64)
    config = json.loads((model / "config.json").read_text())
    scaling = {"rope_type": "yarn", "original_max_position_embeddings": 16}
    for keys, told in (({}, False), ({"rope_scaling": scaling}, True)):
        with pytest.raises(UserError) as refused, by_transformers(Checkpoint.open(write(model, config | keys))):
            raise KeyError("Missing required keys in `rope_parameters` for 'rope_type'='yarn': {'factor'}")
        assert ("put that back into the scaling" in str(refused.value)) is told, keys


def test_weights_of_several_dtypes_are_noted_though_most_are_of_the_configs(tmp_path: Path) -> None:
    model = testing.tiny_directory(tmp_path / "model", window=64)
    weights = load_file(model / "model.safetensors")
    norms = [name for name in weights if "input_layernorm" in name]
    save_file(
        {name: value.half() if name in norms else value for name, value in weights.items()},
        model / "model.safetensors",
        {"format": "pt"},
    )
    (said,) = [finding for finding in examine(model).findings if finding.number == 10]
    assert (
        said.verdict == "note"
        and f"{len(weights) - len(norms)} tensors float32, {len(norms)} float16 ({norms[0]})" in said.sentence
    )


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


def test_a_tokenizer_of_transformers_5_is_found_and_mended(tmp_path: Path) -> None:
    tokenizer = dict(model=dict(type="BPE", vocab={}, merges=[]), added_tokens=[])
    about = dict(tokenizer_class="TokenizersBackend", extra_special_tokens=["<a>"], model_max_length=4096)
    write(tmp_path, shelf.extended(), tokenizer_config=about, tokenizer=tokenizer)
    assert wrong(examine(tmp_path)) == {3, 5}
    after = examine(tmp_path, fix=True)
    assert not after.wrong and len(after.kept) == 1
    mended = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert mended == dict(
        tokenizer_class="PreTrainedTokenizerFast", additional_special_tokens=["<a>"], model_max_length=16384
    )


def test_a_tokenizer_that_cannot_be_mended_stays(tmp_path: Path) -> None:
    write(tmp_path, shelf.llama_2(), tokenizer_config=dict(tokenizer_class="TokenizersBackend"))
    (tmp_path / "tokenizer.model").write_bytes(b"\0")
    assert wrong(examine(tmp_path, fix=True)) == {5}
    write(tmp_path, shelf.llama_2(), tokenizer_config=dict(tokenizer_class="LlamaTokenizer"))
    (tmp_path / "tokenizer.json").write_text("{")
    assert wrong(examine(tmp_path)) == {5}


def adapter(base: str | None, kind: str = "LORA") -> dict[str, object]:
    return dict(peft_type=kind, base_model_name_or_path=base, r=8, task_type="CAUSAL_LM")


def test_an_adapter_says_what_it_belongs_to(tmp_path: Path) -> None:
    base = write(tmp_path / "base", shelf.llama_2())
    extended = write(tmp_path / "extended", shelf.extended())
    directory = tmp_path / "adapter"
    cases = [
        (adapter(None, lora.TYPE), shelf.extended(), set()),
        (adapter(str(base), lora.TYPE), shelf.extended(), set()),  # what `train --mode lora` writes
        (adapter(str(extended)), shelf.extended(), set()),
        (adapter(str(base)), shelf.extended(), {8}),  # peft would load it on a model that rotates otherwise
        (adapter(7), shelf.extended(), {8}),
    ]
    for about, config, expected in cases:
        write(directory, config, adapter_config=about)
        safetensors(directory / "adapter_model.safetensors", a=(2,))
        assert wrong(examine(directory)) == expected, about
    (directory / "adapter_model.safetensors").unlink()
    assert wrong(examine(directory)) == {8}


def test_an_adapter_without_config_and_base_is_of_no_model(tmp_path: Path) -> None:
    safetensors(tmp_path / "adapter_model.safetensors", a=(2,))
    (tmp_path / "adapter_config.json").write_text(json.dumps(adapter(None)))
    assert wrong(examine(tmp_path)) == {8}


def safetensors(path: Path, **shapes: tuple[int, ...]) -> None:
    """A safetensors file of the numbers 0, 1, 2, … in float32: a matrix of zeros alone would be wrong."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 4 * (shape[0] * (shape[1] if len(shape) > 1 else 1))
        header[name.replace("__", ".")] = dict(dtype="F32", shape=list(shape), data_offsets=[end, end + size])
        end += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + struct.pack(f"<{end // 4}f", *range(end // 4)))


def test_a_gguf_file_in_a_directory_is_named_as_what_holds_the_weights(tmp_path: Path) -> None:
    (write(tmp_path, shelf.llama_2()) / "model.gguf").write_bytes(b"GGUF")
    [files] = [finding for finding in examine(tmp_path).findings if finding.number == 10]
    assert files.verdict == "not checked" and f"ropewalk doctor {tmp_path / 'model.gguf'}" in files.sentence


def test_files_that_are_not_one_whole_set_are_wrong(tmp_path: Path) -> None:
    directory = write(tmp_path, {**shelf.llama_2(), "num_hidden_layers": 1})  # a file of one tensor holds no more
    safetensors(directory / "model.safetensors", model__embed_tokens__weight=(8, 4))
    assert wrong(examine(directory)) == set()
    safetensors(directory / "model-00001-of-00001.safetensors", model__embed_tokens__weight=(8, 4))
    assert wrong(examine(directory)) == {10}
    (directory / "model-00001-of-00001.safetensors").unlink()
    (directory / "model.safetensors").write_bytes((directory / "model.safetensors").read_bytes()[:-3])
    assert wrong(examine(directory)) == {10}
    (directory / "model.safetensors").unlink()
    index = dict(weight_map={"model.embed_tokens.weight": "model-00001-of-00002.safetensors"})
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    assert wrong(examine(directory)) == {10}


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


def not_to_be_examined() -> dict[str, dict[str, bytes]]:
    """Kind → the files of a directory."""
    return {
        "nothing": {},
        "no config": {"README.md": b"a model"},
        "broken JSON": {"config.json": b'{"model_type": "llama",'},
        "a list": {"config.json": b"[1, 2]"},
        "bytes": {"config.json": bytes(range(256))},
        "nested too deep": {"config.json": b'{"a":' * 100_000},
        "broken tokenizer config": {"config.json": b'{"model_type": "llama"}', "tokenizer_config.json": b"{"},
        "broken adapter": {"config.json": b'{"model_type": "llama"}', "adapter_config.json": b"[]"},
    }


@pytest.mark.parametrize("kind", not_to_be_examined())
def test_what_cannot_be_examined_is_a_sentence_and_exit_2(kind: str, tmp_path: Path, capsys) -> None:
    for name, content in not_to_be_examined()[kind].items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["doctor", str(tmp_path)])
    assert stopped.value.code == 2
    stderr = capsys.readouterr().err
    assert stderr.startswith("ropewalk: ") and stderr.count("\n") == 1
    with pytest.raises(SystemExit) as stopped:
        cli.main(["doctor", str(tmp_path), "--json"])
    verdict = json.loads(capsys.readouterr().out)
    assert stopped.value.code == 2 and verdict["verdict"] == "not examined" and not verdict["sound"]
    assert verdict["error"] == stderr.removeprefix("ropewalk: ").rstrip("\n")


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


@pytest.mark.parametrize("name", ["no-such-directory/", "./nowhere", "/etc/hostname", "a b c"])
def test_a_name_that_is_no_model_is_a_sentence(name: str) -> None:
    with pytest.raises(UserError):
        examine(name)


NONSENSE = (None, True, 0, -1, 2.5, 1e308, float("nan"), 10**30, "", "x", [], [1], [None], {}, {"factor": "x"}, [{}])


def test_no_value_at_any_key_is_a_traceback(tmp_path: Path) -> None:
    """Hundreds of configs with one or two keys of the shelf's set to nonsense: a diagnosis or a sentence, also with --fix."""
    chosen = random.Random(0)
    bases = [build() for build in shelf.SOUND.values()] + [config for config, _, _ in shelf.SICK.values()]
    for _ in range(300):
        config = copy.deepcopy(chosen.choice(bases))
        for _ in range(chosen.randint(1, 2)):
            place = chosen.choice([config, *(value for value in config.values() if isinstance(value, dict))])
            place[chosen.choice([*place, "text_config", "layer_types", "head_dim"])] = copy.deepcopy(
                chosen.choice(NONSENSE)
            )
        try:
            json.dumps(examine(write(tmp_path, config), fix=chosen.random() < 0.5).to_dict())
        except UserError:
            pass


def test_exit_1_if_anything_is_wrong_and_json_says_what(tmp_path: Path, capsys) -> None:
    write(tmp_path, shelf.SICK["length with a decimal point"][0])
    with pytest.raises(SystemExit) as stopped:
        cli.main(["doctor", str(tmp_path), "--json"])
    assert stopped.value.code == 1
    said = json.loads(capsys.readouterr().out)
    assert not said["sound"]
    assert [each["number"] for each in said["findings"] if each["verdict"] == "wrong"][0] == 1
    with pytest.raises(SystemExit) as stopped:
        cli.main(
            ["doctor", str(tmp_path), "--fix"]
        )  # and no longer 1 once it is mended, though a config is no whole model
    assert stopped.value.code == 3
    assert "mended: max_position_embeddings 4096.0 is the whole number 4096" in capsys.readouterr().out


def test_a_config_that_transformers_refuses_is_no_fault_of_the_tokenizer(tmp_path: Path) -> None:
    directory = testing.tiny_directory(tmp_path / "a")
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    (directory / "config.json").write_text(json.dumps(config | {"max_position_embeddings": "64"}), encoding="utf-8")
    assert not any("does not open the tokenizer" in finding.sentence for finding in ropewalk.doctor(directory).findings)


def test_the_reason_that_transformers_gives_is_whole_and_on_one_line(tmp_path: Path) -> None:
    """huggingface_hub's validators say which one failed in the first line, and why in the second."""
    directory = testing.tiny_directory(tmp_path / "a")
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    (directory / "config.json").write_text(json.dumps(config | {"num_attention_heads": 7}), encoding="utf-8")
    (sentence,) = [finding.sentence for finding in ropewalk.doctor(directory).findings if finding.number == 9]
    assert "multiple of the number of attention heads (7)" in sentence and "\n" not in sentence


def test_doctor_runs_without_torch_and_without_transformers(tmp_path: Path) -> None:
    write(tmp_path, shelf.llama_2())
    code = (
        "from importlib.machinery import PathFinder\nfind = PathFinder.find_spec\nabsent = ('torch', 'transformers')\n"
        "PathFinder.find_spec = lambda name, *rest: None if name.split('.')[0] in absent else find(name, *rest)\n"
        "from ropewalk import cli\n"
        f"cli.main(['doctor', {str(tmp_path)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert "incomplete: nothing is wrong" in done.stdout
    assert "not checked" in done.stdout and "ropewalk[train]" in done.stdout


def test_from_python_the_embedded_model_is_sound_and_cannot_be_changed(tmp_path: Path) -> None:
    diagnosis = ropewalk.doctor("hemp")
    assert diagnosis.sound and {row.window for row in diagnosis.readers} == {256}
    nine = next(finding for finding in diagnosis.findings if finding.number == 9)
    assert nine.verdict == "ok" and "computes the closed form" in nine.sentence


def test_what_is_mended_keeps_its_mode_and_is_no_link_to_another_models_config(tmp_path: Path) -> None:
    source = write(tmp_path / "a", shelf.SICK["length with a decimal point"][0]) / "config.json"
    source.chmod(0o640)
    (tmp_path / "b").mkdir()
    os.link(source, tmp_path / "b/config.json")
    before = source.read_bytes()
    assert not examine(tmp_path / "b", fix=True).wrong
    assert source.read_bytes() == before
    assert stat.S_IMODE((tmp_path / "b/config.json").stat().st_mode) == 0o640
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["config.json", "config.json.before-fix-1"]


def test_a_config_in_the_hubs_cache_is_not_mended(tmp_path: Path) -> None:
    write(tmp_path / "blobs", shelf.SICK["length with a decimal point"][0])
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot/config.json").symlink_to(tmp_path / "blobs/config.json")
    with pytest.raises(UserError, match="copy it first"):
        examine(tmp_path / "snapshot", fix=True)
