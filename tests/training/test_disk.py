"""The disk is asked for all that a run will write, before its first step: the figures against what a run really leaves there."""

from __future__ import annotations

import collections
import dataclasses
import errno
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ropewalk import cli, testing
from ropewalk.checkpoint import file_limit
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.data.documents import Document
from ropewalk.distributed.mesh import Mesh
from ropewalk.errors import UserError
from ropewalk.records import files
from ropewalk.training import TrainSettings, checkpoints, disk, train, training_state


def settings(tmp_path, **options) -> TrainSettings:
    return TrainSettings(model="hemp", data="none", out=tmp_path / "out", window=1024, **options)


@pytest.mark.parametrize(
    ("options", "there", "models", "states"),
    [
        (dict(), {}, 5, 3),  # steps 200 to 1000; two states and the one being written; the final model is a link
        (dict(steps=900), {}, 5, 3),  # 200 to 800, and the final model
        (dict(save_every=0), {}, 1, 0),
        (dict(save_every=1000, keep_checkpoints=3), {}, 1, 1),
        (dict(), dict(done=400, there=2), 3, 1),
        (dict(), dict(done=1000, there=2), 0, 0),
        (dict(steps=100), {}, 1, 0),
    ],
)
def test_what_lies_there_at_once_is_counted(tmp_path, options, there, models, states) -> None:
    planned = disk.writes(settings(tmp_path, **options), 7, 11, **there)
    assert (planned.models, planned.states) == (models, states)
    assert planned.total == 7 * models + 11 * states
    # Beside these, where nobody said after how many steps; a run is not refused for them.
    left = settings(tmp_path, **options).steps - there.get("done", 0)
    assert planned.by_time == (3 if "save_every" not in options and left else 0)


def test_a_run_is_refused_by_what_it_really_writes(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / "cache"))
    base = testing.tiny_directory(tmp_path / "base", window=64)
    shared = dict(
        data=[Document("a", testing.prose(400, 0))], window=96, batch_size=2, steps=2, save_every=1, keep_checkpoints=1
    )
    seen = []
    usage = collections.namedtuple("usage", "total used free")

    def full(path):
        seen.append(path)
        return usage(2**40, 0, 1000)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", full)
        with pytest.raises(
            UserError, match=r"2 models of .* MiB, 2 states of .* free; make room, or choose another --out$"
        ):
            train(base, out=tmp_path / "full", **shared)
    with monkeypatch.context() as patch:
        patch.setattr(file_limit.resource, "getrlimit", lambda _: (2**18, 2**18))
        with pytest.raises(UserError, match=r"largest file takes 0.4 MiB, .* no file above 0.2 MiB \(ulimit -f\)"):
            train(base, out=tmp_path / "full", **shared)
    assert not (tmp_path / "full").exists()

    train(base, out=tmp_path / "run", **shared)
    checkpoint = tmp_path / "run/checkpoints/step-000002"
    model = (base / "model.safetensors").stat().st_size
    state = sum(path.stat().st_size for path in (checkpoint / "state").glob("*.safetensors"))
    asked = disk.writes(settings(tmp_path, steps=2, save_every=1, keep_checkpoints=1), model, state)
    # The model is saved in the original's dtypes; headers and hashes are small.
    assert (checkpoint / "model.safetensors").stat().st_size == pytest.approx(model, rel=0.05)
    assert state == pytest.approx(disk.state_bytes(testing.tiny(window=64).parameters(), "adamw"), rel=0.05)
    assert asked.total >= 2 * model + state


