"""How `doctor` ends: whatever is at a place gets a sentence, an exit status and JSON; what it may mend it mends in place."""

from __future__ import annotations

import copy
import json
import os
import random
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import ropewalk
import shelf
import sick_shelf
from diagnosed import write
from ropewalk import cli, testing
from ropewalk.errors import UserError
from ropewalk.readers.examine import examine


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


@pytest.mark.parametrize("name", ["no-such-directory/", "./nowhere", "/etc/hostname", "a b c"])
def test_a_name_that_is_no_model_is_a_sentence(name: str) -> None:
    with pytest.raises(UserError):
        examine(name)


NONSENSE = (None, True, 0, -1, 2.5, 1e308, float("nan"), 10**30, "", "x", [], [1], [None], {}, {"factor": "x"}, [{}])


def test_no_value_at_any_key_is_a_traceback(tmp_path: Path) -> None:
    """Hundreds of configs with one or two keys of the shelf's set to nonsense: a diagnosis or a sentence, also with --fix."""
    chosen = random.Random(0)
    bases = [build() for build in shelf.SOUND.values()] + [config for config, _, _ in sick_shelf.SICK.values()]
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
    write(tmp_path, sick_shelf.SICK["length with a decimal point"][0])
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
    source = write(tmp_path / "a", sick_shelf.SICK["length with a decimal point"][0]) / "config.json"
    source.chmod(0o640)
    (tmp_path / "b").mkdir()
    os.link(source, tmp_path / "b/config.json")
    before = source.read_bytes()
    assert not examine(tmp_path / "b", fix=True).wrong
    assert source.read_bytes() == before
    assert stat.S_IMODE((tmp_path / "b/config.json").stat().st_mode) == 0o640
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["config.json", "config.json.before-fix-1"]


def test_a_config_in_the_hubs_cache_is_not_mended(tmp_path: Path) -> None:
    write(tmp_path / "blobs", sick_shelf.SICK["length with a decimal point"][0])
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot/config.json").symlink_to(tmp_path / "blobs/config.json")
    with pytest.raises(UserError, match="copy it first"):
        examine(tmp_path / "snapshot", fix=True)
