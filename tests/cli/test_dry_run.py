"""`--dry-run` says what the command would do, reads, asks of the disk and refuses as it does, and writes nothing."""

from __future__ import annotations

import collections
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from unittest import mock

import pytest

from command_lines import said
from ropewalk import cli
from ropewalk.model import carry
from ropewalk.training import disk


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(trained, tmp_path, capsys, monkeypatch) -> None:
    from ropewalk.planner import calibrate
    from ropewalk.planner.chip_names import named
    from ropewalk.planner.chips import datasheet_rates

    chip = named("NVIDIA L4")
    monkeypatch.setattr(calibrate, "present", lambda job: (chip, datasheet_rates(chip)))
    model, text, out = str(trained / "a"), str(trained / "book.txt"), str(tmp_path / "o")
    common = ["--data", text, "--out", out, "--dry-run"]
    for words, sentence in (
        (
            ["train", model, "--window", "128", "--steps", "3", "--batch-size", "2", *common],
            "3 steps of 2 windows, 768 tokens in all: ",
        ),
        (
            ["train", model, "--window", "128", "--method", "linear", *common],
            "linear: measured nearest on hemp, 256 to",
        ),
        (
            ["train", model, "--window", "128", "--method", "linear", *common],
            "measured in the lab with PI: train --method linear --steps",
        ),
        (
            [
                "train",
                model,
                "--window",
                "128",
                "--steps",
                "3",
                "--batch-size",
                "2",
                "--mode",
                "pose",
                "--chunk-window",
                "32",
                *common,
            ],
            "3 steps of 2 chunks of 32 tokens, 192 tokens in all: ",
        ),
        (
            ["search", model, "--window", "128", "--population", "8", "--generations", "2", *common],
            "16 vectors, 8 at first and 4 in each of 2 generations",
        ),
        (["evaluate", model, "--size", "small", *common], "1. passkey,"),
        (
            ["extend", model, "--window", "128", "--method", "linear", "--out", out, "--dry-run"],
            "window 64 → 128 tokens, linear factor 2 into",
        ),
        (["demo", "--out", out, "--dry-run"], "train it for 500 steps"),
    ):
        status, printed = said(capsys, *words)
        assert status == 0 and sentence in printed and "a dry run: nothing was written" in printed, printed
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_extend_says_what_the_command_comes_to_and_is_refused_as_it_is(trained, tmp_path, capsys) -> None:
    words = ["extend", str(trained / "a"), "--window", "128", "--out", str(tmp_path / "o"), "--json"]
    told = []
    for more in (["--dry-run"], []):
        cli.main([*words, *more])
        told.append(json.loads(capsys.readouterr().out))
    rehearsed, made = told
    same = ("out", "measured", "family", "window", "original_window", "scaling", "parameters", "base")
    assert {name: rehearsed[name] for name in same} == {name: made[name] for name in same}
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare/config.json").write_bytes((trained / "a/config.json").read_bytes())
    for model, window in ((trained / "a", "32"), (tmp_path / "bare", "128")):
        words = ["extend", str(model), "--window", window, "--out", str(tmp_path / "p")]
        assert said(capsys, *words) == said(capsys, *words, "--dry-run")
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("mixed", [[], ["0.5"]])
def test_a_dry_run_shows_what_of_a_conversation_is_scored(trained, tmp_path, capsys, mixed) -> None:
    long = "Because. " * 300
    turns = [("user", "Why?"), ("assistant", "So."), ("user", "Why not?"), ("assistant", long)]
    row = {"messages": [{"role": role, "content": content} for role, content in turns]}
    (tmp_path / "chats.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "book.txt").write_text("A book. " * 9999)
    data = [*([str(tmp_path / "book.txt"), "0.5"] if mixed else []), str(tmp_path / "chats.jsonl"), *mixed]
    words = [
        "train",
        str(trained / "a"),
        "--window",
        "4096",
        "--steps",
        "3",
        "--batch-size",
        "2",
        "--allow-short",
        "--out",
        str(tmp_path / "o"),
    ]
    status, printed = said(capsys, *words, "--data", *data, "--loss", "answers", "--dry-run")
    shown = " ".join(printed.split())
    assert status == 0, printed
    assert re.search(
        r"scored between « and »: (<s> ?)?Why\?\\n\\n«So\.(</s>)?»\\n\\nWhy not\?\\n\\n«Because\. Bec.*»… ", shown
    )


def test_a_dry_run_of_much_text_estimates_and_says_so(trained, tmp_path, capsys, monkeypatch) -> None:
    from ropewalk.data import text_size, tokenising
    from ropewalk.planner import calibrate
    from ropewalk.planner.chip_names import named
    from ropewalk.planner.chips import datasheet_rates

    chip = named("NVIDIA L4")
    monkeypatch.setattr(calibrate, "present", lambda job: (chip, datasheet_rates(chip)))
    monkeypatch.setattr(text_size, "_LITTLE", 0)
    monkeypatch.setattr(text_size, "_LONG", 0.0)
    monkeypatch.setattr(tokenising, "write_corpus", None)  # what tokenises
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / "cache"))
    (tmp_path / "long.txt").write_text("a" * (200 * 128 - 2))  # a token is a byte: with BOS and EOS, 200 windows
    words = ["train", str(trained / "a"), "--window", "128", "--steps", "5", "--batch-size", "2", "--dry-run"]
    words += ["--data", str(tmp_path / "long.txt"), "--out", str(tmp_path / "o")]
    status, printed = said(capsys, *words)
    assert status == 0, printed
    assert "long.txt: 25,600 tokens in 200 windows" in printed and "5% of them are read (estimated)" in printed
    assert (
        "estimated from a sample: tokenising all takes about" in printed and "a dry run: nothing was written" in printed
    )


