"""What training refuses before it begins, in a sentence."""

import json
import os
import subprocess
import sys

import pytest
import torch

from ropewalk import testing
from ropewalk.data.documents import Document
from ropewalk.errors import UserError
from short_run import DOCUMENTS, go, same, weights


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return testing.tiny_directory(tmp_path_factory.mktemp("base") / "tiny", window=64)


def test_an_output_directory_that_exists_is_refused_and_kept(base, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="does not overwrite"):
        go(base, tmp_path / "out")
    (tmp_path / "out/records.jsonl").touch()  # as any tool might
    with pytest.raises(UserError, match="replaces only what ropewalk made, and .*out has no .ropewalk.json"):
        go(base, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out/thesis.tex").exists()


def test_a_run_is_replaced_when_the_new_one_is_finished_and_only_what_it_made(base, tmp_path):
    out = tmp_path / "out"
    go(base, out, steps=1, save_every=1)
    before = weights(out)
    notes = out / "checkpoints/step-000001/notes.txt"
    for mine in (out / "thesis.tex", notes, out / "checkpoints/step-000001 copy/model.safetensors"):
        mine.parent.mkdir(exist_ok=True)
        mine.write_text("mine")
        with pytest.raises(UserError, match=f"did not make {mine}"):
            go(base, out, overwrite=True, yes=True)
        mine.unlink()
    with pytest.raises(UserError, match="does not exist"):
        go(base, out, data="no/such.txt", overwrite=True, yes=True)
    assert same(weights(out), before) and os.listdir(tmp_path) == ["out"]
    go(base, out, steps=2, save_every=0, overwrite=True, yes=True)
    with pytest.raises(
        UserError, match="--overwrite would delete the model that the run in .*out ended with; add --yes"
    ):
        go(base, out, overwrite=True)
    assert not same(weights(out), before) and not (out / "checkpoints/step-000001").exists()
    assert os.listdir(tmp_path) == ["out"]


def test_overwriting_takes_neither_the_model_nor_the_data_nor_the_place_one_stands_in(base, tmp_path, monkeypatch):
    work = tmp_path / "work"
    model = testing.tiny_directory(work / "model", window=64)
    (work / "books").mkdir()
    (work / "books/a.txt").write_text(testing.prose(80, 1))
    for out, start, data in [
        (model, model, DOCUMENTS),
        (work, model, DOCUMENTS),
        (work, base, work / "books"),
        (work / "books", base, [work / "books/a.txt"]),
    ]:
        with pytest.raises(UserError, match="would be replaced, and with it"):
            go(start, out, data=data, overwrite=True)
    monkeypatch.chdir(work / "books")
    with pytest.raises(UserError, match="would be replaced, and with it"):
        go(base, ".", overwrite=True)
    assert (model / "model.safetensors").exists() and (work / "books/a.txt").exists()


def test_where_nothing_can_be_written_is_said_before_anything_is_loaded(tmp_path):
    (tmp_path / "file").write_text("")
    disk = tmp_path / "disk"
    disk.mkdir()
    places = [(tmp_path / "file", "is a file"), (tmp_path / "file/below", "is a file")]
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(disk)], capture_output=True)
    try:
        places += [(disk / "out", "is read-only")] * (not mounted.returncode)
        for out, said in places:
            for options in ({}, {"resume": True}, {"overwrite": True}):
                with pytest.raises(UserError, match=said):
                    # Read first of all, and not there.
                    go(tmp_path / "no model", out, **options)
    finally:
        if not mounted.returncode:
            subprocess.run(["umount", str(disk)], check=True)


