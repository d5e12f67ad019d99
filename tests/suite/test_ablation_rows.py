"""Rows of an ablation that lie there: of which texts, whose they are, which are whole, what is made again and from where."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ropewalk
from ropewalk.checkpoint import marks
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.processes import locked
from ropewalk.cli import main
from ropewalk.errors import UserError
from ropewalk.records import PasskeySummary, Perplexity, Step, read
from ropewalk.settings import run_file
from ropewalk.settings.ablate import AblateSettings
from ropewalk.suite import measurements, row_run
from ropewalk.suite.grid import Grid
from ropewalk.suite.kept import Kept
from ropewalk.training.log import Log
from small_grid import LIBRARY, SMALL, TEXTS, ablate, header


def test_rows_that_are_there_are_left_and_those_of_others_refused(tmp_path):
    outcomes = ablate(tmp_path, methods=["none"], dry_run=True)
    assert outcomes.to_pandas()[["name", "model", "reason"]].values.tolist() == [["none", "hemp", "to do"]]
    assert not list(tmp_path.iterdir())
    ablate(tmp_path, methods=["none"], measure=["passkey"])
    first = (tmp_path / "none.jsonl").read_bytes()
    ablate(tmp_path, methods=["none"], measure=["passkey"])
    assert (tmp_path / "none.jsonl").read_bytes() == first
    with pytest.raises(UserError, match="none.jsonl is a row with depths 2, and asked for is 3.*choose another --out"):
        ablate(tmp_path, methods=["none"], measure=["passkey"], depths=3)
    # What was not measured then is reason to run it again.
    ablate(tmp_path, methods=["none"], measure=["passkey", "perplexity"])
    assert read([tmp_path / "none.jsonl"]).of(Perplexity)
    # Each command has its file, and the mark knows them all.
    assert [run_file.read(tmp_path / name)[1]["measure"] for name in ("run.yaml", "run-2.yaml")] == [
        ["passkey"],
        ["passkey", "perplexity"],
    ]
    assert not list(tmp_path.glob("run-3.yaml")) and not list(marks.others(tmp_path))


def test_a_row_that_is_not_whole_is_made_again(tmp_path, caplog):
    path = tmp_path / "none.jsonl"
    asked = dict(methods=["none"], measure=["passkey", "retrieval"], prompt_windows=[512])
    ablate(tmp_path, **asked)
    lines, whole = path.read_text().splitlines(keepends=True), path.read_bytes()
    assert header(path)["settings"]["row"]["rows"] == sum('"run":' in line for line in lines)
    for cut in (lines[:-1], lines[:3], [*lines[:-1], lines[-1][:20]], [*lines[:2], *lines[3:]]):
        path.write_text("".join(cut))
        caplog.clear()
        assert [each.reason for each in ablate(tmp_path, dry_run=True, **asked)] == ["to do"]
        assert "it is made again" in caplog.text
    for left in (
        b"",
        whole[300:],
        whole[len(lines[0]) :],
        bytes(len(whole)),
        bytes(4096) + whole[4096:],
        b"disk error\n" + whole,
        whole[:5],
    ):
        path.write_bytes(left)
        caplog.clear()
        assert [each.reason for each in ablate(tmp_path, dry_run=True, **asked)] == ["to do"]
        assert "it is made again" in caplog.text
    for other in (
        b"my notes\n",
        b'[1]\n{"kind": "x',
        b'{"kind":[]}',
        b'{"text":"a document"}\n',
        lines[0].replace('"row":', '"raw":').encode() + b"\0",
    ):
        path.write_bytes(other)
        with pytest.raises(UserError, match="none.jsonl is no row of an ablation; choose another --out, or move it"):
            ablate(tmp_path, **asked)
        assert path.read_bytes() == other
    path.write_bytes(bytes(len(whole)))
    ablate(tmp_path, **asked)
    assert len(path.read_bytes().splitlines()) == len(whole.splitlines())
    caplog.clear()
    assert [each.reason for each in ablate(tmp_path, dry_run=True, **asked)] == [""]
    assert "made again" not in caplog.text
    with path.open("a") as file:
        file.write(json.dumps({"kind": "of_a_later_version", "run": json.loads(lines[1])["run"]}) + "\n")
    assert [each.reason for each in ablate(tmp_path, dry_run=True, **asked)] == [""]
    assert "none.jsonl has lines of kinds that this version does not know: of_a_later_version (1)" in caplog.text
    ablate(tmp_path, dry_run=True, **asked | {"measure": ["passkey", "gain"]})
    assert "none.jsonl was not asked for gain: it is made again" in caplog.text
    path.write_bytes(path.read_bytes() + b"\0")
    ablate(tmp_path, dry_run=True, **asked)
    assert "none.jsonl has lines that cannot be read: it is made again" in caplog.text


def test_a_row_of_another_mode_is_refused_beside_the_others(tmp_path):
    """It would stand there as one of theirs, and its name does not say it."""
    ablate(tmp_path, methods=["linear"], tokens=[1024], measure=["passkey"])
    for mode in ("lora", "pose"):
        with pytest.raises(UserError, match=f"s0.jsonl is a row with mode full, and asked for is {mode}: rows beside"):
            ablate(tmp_path, methods=["yarn"], tokens=[1024], mode=mode, measure=["passkey"])


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Two places, each with files of the same names: the second has other documents, and the same model but for one weight."""
    monkeypatch.chdir(tmp_path)
    for place, module in (("a", "tarfile"), ("b", "argparse")):
        for name in ("test", "data"):
            (tmp_path / place / "pg" / name).mkdir(parents=True)
            shutil.copy(LIBRARY / f"{module}.py", tmp_path / place / "pg" / name / "it's.py")
        shutil.copytree(Checkpoint.open("hemp").path, tmp_path / place / "hemp")
    weights = tmp_path / "b/hemp/model.safetensors"
    weights.chmod(0o644)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    return tmp_path