def test_a_dry_run_counts_what_is_done_and_what_a_budget_leaves(trained, tmp_path, capsys, monkeypatch) -> None:
    from ropewalk.planner import calibrate
    from ropewalk.planner.chip_names import named
    from ropewalk.planner.chips import datasheet_rates

    chip = named("NVIDIA L4")
    monkeypatch.setattr(calibrate, "present", lambda job: (chip, datasheet_rates(chip)))
    (tmp_path / "o/checkpoints/step-000004").mkdir(parents=True)
    words = ["train", str(trained / "a"), "--window", "128", "--batch-size", "2", "--data", str(trained / "book.txt")]
    words += ["--out", str(tmp_path / "o"), "--dry-run"]
    printed = said(capsys, *words, "--steps", "5", "--resume")[1]
    assert "4 of 5 steps are done, and 1 step of 2 windows, 256 tokens in all" in printed
    # What it takes stands before the tables that say why.
    assert re.search(r"in short: 1 step in about .* each, and in [\d.]+ of [\d.]+ GiB", printed.split("Memory")[0])
    # Both have a size of their own; a checkpoint of step 5 is not written, and the final model is.
    assert re.search(r"on the disk: ([\d.]+ MiB); 1 model of \1 ", printed)
    assert "of the optimiser" not in printed
    printed = said(capsys, *words, "--steps", "10000000", "--save-every", "0", "--resume", "--budget", "1")[1]
    steps = int(re.search(r"--budget 1 ends it after about (\d+) of 9999996 steps", printed)[1])
    assert 0 < steps < 9999996
    assert "ends it after" not in said(capsys, *words, "--steps", "5", "--resume", "--budget", "1000")[1]
    # A step that is longer than all of it is refused, as by the run itself.
    monkeypatch.setattr(calibrate, "present", lambda job: (chip, replace(datasheet_rates(chip), matrix=1.0)))
    status, printed = said(capsys, *words, "--steps", "5", "--resume", "--budget", "1")
    assert status == 2 and "ends it after" not in printed


def test_a_dry_run_asks_the_disk_as_the_run_does(trained, tmp_path, capsys, monkeypatch) -> None:
    words = ["train", str(trained / "a"), "--window", "128", "--batch-size", "2", "--data", str(trained / "book.txt")]
    words += ["--steps", "2", "--save-every", "1", "--out", str(tmp_path / "deep/o"), "--quiet"]
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(2**40, 0, 2**16) if place.exists() else None)
    with mock.patch("ropewalk.training.disk.model_bytes", wraps=disk.model_bytes) as reckoned:
        rehearsed = said(capsys, *words, "--dry-run")
    assert reckoned.call_count == 1  # for the sentence and the refusal
    run = said(capsys, *words)
    assert (rehearsed[0], run[0]) == (2, 2) and "; 0.1 MiB are free there" in rehearsed[1]
    refusals = [printed.partition("what this run will write")[2] for _, printed in (rehearsed, run)]
    assert refusals[0] == refusals[1] and "has 0.1 MiB free; make room, or choose another --out" in refusals[0]


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small disk needs root on Linux")
def test_a_dry_run_of_extend_asks_the_disk_which_links_take_nothing_of(trained, tmp_path, capsys, monkeypatch) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "none", disk], capture_output=True).returncode:
        pytest.skip("this machine mounts no tmpfs")
    try:
        words = ["extend", str(trained / "a"), "--window", "128", "--out", str(disk / "o")]
        (rehearsed, printed), (run, refused) = said(capsys, *words, "--dry-run"), said(capsys, *words)
        assert (rehearsed, run) == (2, 2) and printed == refused and "its disk has 0.2 MiB free; make room" in printed
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(2**40, 0, 2**18))  # as little as there was, for links
    with mock.patch("ropewalk.model.carry.to_be_written", wraps=carry.to_be_written) as reckoned:
        status, printed = said(capsys, *words, "--dry-run")
    assert status == 0 and "as links" in printed and reckoned.call_count == 1
