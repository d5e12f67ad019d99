"""A finished run is told from an unfinished one by the model it ended with, wherever its newest checkpoint stands."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys

import pytest

from ropewalk import cli, testing
from ropewalk.checkpoint.steps import Unfinished, at_stake, model_step, steps_left
from ropewalk.errors import UserError
from ropewalk.training import run
from ropewalk.training.log import Log
from short_run import DOCUMENTS, go, same, steps, weights


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return testing.tiny_directory(tmp_path_factory.mktemp("base") / "tiny", window=64)


def interrupted(base, out, at, monkeypatch, **options):
    """A run that Ctrl-C ends after so many steps, as an interrupt of this process."""

    def step(self, row, usual=Log.step):
        usual(self, row)
        if row.step == at:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Log, "step", step)
        go(base, out, **options)


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_a_run_that_was_stopped_and_resumed_is_finished(base, tmp_path, monkeypatch, caplog, mode):
    caplog.set_level(logging.INFO, "ropewalk")
    out = tmp_path / "out"
    interrupted(base, out, 4, monkeypatch, mode=mode)
    assert str(Unfinished.of(out)) == "step 4 of 6" and model_step(out) == 0 and steps_left(out, 6) == 2
    go(base, out, mode=mode, resume=True)
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-000004"]  # none at the end
    before = weights(out), (out / "model.safetensors").stat().st_ino, (out / "records.jsonl").read_bytes()
    with pytest.raises(
        UserError, match=r"does not overwrite the finished run that it holds \(6 steps\); .*--overwrite --yes"
    ):
        go(base, out, mode=mode)
    caplog.clear()
    assert go(base, out, mode=mode, resume=True).steps == 6
    assert "has all its 6 steps: nothing is left to do" in caplog.text and "step 5/6" not in caplog.text
    after = weights(out), (out / "model.safetensors").stat().st_ino, (out / "records.jsonl").read_bytes()
    assert same(before[0], after[0]) and before[1:] == after[1:]
    assert "the model that the run in" in at_stake(out) and "1 checkpoint of the run" in at_stake(out)
    with pytest.raises(UserError, match="was made with seed 0, and this run has 1"):
        go(base, out, mode=mode, resume=True, seed=1)


def test_more_steps_go_on_from_the_newest_checkpoint_and_those_taken_again_are_said(
    base, tmp_path, monkeypatch, caplog
):
    caplog.set_level(logging.INFO, "ropewalk")
    interrupted(base, tmp_path / "out", 2, monkeypatch, steps=4)
    go(base, tmp_path / "out", steps=4, resume=True)
    with pytest.raises(UserError, match="unfinished run, step 4 of 7; go on with --resume"):
        go(base, tmp_path / "out", steps=7)
    go(base, tmp_path / "out", steps=7, resume=True)
    assert "has 4 steps, but nothing to go on from was saved after step 2" in caplog.text
    go(base, tmp_path / "once", steps=7)
    assert same(weights(tmp_path / "out"), weights(tmp_path / "once"))


def test_a_finished_run_that_never_had_a_checkpoint_is_finished_too(base, tmp_path, books):
    out = tmp_path / "out"
    go(base, out, steps=2, save_every=0, data=[books])
    assert not (out / "checkpoints").exists() and go(base, out, steps=2, resume=True, data=[books]).steps == 2
    for options, sentence in (
        ({"learning_rate": 2e-3}, "learning-rate 0.001, and this run has 0.002"),
        ({"data": DOCUMENTS}, "other data"),
        ({"steps": 3}, "no checkpoint that a run can go on from"),
    ):
        with pytest.raises(UserError, match=sentence):
            go(base, out, **{"steps": 2, "data": [books], "resume": True} | options)
    assert len(steps(out)) == 2


@pytest.fixture
def books(tmp_path):
    place = tmp_path / "books.txt"
    place.write_text("\n".join(document.text for document in DOCUMENTS))
    return place


def test_a_model_whose_weights_were_deleted_is_made_again(base, tmp_path):
    go(base, tmp_path / "out", steps=2, save_every=2)
    before = weights(tmp_path / "out")
    (tmp_path / "out/model.safetensors").unlink()
    go(base, tmp_path / "out", steps=2, save_every=2, resume=True)
    assert same(weights(tmp_path / "out"), before)


def test_a_run_that_its_watch_ended_is_finished_and_one_that_its_budget_ended_is_not(base, tmp_path, monkeypatch):
    interrupted(base, tmp_path / "out", 2, monkeypatch, steps=4)
    go(base, tmp_path / "out", steps=4, resume=True)
    records = tmp_path / "out/records.jsonl"
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    for ended_by, unfinished in (("--watch-stop", False), ("--budget", True), (None, True)):
        for line in lines:
            if "settings" in line:
                line["settings"] |= {"watch_stop": 5.0, "ended_by": ended_by, "steps": 9}
        records.write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert (Unfinished.before(tmp_path / "out", 9) is not None) == unfinished
        assert Unfinished.before(tmp_path / "out", 4) is None


_KILLED = """
import os, signal, sys
from ropewalk.training import checkpoints
from short_run import go
usual = checkpoints._put_in_place
def killed(beside, out, place=usual):
    if sys.argv[3] == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    replace = os.replace
    def last(source, target):
        if target.name == "config.json":
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
    os.replace = last
    place(beside, out)