@pytest.mark.parametrize("other, words", [
    ({"model": "b/hemp"}, "other weights than asked for, though both are called hemp"),
    ({"test": ["b/pg/test"]}, "other test documents than asked for, though both are called pg/test"),
    ({"data": ["a/pg/data", *[LIBRARY / name for name in ("json", "email", "asyncio")]]}, "other training data"),
])  # fmt: skip
def test_rows_of_other_content_under_the_same_names_are_refused(places, other, words):
    names = {
        "model": "a/hemp",
        "test": ["a/pg/test"],
        "data": ["a/pg/data", *[LIBRARY / name for name in ("json", "email", "http")]],
    }
    few = {
        **SMALL,
        "measure": ["passkey"],
        "prompt_windows": [256],
        "methods": ["linear"],
        "tokens": [512],
        "out": "rows",
    }
    ropewalk.ablate(**few, **names)
    first = sorted(Path("rows").glob("*.jsonl"))
    ropewalk.ablate(**few, **names)  # the same is taken
    for axes in ({}, {"seeds": [1]}, {"methods": ["yarn"]}):
        with pytest.raises(UserError, match=words):
            ropewalk.ablate(**{**few, **names, **other, **axes})
    assert sorted(Path("rows").glob("*.jsonl")) == first


def test_a_row_is_the_same_by_whatever_paths_its_texts_are_named(places, monkeypatch):
    """`--config grid/run.yaml` has absolute paths where relative ones were typed: `data` is then called `pg/data`."""
    monkeypatch.chdir(places / "a/pg")
    few = {**SMALL, "measure": ["passkey"], "prompt_windows": [256], "methods": ["linear"], "tokens": [512]}
    ropewalk.ablate("../hemp", test=["test"], data=["data"], out="rows", **few)
    (row,) = Path("rows").glob("*.jsonl")
    assert header(row)["settings"]["row"]["data"] == "data"
    before = row.read_bytes()
    monkeypatch.chdir(places / "a/hemp")  # whose name is no part of "."
    again = ["ablate", "--config", str(places / "a/pg/rows/run.yaml"), "--device", "cpu"]
    for command in ([*again, "--dry-run", "--chip", "H100"], again):
        main(command)
    ropewalk.ablate(".", test=["../../a/pg/test"], data=["../pg/data"], out="../pg/rows", **few)
    assert (places / "a/pg/rows" / row.name).read_bytes() == before and len(
        list(Path("../pg/rows").glob("*.jsonl"))
    ) == 1
    with pytest.raises(UserError, match="is a row with data data, and asked for is pg/data"):  # of other content
        ropewalk.ablate(".", test=["../pg/test"], data=["../../b/pg/data"], out="../pg/rows", **few)
    # Without a digest on record a name is all that there is.
    (places / "a/pg/rows" / row.name).write_text(re.sub(r'"digests":{[^}]*},', "", before.decode()))
    with pytest.raises(UserError, match="is a row with data data, and asked for is pg/data"):
        ropewalk.ablate(".", test=["../pg/test"], data=["../pg/data"], out="../pg/rows", **few)


