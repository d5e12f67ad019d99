"""`--budget`: a run ends in time, with what it has done saved, measured and fit to go on; or it does not begin."""

import collections
import os
import re
import shutil
import signal
import time

import pytest

from ropewalk import records, testing
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.errors import UserError
from ropewalk.training import deadline
from ropewalk.training.deadline import Deadline, OutOfTime
from ropewalk.training.guard import Signals
from ropewalk.training.log import Log
from ropewalk.training.loop import Loop
from short_run import DOCUMENTS, go, killed, same, steps, weights


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    from ropewalk.training import run  # noqa: F401  its imports are none of the minutes that a test asks for

    return testing.tiny_directory(tmp_path_factory.mktemp("base") / "tiny", window=64)


def test_a_run_ends_within_its_minutes_and_goes_on_to_what_it_would_have_been(base, tmp_path):
    begin = time.monotonic()
    info = go(base, tmp_path / "twice", steps=100_000, budget=0.08, save_every=0)
    assert time.monotonic() - begin < 4.8
    assert 0 < info.steps < 100_000
    done = steps(tmp_path / "twice")
    assert len(done) == info.steps and done[-1].seconds_left < 4.8

    def ended_by():
        (run,) = records.read([tmp_path / "twice/records.jsonl"]).runs.values()
        return run.settings.get("ended_by")

    assert ended_by() == "--budget"
    more = info.steps + 2
    go(base, tmp_path / "twice", steps=more, save_every=0, resume=True)
    assert ended_by() is None
    go(base, tmp_path / "once", steps=more, save_every=0)
    assert same(weights(tmp_path / "once"), weights(tmp_path / "twice"))


def test_what_comes_after_the_steps_is_kept_back(base, tmp_path, monkeypatch):
    """A watch of two seconds and a save of one: the steps end before they would make it late."""
    from ropewalk.suite import watch
    from ropewalk.training import saving

    def slow_save(*arguments, **options):
        time.sleep(1)
        return write(*arguments, **options)

    write = saving.write_checkpoint
    monkeypatch.setattr(saving, "write_checkpoint", slow_save)
    monkeypatch.setattr(watch.Watch, "__call__", lambda self, run: time.sleep(1.5))
    options = {"watch": ["passkey"], "watch_every": 10**6, "save_every": 1, "steps": 1000}
    begin = time.monotonic()
    watch.train(
        base, out=tmp_path / "out", budget=0.17, data=DOCUMENTS, window=96, method="linear", batch_size=2, **options
    )
    assert time.monotonic() - begin < 0.17 * 60
    assert len(records.read([tmp_path / "out/records.jsonl"]).of(records.Step)) >= 1


@pytest.mark.parametrize(
    ("rate", "said"),
    [
        (
            1e3,
            "a step of 4 windows takes about .* and --budget leaves 0:.*; ask for a shorter --window, or for --mode pose, or give",
        ),
        (3e6, "ask for a --batch-size of [123] at most, or give it more minutes"),
    ],
)
def test_a_step_that_is_longer_than_all_of_it_is_refused_before_it_begins(base, tmp_path, monkeypatch, rate, said):
    monkeypatch.setattr(deadline, "_rate", lambda device, *_: rate)
    with pytest.raises(UserError, match=said):
        go(base, tmp_path / "out", budget=1)
    assert not (tmp_path / "out").exists()


def test_a_budget_that_loading_spends_is_said(base, tmp_path):
    with pytest.raises(UserError, match="leaves no time for a step"):
        go(base, tmp_path / "out", budget=0.001)


def test_without_a_budget_there_is_all_the_time(base):
    assert Deadline(None).left == float("inf")


def test_data_that_takes_all_of_it_to_read_is_given_up(base, tmp_path, monkeypatch):
    """A corpus of hours and a budget of minutes: it ends in time, and says by what."""
    (tmp_path / "books").mkdir()
    for number in range(4):
        (tmp_path / f"books/{number}.txt").write_text(testing.prose(80, number))
    monkeypatch.setattr(Deadline, "left", property(lambda self: -1.0))
    with pytest.raises(
        UserError, match="--budget is spent by tokenising before the first step; give it more minutes, or less to do"
    ):
        go(base, tmp_path / "out", budget=1, data=[tmp_path / "books"])
    assert not (tmp_path / "out").exists()


def test_the_same_command_after_a_budget_says_how_far_the_run_came(base, tmp_path):
    go(base, tmp_path / "out", steps=100_000, budget=0.08, save_every=0)
    done = len(steps(tmp_path / "out"))
    with pytest.raises(UserError, match=f"unfinished run, step {done} of 100000; go on with --resume"):
        go(base, tmp_path / "out", steps=100_000, save_every=0)
    with pytest.raises(UserError, match="exists and ropewalk does not overwrite"):  # it has all of these
        go(base, tmp_path / "out", steps=done, save_every=0)


