"""What ends a run, and how it goes on: signals, damage, memory, losses that explode; the same weights in the end."""

import os
import shlex
import shutil
import signal
import subprocess
import warnings

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml

from ropewalk import cli, records, testing
from ropewalk.checkpoint import half_written, marks
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.data.documents import Document
from ropewalk.data.packing import PackedBlocks, order
from ropewalk.data.tokenising import tokenise
from ropewalk.errors import UserError
from ropewalk.evals.checkpoints_of_run import checkpoints
from ropewalk.model import fit
from ropewalk.model.load import load_model
from ropewalk.reports.page import render
from ropewalk.training.deadline import Deadline, OutOfTime
from ropewalk.training.guard import Diverged, Guard, Terminated
from ropewalk.training.log import Log
from ropewalk.training.snapshots import Snapshots
from ropewalk.training.step import TrainingStep
from short_run import DOCUMENTS, WINDOW, go, killed, same, steps, weights


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return testing.tiny_directory(tmp_path_factory.mktemp("base") / "tiny", window=64)


@pytest.mark.parametrize("mode", ["full", "lora", "pose"])
def test_resumed_is_uninterrupted_bit_for_bit(base, tmp_path, mode):
    go(base, tmp_path / "once", steps=7, save_every=0, mode=mode)
    go(base, tmp_path / "twice", steps=4, save_every=2, mode=mode)
    go(base, tmp_path / "twice", steps=7, save_every=2, mode=mode, resume=True)
    assert same(weights(tmp_path / "once"), weights(tmp_path / "twice"))
    once, twice = steps(tmp_path / "once"), steps(tmp_path / "twice")
    assert [row.loss for row in once] == [row.loss for row in twice]
    assert len(records.read([tmp_path / "twice/records.jsonl"]).runs) == 1  # one curve


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before_it(base, tmp_path):
    go(base, tmp_path / "once", save_every=0)
    go(base, tmp_path / "twice", steps=4, save_every=2)
    damaged = tmp_path / "twice/checkpoints/step-000004/state/optimizer.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-5] ^= 1
    damaged.write_bytes(content)
    with pytest.warns(UserWarning, match="step-000004 is damaged"):
        go(base, tmp_path / "twice", save_every=2, resume=True)
    assert same(weights(tmp_path / "once"), weights(tmp_path / "twice"))


def test_resuming_where_there_is_nothing_starts(base, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "ropewalk")
    out = tmp_path / "out"

    with killed(monkeypatch, 2):
        go(base, out, steps=3, resume=True)
    assert "no checkpoint" not in caplog.text
    assert go(base, out, steps=3, resume=True).steps == 3
    assert f"no checkpoint in {out}: the run starts at step 1, and the 2 steps on record are lost" in caplog.text
    page = render(records.read([out / "records.jsonl"]))
    assert "was begun anew after 2 of 3 steps" in page and page.count("was begun anew") == 1
    assert (
        "interrupted, 2 of 3 steps" not in page.split("Device time")[0]
    )  # the verdict, which is of the second attempt


def test_a_finished_model_without_checkpoints_is_not_begun_anew_by_resume(base, tmp_path):
    go(base, tmp_path / "out", steps=2, save_every=1)
    shutil.move(tmp_path / "out/checkpoints", tmp_path / "elsewhere")
    before = weights(tmp_path / "out")
    with pytest.raises(UserError, match="holds a finished model and no checkpoint"):
        go(base, tmp_path / "out", steps=3, save_every=1, resume=True)
    assert same(weights(tmp_path / "out"), before)
    shutil.move(tmp_path / "elsewhere", tmp_path / "out/checkpoints")
    assert go(base, tmp_path / "out", steps=3, save_every=1, resume=True).steps == 3


def test_a_run_is_resumed_with_its_own_data_and_seed_only(base, tmp_path):
    go(base, tmp_path / "out", steps=2, save_every=2)
    with pytest.raises(UserError, match="made with seed 0, and this run has 1"):
        go(base, tmp_path / "out", seed=1, resume=True)
    with pytest.raises(UserError, match="made with other data .files, .*--packing.* than this run"):
        go(base, tmp_path / "out", data=DOCUMENTS[1:], resume=True)