@pytest.mark.parametrize(
    ("options", "room", "ways"),
    [
        (dict(save_every=0), 5, []),
        (dict(save_every=100), 5, []),  # the final model alone takes more
        (dict(save_every=100), 100, ["save less often", "keep fewer states"]),
        (dict(save_every=100, keep_checkpoints=1), 80, ["save less often"]),
        (dict(save_every=900), 20, ["save less often"]),  # there is one state
        (dict(save_every=100, done=0, there=2), 80, ["save less often", "keep fewer states"]),
    ],
)
def test_advice_on_a_full_disk_is_what_would_take_less(tmp_path, monkeypatch, options, room, ways) -> None:
    """A model takes 7 MiB and a state 11."""
    base, size = testing.tiny_directory(tmp_path / "base", window=64), 2**20
    there = {name: options.pop(name, 0) for name in ("done", "there")}
    monkeypatch.setattr(disk, "free", lambda out: room * size)
    with pytest.raises(UserError) as refused:
        planned = disk.writes(settings(tmp_path, **options), 7 * size, 11 * size, **there)
        disk.ask(tmp_path, settings(tmp_path, **options), Checkpoint.open(base), planned, **there)
    advice = str(refused.value).partition(" free; ")[2]
    assert [way for way in ("save less often", "keep fewer states") if way in advice] == ways
    assert advice.endswith("make room, or choose another --out")
    assert ("(0 writes 7.0 MiB)" in advice) == bool(ways)


def test_an_idle_resume_says_that_it_is_done_and_leaves_the_runs_file_as_it_is(tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / "cache"))
    base, text, out = testing.tiny_directory(tmp_path / "base", window=64), tmp_path / "text.txt", tmp_path / "out"
    text.write_text(testing.prose(400, 0))
    shared = dict(data=str(text), window=96, batch_size=2, out=out)
    train(base, **shared, steps=2, save_every=1)
    written = (out / "run.yaml").read_text()
    assert "save-every: 1" in written
    caplog.set_level("INFO", "ropewalk")
    caplog.clear()
    train(base, **shared, steps=2, resume=True)
    assert [record.getMessage() for record in caplog.records] == [f"{out} has all its 2 steps: nothing is left to do"]
    assert (out / "run.yaml").read_text() == written
    train(base, **shared, steps=3, resume=True)  # which takes one, by other options
    assert "resumed from" in caplog.text and (out / "run.yaml").read_text() != written


def test_what_is_said_of_the_disk_is_what_a_run_leaves_there(tmp_path, monkeypatch) -> None:
    planned = disk.Writes(1, 2, 2**20, 2**21)
    assert "by time" not in str(planned)
    assert str(dataclasses.replace(planned, by_time=3)).endswith(
        "; 3 checkpoints more, one every 10 minutes, if the run takes longer than 10 minutes and there is room"
    )
    assert str(planned).startswith(
        "on the disk: 5.0 MiB; 1 model of 1.0 MiB"
    ) and "2 states of the optimiser of about 2.0 MiB" in str(planned)


def test_no_states_are_spoken_of_where_none_are_written(tmp_path, monkeypatch) -> None:
    base = testing.tiny_directory(tmp_path / "base", window=64)
    monkeypatch.setattr(disk, "free", lambda out: 0)
    with pytest.raises(UserError, match=r"\(1 model of [\d.]+ MiB\), and the disk"):
        asked = settings(tmp_path, save_every=0)
        disk.ask(tmp_path, asked, Checkpoint.open(base), disk.writes(asked, 2**20, 2**20), done=0, there=0)


def adapter_size(base) -> int:
    """Bytes in float32 of adapters of rank 8 (two matrices for each projection), the embedding and the norms, by the checkpoint's shapes."""
    weights = load_file(base / "model.safetensors")
    count = sum(
        8 * sum(weight.shape) if "self_attn" in name else weight.numel()
        for name, weight in weights.items()
        if any(part in name for part in ("self_attn", "embed_tokens", "norm"))
    )
    return 4 * count


@pytest.mark.parametrize("save_every", [0, 1])
def test_an_adapter_is_part_of_what_a_run_is_refused_for(tmp_path, monkeypatch, save_every) -> None:
    """A disk with room for the model and its checkpoint, and not for the adapter beside them, refuses the run before its first step."""
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / "cache"))
    base, out, asked = testing.tiny_directory(tmp_path / "base", window=64), tmp_path / "out", []
    real = disk.ask

    def ask(*parts, **named) -> None:
        asked.append(parts[3])
        real(*parts, **named)

    monkeypatch.setattr(disk, "ask", ask)
    shared = dict(data=[Document("a", testing.prose(400, 0))], window=96, batch_size=2, steps=1, save_every=save_every)
    train(base, out=out, mode="lora", **shared)
    written = (out / "adapter/adapter_model.safetensors").stat().st_size
    planned = asked[0]
    assert planned.adapter == adapter_size(base) == pytest.approx(written, rel=0.05)
    assert planned.total == planned.model + save_every * planned.state + planned.adapter
    assert re.search(r"\), the adapter of [\d.]+ MiB", str(planned))
    monkeypatch.setattr(disk, "free", lambda out: planned.total - planned.adapter)
    with pytest.raises(UserError, match=r"\(1 model of [\d.]+ MiB, the adapter of [\d.]+ MiB.* free; "):
        train(base, out=tmp_path / "full", mode="lora", **shared)
    assert not (tmp_path / "full").exists()