checkpoints._put_in_place = killed
go(sys.argv[1], sys.argv[2], steps=4, resume=True)
"""


@pytest.mark.parametrize("moment", ["before", "in the middle"])
def test_killed_while_it_writes_its_model_a_run_is_unfinished(base, tmp_path, monkeypatch, moment):
    out = tmp_path / "out"
    interrupted(base, out, 2, monkeypatch, steps=4)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "ROPEWALK_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", _KILLED, str(base), str(out), moment]
    killed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(steps(out)) == 4 and (out / "model.safetensors").exists() == (moment != "before")
    with pytest.raises(
        UserError, match="holds an unfinished run, 4 of 4 steps done, the first 2 of them saved; go on with --resume"
    ):
        go(base, out, steps=4)
    go(base, out, steps=4, resume=True)
    go(base, tmp_path / "once", steps=4)
    assert same(weights(out), weights(tmp_path / "once")) and steps_left(out, 4) == 0


_KILLED_SAVING = """
import os, signal, sys
from ropewalk.training import training_state
from short_run import go
def killed(tensors, path):
    path.with_name(".tmpa5018z").write_bytes(b"half")  # as the writer of safetensors calls what it writes
    os.kill(os.getpid(), signal.SIGKILL)
training_state.save_file = killed
go(sys.argv[1], sys.argv[2], steps=4, save_every=2)
"""


def test_killed_while_its_first_checkpoint_is_written_a_run_can_be_begun_anew(base, tmp_path):
    """What the writer's own temporary file is called no mark can know; all that lies in a directory that is half written is the run's."""
    out = tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "ROPEWALK_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", _KILLED_SAVING, str(base), str(out)]
    killed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(list(out.rglob(".tmpa5018z"))) == 1
    with pytest.raises(
        UserError, match="unfinished run, 2 of 4 steps done, none of them saved; --resume begins it again"
    ):
        go(base, out, steps=4)
    (out / "checkpoints/mine.txt").write_text("")
    with pytest.raises(UserError, match="did not make .*mine.txt"):
        go(base, out, steps=4, overwrite=True, yes=True)
    (out / "checkpoints/mine.txt").unlink()
    go(base, out, steps=4, save_every=2, overwrite=True, yes=True)
    assert len(steps(out)) == 4 and not list(out.rglob(".tmpa5018z"))


def test_going_on_to_other_steps_is_said_and_what_it_does_to_the_learning_rate(base, tmp_path, monkeypatch, caplog):
    out = tmp_path / "out"
    interrupted(base, out, 4, monkeypatch, steps=12, warmup=None, save_every=2)
    rates = [step.learning_rate for step in steps(out)]
    caplog.clear()
    with caplog.at_level("INFO", "ropewalk"):
        go(base, out, steps=5, warmup=None, save_every=2, resume=True)
    assert (
        f"{out} goes on with --steps 5; on record is --steps 12; each step's learning rate stays as it was: 2 steps of warm-up, constant"
        in caplog.text
    )
    assert [step.learning_rate for step in steps(out)][:4] == rates[:4] and steps(out)[-1].learning_rate == 1e-3
    caplog.clear()
    with caplog.at_level("INFO", "ropewalk"):
        go(base, out, steps=5, warmup=None, save_every=2, resume=True)
    assert "goes on with" not in caplog.text


def test_options_that_contradict_a_checkpoint_are_refused_before_anything_is_read(base, tmp_path, monkeypatch):
    out = tmp_path / "out"
    interrupted(base, out, 2, monkeypatch, steps=4, save_every=2)
    for name in ("batches_of", "starting_model"):
        monkeypatch.setattr(run, name, lambda *_, **__: pytest.fail("went on"))
    for changed in ({"batch_size": 2}, {"learning_rate": 2e-3}, {"seed": 5}):
        with pytest.raises(UserError, match=f"was made with {next(iter(changed)).replace('_', '-')} "):
            go(base, out, **{"steps": 4, "save_every": 2, "resume": True, **changed})


def test_a_dry_run_of_a_finished_run_says_that_it_is_and_of_a_killed_one_what_is_left(base, tmp_path, capsys, books):
    out = tmp_path / "out"
    options = dict(window=96, steps=2, batch_size=2, method="linear", save_every=2)
    typed = ["--window", "96", "--steps", "2", "--batch-size", "2", "--method", "linear", "--save-every", "2"]
    from ropewalk.training import train

    train(base, data=[books], out=out, **options)
    shutil.rmtree(out / "checkpoints")
    for rest in ("nothing is left to do", None):
        if rest is None:
            train(base, data=[books], out=tmp_path / "again", **options)
            out, rest = tmp_path / "again", "only the model is left to write"
            (out / "config.json").unlink()
        capsys.readouterr()
        cli.main(["train", str(base), "--data", str(books), *typed, "--out", str(out), "--dry-run", "--resume"])
        assert f"has all its 2 steps: {rest}" in capsys.readouterr().out


def test_a_dry_run_goes_by_the_replacement_that_was_begun(base, tmp_path, monkeypatch, capsys, books):
    """As the run itself does: the finished run that it is to replace has all its steps."""
    out, options = tmp_path / "out", dict(data=[books], steps=3, batch_size=2)
    go(base, out, **options)
    interrupted(base, out, 1, monkeypatch, overwrite=True, yes=True, **options)
    typed = ["--window", "96", "--steps", "3", "--batch-size", "2", "--method", "linear", "--learning-rate", "1e-3"]
    capsys.readouterr()
    cli.main(["train", str(base), "--data", str(books), *typed, "--out", str(out), "--dry-run", "--resume"])
    assert "1 of 3 steps are done, and 2 steps of 2 windows" in capsys.readouterr().out