def test_every_setting_that_decides_the_weights_is_the_runs_own_or_said(base, tmp_path, caplog):
    go(base, tmp_path / "out", steps=2, save_every=2)
    for options, refused in (
        ({"learning_rate": 2e-3}, "made with learning-rate 0.001, and this run has 0.002; .* or add --allow-changes"),
        (
            {"warmup": 3, "clip": 2.0},
            "warmup 20, and this run has 3; clip 1.0, and this run has 2.0; .* --allow-changes",
        ),
        ({"seed": 1, "warmup": 3}, "warmup 20, .* seed 0, and this run has 1; .* give the same ones, or choose"),
        ({"allow_changes": True, "batch_size": 2}, "made with batch-size 4, and this run has 2; .* same ones, or"),
    ):
        with pytest.raises(UserError, match=refused):
            go(base, tmp_path / "out", steps=3, resume=True, **options)
    caplog.set_level("INFO", "ropewalk")
    go(base, tmp_path / "out", steps=3, resume=True, allow_changes=True, learning_rate=2e-3, micro_batch=1)
    assert "from step 2 on: learning-rate 0.001, and this run has 0.002" in caplog.text
    runs = records.read([tmp_path / "out/records.jsonl"]).of(records.Step)
    assert [measured.run.settings["learning_rate"] for measured in runs] == [1e-3, 1e-3, 2e-3]


def options_in(file):
    return yaml.safe_load(file.read_text(encoding="utf-8"))


@pytest.fixture
def books(tmp_path):
    """Documents that a file of options can name."""
    (tmp_path / "books").mkdir()
    for number in range(8):
        (tmp_path / f"books/{number}.txt").write_text(testing.prose(80, number), encoding="utf-8")
    return tmp_path / "books"


def test_the_file_of_a_resumed_run_says_the_whole_run(base, tmp_path, books):
    out = tmp_path / "out"
    go(base, out, steps=4, save_every=2, budget=600, data=[books])
    assert options_in(out / "run.yaml")["budget"] == 600
    go(base, out, steps=2, save_every=2, resume=True, budget=300, data=[books])  # takes no step
    assert (options_in(out / "run.yaml")["steps"], options_in(out / "run.yaml")["budget"]) == (4, 600)
    go(base, out, steps=6, save_every=2, resume=True, budget=300, data=[books])
    written = options_in(out / "run.yaml")
    assert written["steps"] == 6 and "budget" not in written


def test_a_resume_that_is_refused_leaves_the_file_of_the_run_that_made_the_model(base, tmp_path, books, monkeypatch):
    out = tmp_path / "out"
    go(base, out, steps=2, save_every=2, data=[books])
    written = (out / "run.yaml").read_text()

    def late(*_):
        raise OutOfTime(3600.0)

    with monkeypatch.context() as patched, pytest.raises(UserError, match="--budget leaves"):
        patched.setattr(Deadline, "check", late)
        go(
            base,
            out,
            steps=12,
            save_every=2,
            resume=True,
            budget=1,
            learning_rate=2e-3,
            allow_changes=True,
            data=[books],
        )
    assert (out / "run.yaml").read_text() == written and not list(out.glob("run-*.yaml"))


def test_a_run_that_went_on_at_another_rate_is_repeated_by_the_commands_in_its_file(base, tmp_path, books, monkeypatch):
    options = dict(data=[books], save_every=2)
    go(base, tmp_path / "out", steps=2, **options)
    go(base, tmp_path / "out", steps=4, resume=True, allow_changes=True, learning_rate=2e-3, **options)
    go(base, tmp_path / "out", steps=6, resume=True, learning_rate=2e-3, **options)  # and on, unchanged
    first, _ = (tmp_path / "out/run.yaml").read_text(encoding="utf-8").split("\n", 1)
    assert (
        "; auto chose --precision float32 and --optimizer adamw, and may choose otherwise on another device; " in first
    )
    commands = first.partition("; again: ")[2].replace("THIS FILE", "out/run.yaml").split(", then ")
    monkeypatch.chdir(tmp_path)
    for command in commands:
        cli.main([*shlex.split(command)[1:], "--quiet"])
    assert len(commands) == 2 and same(weights(tmp_path / "NEW"), weights(tmp_path / "out"))
    assert {"run.yaml", "run-until-2.yaml"} <= set(marks.marked(tmp_path / "out"))