def test_nothing_is_written_where_the_data_is_wrong(base, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    for data, said in [
        (tmp_path / "empty.txt", "is empty"),
        ([Document("a", "short")], "needs a document as long as it is read"),
    ]:
        with pytest.raises(UserError, match=said):
            go(base, tmp_path / "out", data=data)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"window": 32}, "reads 64 tokens already"),
        ({"steps": 0}, "steps is a whole number of at least 1 .*, got 0"),
        ({"batch_size": 2.5}, "batch-size is a whole number"),
        ({"learning_rate": float("nan")}, "finite number above 0 .*, got nan"),
        ({"learning_rate": -1.0}, "learning-rate is a finite number above 0"),
        ({"learning_rate": "1e-4"}, "finite number above 0 .*, got '1e-4'"),
        ({"current_window": -5}, "current-window is a whole number of at least 1"),
        ({"clip": float("inf")}, "clip is a finite number"),
        ({"mode": "half"}, "mode is one of full, lora, pose, got 'half'"),
        ({"resume": True, "overwrite": True}, "use one of the two"),
        ({"method": "dynamic"}, "method is one of"),
        ({"method": "abf"}, "abf scaling needs a --rope-theta .* got none; what was measured, .*: --rope-theta "),
        ({"rope_theta": "5e5"}, "rope-theta is a finite number above 1 .*, got '5e5'"),
        ({"rope_theta": 5e5}, "linear scaling has no --rope-theta; leave it out"),
        (
            {"method": "plain", "rope_theta": 5e5},
            "--rope-theta says how a model is extended, and nothing is: .* method plain",
        ),
        ({"method": "abf", "rope_theta": 5e5, "window": 64}, "nothing is: the model reads 64 tokens, .* at window 64"),
        ({"activations": "some"}, "activations is one of auto, full, none"),
        ({"device": "gpu"}, "a device is cpu, cuda or cuda:0, cuda:1, …, got 'gpu'"),
        ({"device": "cuda:64"}, "PyTorch sees . of them, got cuda:64"),
        ({"optimizer": "sgd"}, "optimizer is one of auto, adamw, adamw-8bit, adamw-offload, got 'sgd'"),
        ({"mode": "lora", "lora_rank": 100_000}, "rank is at most the model's width"),
        ({"mode": "lora", "lora_alpha": 0}, "lora-alpha is a whole number of at least 1 .*, got 0"),
        ({"threads": 1_000_000}, "threads is .* at most 1024, got 1000000"),
        ({"chunk_window": 32}, "chunk-window is mode pose's"),
        ({"keep": 0.2}, "--keep changes nothing without --scores; add that"),
        ({"watch_every": 5}, "--watch-every changes nothing without --watch; add that"),
        ({"watch": ["passkey"], "watch_data": "."}, "--watch-data changes nothing without --watch perplexity"),
        ({"lora_rank": 4}, "--lora-rank changes nothing without --mode lora"),
        ({"allow_changes": True}, "--allow-changes changes nothing without --resume"),
        ({"loss": "answers"}, "--loss answers is of conversations, and --data holds none"),
        ({"mode": "pose", "window": 64}, "mode pose skips positions .* and 64 is not longer"),
        ({"mode": "pose", "chunk_window": 96}, "chunk-window 96 is not shorter than window 96"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_in_a_sentence(base, tmp_path, options, said):
    with pytest.raises(UserError, match=said):
        go(base, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_where_no_source_is_read_at_the_whole_window_it_is_said(base, tmp_path):
    (tmp_path / "a.txt").write_text(DOCUMENTS[0].text)
    data = [tmp_path / "a.txt", "0.5@64", tmp_path / "a.txt", "0.5@32"]
    with pytest.raises(UserError, match="every source of --data is read at fewer tokens than the window's 96"):
        go(base, tmp_path / "out", data=data)
    go(base, tmp_path / "out", data=data, steps=1, allow_short=True)
    go(base, tmp_path / "whole", data=[*data[:3], "0.5@96"], steps=1)


def test_threads_are_tried_only_where_nobody_chose(monkeypatch, tmp_path):
    from ropewalk.training import threads

    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path))

    cpu, before = torch.device("cpu"), torch.get_num_threads()
    monkeypatch.setattr(threads, "_seconds", lambda count: abs(count - 2))
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: range(6))

    def settled(*arguments):
        with threads.settled(*arguments, cpu) as number:
            assert torch.get_num_threads() == number
        assert torch.get_num_threads() == before
        return number

    assert settled(None, None) == before  # OMP_NUM_THREADS is set for these tests
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert settled(None, None) == 2
    assert settled(None, 4) == 4
    assert settled(3, 4) == 3