@pytest.mark.parametrize("options", [dict(mode="lora", save_every=0), dict(save_every=1)])
def test_a_disk_that_fills_meanwhile_says_how_much_was_needed(tmp_path, monkeypatch, options) -> None:
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / "cache"))
    base = testing.tiny_directory(tmp_path / "base", window=64)

    def full(*_, **__) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints, "_write_model", full)
    data = [Document("a", testing.prose(400, 0))]
    with pytest.raises(
        UserError,
        match=r"the disk is full; .* it takes ([\d.]+) MiB, and .* are free; no checkpoint was saved before; ",
    ) as ended:
        train(base, out=tmp_path / "out", data=data, window=96, batch_size=2, steps=1, **options)
    needed = float(re.search(r"takes ([\d.]+)", str(ended.value))[1]) * 2**20
    files = (base / "model.safetensors").stat().st_size
    # Float32 weights: beside a model the state is weights and two moments again.
    expected = files + adapter_size(base) if "mode" in options else 4 * files
    assert needed == pytest.approx(expected, abs=0.15 * 2**20)


@pytest.mark.parametrize("place", ["records", "checkpoint"])
def test_a_disk_that_fills_while_a_run_lasts_leaves_a_line_that_goes_on(tmp_path, monkeypatch, place) -> None:
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / "cache"))
    base, text, out = testing.tiny_directory(tmp_path / "base", window=64), tmp_path / "text.txt", tmp_path / "a run"
    text.write_text(testing.prose(400, 0))
    module, name = {"records": (files, "append_lines"), "checkpoint": (checkpoints, "_write_model")}[place]
    real, calls = getattr(module, name), []

    def fills(*parts, **named) -> None:
        calls.append(parts)
        if len(calls) > {"records": 2, "checkpoint": 1}[place]:  # after two steps, and their checkpoint
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*parts, **named)

    with monkeypatch.context() as patch, pytest.raises(UserError) as ended:
        patch.setattr(module, name, fills)
        train(base, out=out, data=str(text), window=96, batch_size=2, steps=4, save_every=2)
    model, state = (base / "model.safetensors").stat().st_size, 3 * (base / "model.safetensors").stat().st_size
    sentence = re.search(
        r"the disk is full; .*; it takes [\d.]+ MiB, and [\d.]+ .iB are free; the checkpoint of step 2 is whole, "
        r"(.*); what is written from there on takes ([\d.]+) MiB; when there is room, go on: (ropewalk train .*)$",
        str(ended.value),
    )
    assert sentence and sentence[1] == str(out / "checkpoints/step-000002")
    assert float(sentence[2]) * 2**20 == pytest.approx(model + state, abs=0.15 * 2**20)
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-000002"]
    cli.main(shlex.split(sentence[3])[1:])
    assert Checkpoint.open(out).info.steps == 4


def test_states_that_were_put_back_hold_no_file_of_the_checkpoint(tmp_path) -> None:
    """A mapped file keeps its room on the disk after it is pruned: a run that went on died for want of what it had been told was enough."""
    model, mesh = torch.nn.Linear(64, 64), Mesh(torch.device("cpu"))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 64)).sum().backward()
    optimizer.step()
    training_state.save(model, optimizer, tmp_path / "state", mesh)
    before = {key: value.clone() for key, value in optimizer.state[model.weight].items()}
    training_state.load(model, optimizer, tmp_path / "state", mesh)
    assert training_state.OPTIMIZER not in Path("/proc/self/maps").read_text(encoding="utf-8")
    assert all(torch.equal(value, optimizer.state[model.weight][key]) for key, value in before.items())