def test_a_model_half_written_when_the_run_was_killed_does_not_stay(base, tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    name = half_written.beside(tmp_path / "out/.final").name
    left = tmp_path / "out" / name.replace(f"-{os.getpid()}-", f"-{ended.pid}-")
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    go(base, tmp_path / "out", steps=1, resume=True)
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")] == [marks.MARK]


def test_a_finished_run_goes_on_further_and_keeps_what_somebody_put_beside_it(base, tmp_path):
    out = tmp_path / "out"
    go(base, out, steps=2, save_every=2)
    (out / "README.md").write_text("mine")
    shutil.copytree(out / "checkpoints/step-000002", out / "checkpoints/step-000002 copy")
    (out / "adapter").mkdir()
    (out / "adapter/notes.txt").write_text("mine")
    os.mkfifo(out / "checkpoints/step-000099")
    with warnings.catch_warnings(record=True):
        go(base, out, steps=4, save_every=2, resume=True)
    assert Checkpoint.open(out).info.steps == 4
    assert "mine" in {path.read_text() for path in out.glob("README.md*")}
    assert [path.read_text() for path in out.glob("adapter*/notes.txt")] == ["mine"]
    assert [steps for steps, _ in checkpoints(out)] == [0, 2, 4]


def test_a_renamed_checkpoint_is_not_measured_under_another_step(base, tmp_path):
    out = tmp_path / "out"
    go(base, out, steps=4, save_every=2)
    os.rename(out / "checkpoints/step-000002", out / "checkpoints/step-000003")
    with pytest.warns(UserWarning, match="step-000003 is left out: its config says that it is the model of step 2"):
        assert [steps for steps, _ in checkpoints(out)] == [0, 4]


def test_two_trainings_into_one_directory(base, tmp_path, monkeypatch):
    """The second is refused in the middle of the first, which ends as if nothing had been."""
    from ropewalk.training.log import Log

    said = []

    def step(self, row, told=Log.step):
        told(self, row)
        for options in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(UserError) as refused:
                go(base, tmp_path / "out", steps=2, **options)
            said.append(str(refused.value))

    monkeypatch.setattr(Log, "step", step)
    go(base, tmp_path / "out", steps=2)
    assert len(said) == 6 and all(f"is being written by process {os.getpid()} on " in sentence for sentence in said)
    assert [row.step for row in steps(tmp_path / "out")] == [1, 2]


def test_checkpoints_on_the_way_are_models_that_every_measurement_loads(base, tmp_path):
    go(base, tmp_path / "out", save_every=2)
    for step in (2, 4, 6):
        directory = tmp_path / f"out/checkpoints/step-{step:06d}"
        load_model(directory)
        assert Checkpoint.open(directory).info.steps == step
    assert same(weights(tmp_path / "out/checkpoints/step-000006"), weights(tmp_path / "out"))


def test_sigterm_saves_what_is_done_and_the_resumed_run_ends_the_same(base, tmp_path, monkeypatch):
    go(base, tmp_path / "once", save_every=0)
    from ropewalk.training.log import Log

    def step(self, row, told=Log.step):
        told(self, row)
        if row.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Log, "step", step)
    with pytest.raises(Terminated) as stopped:
        go(base, tmp_path / "twice", save_every=0)
    assert stopped.value.code == 143
    assert Snapshots(tmp_path / "twice/checkpoints").latest().step == 3
    assert not (tmp_path / "twice/config.json").exists()
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    go(base, tmp_path / "twice", save_every=0, resume=True)
    assert same(weights(tmp_path / "once"), weights(tmp_path / "twice"))


def test_an_interrupt_saves_too(base, tmp_path, monkeypatch):
    from ropewalk.training.log import Log

    monkeypatch.setattr(Log, "step", lambda self, row: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        go(base, tmp_path / "out")
    assert Snapshots(tmp_path / "out/checkpoints").latest().step == 1


def test_a_step_that_memory_does_not_hold_is_a_sentence_and_the_run_goes_on_from_the_last(base, tmp_path, monkeypatch):
    usual, calls = TrainingStep._forward_and_backward, []

    def passes(step, rows, counted):
        calls.append(step._number - 1)
        if step._number == 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 512.00 MiB. GPU 0 has a total capacity")
        return usual(step, rows, counted)

    monkeypatch.setattr(TrainingStep, "_forward_and_backward", passes)
    with pytest.raises(
        UserError, match=r"step 3 takes more memory .*\(CUDA out of memory. Tried to allocate 512.00 MiB\)"
    ):
        go(base, tmp_path / "out", steps=4, save_every=1)
    monkeypatch.undo()
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / "tokens"))
    assert go(base, tmp_path / "out", steps=4, save_every=1, resume=True).steps == 4
    assert [step.step for step in steps(tmp_path / "out")] == [1, 2, 3, 4]