def test_a_signal_is_no_end_in_time_and_a_model_that_the_run_has_left_behind_is_said(
    base, tmp_path, monkeypatch, caplog, capfd
):
    """A signal in the last step that the budget has time for; then one step more, and what is read is still the model before it."""
    caplog.set_level("INFO", "ropewalk")
    out = tmp_path / "out"

    def late(deadline, seconds, *_):
        raise OutOfTime(seconds)

    def step(self, row, usual=Log.step):
        usual(self, row)
        monkeypatch.setattr(Deadline, "check", late)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Log, "step", step)
        go(base, out, save_every=0, budget=5)
    assert "stopped by a signal after step 1, which is saved" in caplog.text and "in time for" not in caplog.text
    # A step of one micro batch was seen, and a checkpoint is reckoned by its size.
    assert re.search(r"this micro batch is done, and saving, \d+:\d\d at most if", capfd.readouterr().err)
    monkeypatch.undo()
    assert go(base, out, save_every=1, resume=True, steps=2).steps == 2
    monkeypatch.setattr(Log, "step", lambda self, row: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        go(base, out, save_every=0, resume=True, steps=9)
    assert (
        f"after step 3, which is saved; go on with --resume; the model in {out} is still that of step 2" in caplog.text
    )
    caplog.clear()
    assert Checkpoint.open(out).info.steps == Checkpoint.open(out).info.steps == 2
    later = f"the model in {out} is that of step 2, and its run came to step 3: {out}/checkpoints/step-000003"
    assert caplog.text.count(later) == 1


def test_a_signal_while_the_end_in_time_is_saved_is_no_end_in_time_either(base, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "ropewalk")

    def late(deadline, seconds, *_):
        raise OutOfTime(seconds)

    def step(self, row, usual=Log.step):
        usual(self, row)
        monkeypatch.setattr(Deadline, "check", late)

    def save(self, run, usual=Loop._save):
        os.kill(os.getpid(), signal.SIGINT)
        usual(self, run)

    monkeypatch.setattr(Log, "step", step)
    monkeypatch.setattr(Loop, "_save", save)
    monkeypatch.setattr(Signals, "_remember", lambda self, number, frame: setattr(self, "received", number))
    with pytest.raises(KeyboardInterrupt):  # a second one, which the loop's own save gets, is as the first here
        go(base, tmp_path / "out", save_every=0, budget=5)
    assert "stopped by a signal after step 1, which is saved" in caplog.text
    assert not (tmp_path / "out" / "config.json").exists() and (tmp_path / "out/checkpoints/step-000001").is_dir()


@pytest.fixture
def always(monkeypatch):
    """A checkpoint by time is due after every step."""
    monkeypatch.setattr(deadline, "BY_TIME", 0.0)
    monkeypatch.setattr(deadline, "_OF_TIME", 0)


def kept(out):
    return sorted(path.name for path in (out / "checkpoints").glob("*"))


def test_a_checkpoint_is_due_after_ten_minutes_and_never_for_more_than_a_twentieth_of_the_time(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(deadline.time, "monotonic", lambda: now)
    run = Deadline()
    now += 3600  # of reading data
    assert not run.is_checkpoint_due()
    run.step(60)
    now += 539
    assert not run.is_checkpoint_due()
    now += 1
    assert run.is_checkpoint_due()
    with run.timed("saving"):
        now += 90
    now += 20 * 90 - 1
    assert not run.is_checkpoint_due()
    now += 1
    assert run.is_checkpoint_due() and not run.is_checkpoint_due()


def test_checkpoints_by_time_are_what_a_killed_run_goes_on_from_and_leave_no_models_behind(
    base, tmp_path, monkeypatch, always
):
    go(base, tmp_path / "once", save_every=0)
    assert kept(tmp_path / "once") == []

    with killed(monkeypatch, 5):
        go(base, tmp_path / "twice")
    assert kept(tmp_path / "twice") == ["step-000003", "step-000004"]
    (tmp_path / "twice/checkpoints/step-000004/notes.txt").write_text("mine")
    go(base, tmp_path / "twice", steps=8, resume=True)
    assert len(steps(tmp_path / "twice")) == 5 + 4
    # No other step's model stays, and none is written after the last step; somebody's file does, with the model beside it.
    assert kept(tmp_path / "twice") == ["step-000004", "step-000006", "step-000007"]
    assert not (tmp_path / "twice/checkpoints/step-000004/state").exists()
    go(base, tmp_path / "once", steps=8, save_every=0, overwrite=True, yes=True)
    assert same(weights(tmp_path / "once"), weights(tmp_path / "twice"))


def test_a_checkpoint_after_steps_stays_as_a_model_among_those_by_time(base, tmp_path, monkeypatch, always):
    monkeypatch.setattr("ropewalk.settings.train._SAVE_EVERY", 2)
    go(base, tmp_path / "out")
    assert kept(tmp_path / "out") == ["step-000002", "step-000004", "step-000005", "step-000006"]
    go(base, tmp_path / "given", save_every=2)
    assert kept(tmp_path / "given") == ["step-000002", "step-000004", "step-000006"]


def test_a_disk_without_room_for_a_checkpoint_by_time_does_not_end_the_run(base, tmp_path, monkeypatch, caplog, always):
    caplog.set_level("INFO", "ropewalk")
    usage = collections.namedtuple("usage", "total used free")
    room = (base / "model.safetensors").stat().st_size + 2**19  # of the model that it ends with
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**40, 0, room))
    assert go(base, tmp_path / "out", steps=2).steps == 2 and kept(tmp_path / "out") == []
    assert "no checkpoint after step 1: the disk of" in caplog.text and "loses the steps since the first" in caplog.text