@pytest.mark.parametrize("dry", [True, False])
def test_texts_that_are_trained_on_and_tested_are_said(places, caplog, dry):
    asked = dict(methods=["none"], tokens=[0], measure=["passkey"], prompt_windows=[256], **SMALL) | dict(device="cpu")
    asked |= dict(dry_run=True, chip="H100") if dry else {}
    # As long as what is trained on, and another text.
    other = Path("a/pg/test/it's.py").read_bytes()
    Path("b/pg/test/other.py").write_bytes(bytes([other[0] ^ 1]) + other[1:])
    ropewalk.ablate("hemp", out="rows", test=["b/pg/test"], data=["a/pg/data"], **asked)
    assert "learnt by heart" not in caplog.text
    ropewalk.ablate("hemp", out="same", test=["a/pg/test"], data=["b/pg/data", "a/pg/test", "0.5"], **asked)
    assert "trains on (a/pg/test/it's.py): what is measured there is what was learnt by heart" in caplog.text
    shutil.copy("a/pg/data/it's.py", "b/pg/test/renamed.py")
    ropewalk.ablate("hemp", out="others", test=["b/pg/test"], data=["a/pg/data"], **asked)
    assert "trains on (b/pg/test/renamed.py is a/pg/data/it's.py): what is measured" in caplog.text


def test_rows_of_earlier_versions_are_known_by_their_names(places):
    few = {**SMALL, "measure": ["passkey"], "prompt_windows": [256], "methods": ["none"], "out": "rows"}
    ropewalk.ablate("a/hemp", test=["a/pg/test"], **few)
    row = Path("rows/none.jsonl")
    row.write_text(re.sub(r'"digests":{[^}]*},', "", row.read_text()))
    before = row.read_bytes()
    ropewalk.ablate("b/hemp", test=["a/pg/test"], **few)
    assert row.read_bytes() == before
    with pytest.raises(UserError, match="none.jsonl is a row with test pg/test, and asked for is test/it's.py"):
        ropewalk.ablate("a/hemp", test=["a/pg/test/it's.py"], **{**few, "methods": ["linear"]})


def test_the_command_on_record_makes_the_row_again(places):
    """Run by a shell's rules in the same directory, whatever is in the names, and in another --out: the same records, but for times."""
    data = ["a/pg/data", "0.75", "b/pg/data", "0.25@128"]
    ropewalk.ablate(
        "a/hemp", test=["a/pg/test", "b/pg/test/it's.py"], data=data, methods=["yarn:beta_fast=16.5"], tokens=[1024], learning_rates=[0.00033333333],
        out="g", **{**SMALL, "measure": ["passkey"], "prompt_windows": [256], "documents": 2},
    )  # fmt: skip
    (row,) = Path("g").glob("*.jsonl")
    command = header(row)["command"]
    words = shlex.split(command)
    assert words[:3] == ["ropewalk", "ablate", "a/hemp"] and words[words.index("--out") + 1] == "g"
    assert "b/pg/test/it's.py" in words and words[words.index("--data") + 1 :][:4] == data
    row.rename("first.jsonl")
    shell = f"{shlex.quote(sys.executable)} -m {command} --device cpu"
    subprocess.run(["bash", "-c", shell], check=True, capture_output=True)
    first, again = (json.loads(path.read_text().split("\n", 1)[0]) for path in (Path("first.jsonl"), row))
    for each in (first, again):
        del each["settings"]["row"]["seconds"], each["started"], each["id"]
    assert first == again
    assert header(row)["settings"]["row"]["test"] == "pg/test test/it's.py"  # not "gtest", though --out is g


def test_rows_of_a_clone_make_a_directory_theirs_and_texts_of_others_do_not(tmp_path):
    ablate(tmp_path / "rows", methods=["none"], measure=["passkey"], prompt_windows=[256])
    (tmp_path / "cloned").mkdir()
    shutil.copy(tmp_path / "rows/none.jsonl", tmp_path / "cloned")  # git carries no hidden mark
    ablate(tmp_path / "cloned", methods=["linear"], measure=["passkey"], prompt_windows=[256])
    assert (tmp_path / "cloned/linear-x2-0.jsonl").exists()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/chat.jsonl").write_text('{"text": "mine"}\n')
    with pytest.raises(UserError, match="rows lie in a directory of their own"):
        ablate(tmp_path / "texts", methods=["linear"], measure=["passkey"])