def test_the_number_of_threads_is_found_once_a_machine_and_said(monkeypatch, tmp_path, caplog):
    """However the next race would end: another number of threads is another order of sums, and so other weights."""
    from ropewalk.training import threads

    caplog.set_level("INFO", "ropewalk")
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path))
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: range(6))

    def number(fastest):
        monkeypatch.setattr(threads, "_seconds", lambda count: abs(count - fastest))
        with threads.settled(None, None, torch.device("cpu")) as found:
            return found

    assert [number(fastest) for fastest in (2, 1, 6)] == [2, 2, 2]
    (place,) = (tmp_path / "fastest").iterdir()
    assert f"CPU threads: 2, the fastest when this machine was first tried (kept in {place}" in caplog.text
    place.write_text("12 or so")
    assert [number(fastest) for fastest in (4, 1)] == [4, 4]

    (tmp_path / "file").touch()
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / "file"))
    assert [number(fastest) for fastest in (2, 1)] == [6, 6]  # nowhere to keep it: all cores, every time
    assert "CPU threads: 6, since what is fastest cannot be kept" in caplog.text


def test_what_is_not_installed_is_said(base, tmp_path, monkeypatch):
    for module, options in [
        ("torchao", {"optimizer": "adamw-8bit"}),
        ("tensorboard", {"tensorboard": True}),
        ("wandb", {"wandb": "project"}),
        ("trackio", {"log": ["trackio"]}),
    ]:
        monkeypatch.setitem(sys.modules, module, None)
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out/kept").write_text("")
        with pytest.raises(UserError, match=r"not installed; pip install \"\.\[[\w-]+\]\" in a clone of ropewalk"):
            go(base, tmp_path / "out", overwrite=True, **options)
        assert (tmp_path / "out/kept").exists()


def test_a_short_source_is_named_with_its_own_way_out_and_meant_to_be_short_alone(base, tmp_path):
    (tmp_path / "long.txt").write_text("a long text " * 60)
    # Bytes are tokens here, with BOS and EOS: 12, 10 and 7 of them.
    rows = [json.dumps({"text": text}) for text in ("0123456789", "01234567", "01234")]
    (tmp_path / "short.jsonl").write_text("\n".join(rows * 40))
    data = [str(tmp_path / "long.txt"), "0.6", str(tmp_path / "short.jsonl"), "0.4@32"]
    said = (
        r"short.jsonl is read at 32 tokens, the length of its word 0.4@32, where the longest of 120 has 12 and the median 10; "
        r"give longer ones or a shorter length \(0.4@12\), or .* of this source packed by 0.4@32:short after it, .* --allow-short"
    )
    with pytest.raises(UserError, match=said):
        go(base, tmp_path / "out", data=data, steps=1)
    go(base, tmp_path / "short", data=[*data[:3], "0.4@32:short"], steps=1)
    go(base, tmp_path / "shorter", data=[*data[:3], "0.4@12"], steps=1)
    # Leave for one source is none for another.
    (tmp_path / "long.txt").write_text("a short text")
    with pytest.raises(UserError, match=r"long.txt is read at 96 tokens, the window, .* or a shorter --window"):
        go(base, tmp_path / "out", data=[*data[:3], "0.4@32:short"], steps=1)
    (tmp_path / "long.txt").write_text("a long text " * 60)
    (tmp_path / "short.jsonl").write_text(rows[0])
    with pytest.raises(UserError, match="short.jsonl: one window of 96 tokens and its last label need 97"):
        go(base, tmp_path / "out", data=[*data[:3], "0.4@32:short"], steps=1)