def test_nan_stops_before_the_optimiser_step_and_names_what_to_look_at(base, tmp_path, monkeypatch):
    # A token whose row is NaN makes the loss NaN from the batch on that has it; as a weight on disk it would be refused at once.
    monkeypatch.setattr(fit, "not_finite", lambda tensors: [])
    model = testing.tiny(window=64)
    tokenizer = testing.byte_tokenizer(64)
    with torch.no_grad():
        model.model.embed_tokens.weight[tokenizer.convert_tokens_to_ids("~")] = float("nan")
    model.save_pretrained(tmp_path / "poisoned")
    tokenizer.save_pretrained(tmp_path / "poisoned")
    documents = [*DOCUMENTS[:11], Document("the bad one", "~" + testing.prose(80, 99))]
    windows = PackedBlocks(tokenise(documents, tokenizer), WINDOW)
    first = next(
        step + 1
        for step in range(20)
        if any(
            "the bad one" in windows.names(block)
            for block in order(0, np.arange(4 * step, 4 * step + 4), len(windows)).tolist()
        )
    )
    with pytest.raises(Diverged) as stopped:
        go(tmp_path / "poisoned", tmp_path / "out", data=documents, steps=20, save_every=1)
    message = str(stopped.value)
    # The window that holds the byte may begin in the document before, so the poison may wait for a later window.
    step = int(message.split()[1])
    assert step >= first and "the loss is nan" in message and "rank 0" in message and "the bad one" in message
    latest = Snapshots(tmp_path / "out/checkpoints").latest()
    as_it_was = f"the checkpoint of step {latest.step} is as it was" if latest else "no checkpoint was written before"
    assert as_it_was in str(stopped.value)
    assert (latest.step if latest else 0) == step - 1 == len(steps(tmp_path / "out"))
    assert not (tmp_path / "out/config.json").exists()
    if latest:
        kept = safetensors.torch.load_file(latest.state / "weights.safetensors")
        assert torch.isfinite(kept["lm_head.weight"]).all()


def test_an_exploding_loss_stops_and_an_unusual_batch_does_not():
    guard = Guard()
    for step in range(10):
        guard.check(step, 2.0 + 0.1 * (step % 2), 1.0, str)
    guard.check(11, 4.0, 1.0, str)
    with pytest.raises(Diverged, match="step 12 was not taken: the loss is 6.5, after 2.1"):
        guard.check(12, 6.5, 1.0, str)
    with pytest.raises(Diverged, match="gradient's norm is inf"):
        guard.check(12, 2.0, float("inf"), str)


def test_a_run_that_explodes_in_its_first_steps_does_not_pass_for_one_that_starts_badly():
    # hemp at a learning rate of 3 without clipping; these five made a median of 1018, and 30 steps went by unnoticed.
    guard = Guard()
    guard.check(1, 3.99, 1.0, str)
    with pytest.raises(Diverged, match="step 2 was not taken: the loss is 529.5, after 3.99"):
        guard.check(2, 529.5, 1.0, str)


def test_a_model_that_starts_badly_is_no_explosion():
    guard = Guard()
    for step, loss in enumerate([11.0, 9.0, 12.0, 8.0, 10.0, 9.5, 7.0, 6.0, 5.0]):
        guard.check(step, loss, 1.0, str)


def test_a_full_disk_ends_with_a_sentence_and_the_last_checkpoint_intact(base, tmp_path, monkeypatch):
    disk = tmp_path / "disk"
    disk.mkdir()
    # The run's three checkpoints fit, as it asked before its first step; then others write there.
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    plain = Log.step

    def step(self: Log, row: records.Step) -> None:
        plain(self, row)
        if row.step == 3:
            (disk / "others").write_bytes(bytes(shutil.disk_usage(disk).free))

    monkeypatch.setattr(Log, "step", step)
    try:
        with pytest.raises(UserError, match="disk is full"):
            go(base, disk / "out", save_every=2)
        assert Snapshots(disk / "out/checkpoints").latest().step == 2
        assert not list((disk / "out/checkpoints").glob(".*"))
        assert 3 in [step.step for step in steps(disk / "out")]
    finally:
        subprocess.run(["umount", str(disk)], check=True)