KEPT = dict(methods=["linear"], tokens=[1024], measure=["perplexity", "passkey"], windows="ends", prompt_windows=[256])


def test_a_row_whose_measurement_fails_goes_on_from_its_trained_model_and_what_is_measured(
    tmp_path, monkeypatch, caplog
):
    name = "linear-x2-1k-1e-4-s0"
    ablate(tmp_path / "once", **KEPT)
    with monkeypatch.context() as broken, pytest.raises(ZeroDivisionError):
        broken.setattr(measurements.passkey, "measure", lambda *_: 1 / 0)
        ablate(tmp_path / "twice", **KEPT)
    work = tmp_path / "twice/.work" / name
    assert f"{name}: what is done of it stays in {work}, and the same command goes on from there" in caplog.text
    with (work / "records.jsonl").open("a") as records:
        records.write("half a li")
    monkeypatch.setattr(row_run, "Loop", None)  # nothing is trained again
    monkeypatch.setattr(measurements.perplexities, "measure", None)  # nor is that measured
    (outcome,) = ablate(tmp_path / "twice", **KEPT)
    assert outcome.reason == "" and not work.exists()
    once, twice = (read([tmp_path / place / f"{name}.jsonl"]) for place in ("once", "twice"))
    assert [m.row.loss for m in twice.of(Step)] == [m.row.loss for m in once.of(Step)]
    assert len(twice.of(Perplexity)) == 2 and len(twice.of(PasskeySummary)) == 1
    for kind, figure in ((Perplexity, "perplexity"), (PasskeySummary, "accuracy")):
        assert [getattr(m.row, figure) for m in twice.of(kind)] == [getattr(m.row, figure) for m in once.of(kind)]


def test_what_is_kept_of_a_row_is_only_what_is_asked_for_now(tmp_path):
    settings = AblateSettings(model="hemp", out=tmp_path, **{**TEXTS, **SMALL, **KEPT})
    asked = Grid(settings, Checkpoint.open("hemp"))
    identity = asked.identity(asked.rows[0])
    kept = Kept.of(tmp_path, identity)
    (tmp_path / "records.jsonl").write_text("steps\n")
    kept.trained({"weight": torch.ones(2)}, steps=3, seconds=5.0)
    with (tmp_path / "records.jsonl").open("a") as records:
        records.write("perplexity\n")
    kept.measured("perplexity at 256")
    assert Kept.of(tmp_path, identity | {"measure": ["gain"]}) == dataclasses.replace(
        kept, asked=json.loads(json.dumps(identity | {"measure": ["gain"]}))
    )
    again = Kept.of(tmp_path, identity | {"trials": 9})
    assert (again.steps, again.seconds, again.done) == (3, 5.0, []) and again.weights()["weight"].equal(torch.ones(2))
    assert (tmp_path / "records.jsonl").read_text() == "steps\n"
    assert Kept.of(tmp_path, identity | {"step_tokens": 9}).steps == 0 and not list(tmp_path.iterdir())


def test_a_training_whose_model_is_kept_nowhere_says_so_when_it_is_stopped(tmp_path, monkeypatch, caplog, capfd):
    caplog.set_level("INFO", "ropewalk")
    monkeypatch.setattr(Log, "step", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        ablate(tmp_path, **KEPT | {"tokens": [4096]})
    said = capfd.readouterr().err
    assert ", and nothing of this training is kept; Ctrl-C again ends at once" in said and "saving" not in said
    assert "after step 1, and nothing of this training is kept" in caplog.text and "stays in" not in caplog.text


def test_a_row_that_another_process_holds_is_left_to_it(tmp_path):
    held = tmp_path / ".work/none"
    held.mkdir(parents=True)
    with locked(held):
        outcomes = ablate(tmp_path, methods=["none", "linear"], measure=["passkey"], prompt_windows=[256])
    assert {each.name: each.reason for each in outcomes} == {"none": "another process runs it", "linear-x2-0": ""}
    assert [path.name for path in tmp_path.glob("*.jsonl")] == ["linear-x2-0.jsonl"]
