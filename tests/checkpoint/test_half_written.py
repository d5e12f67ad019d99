"""What a kill leaves half written: swept away, put back, called as the user knows it; at every moment there is one whole directory."""

from __future__ import annotations

import errno
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from directories import HOLDS, SIGNS, made, tree
from ropewalk.checkpoint import guard, half_written, marks, processes
from ropewalk.checkpoint.files import disk_errors, whole_directory
from ropewalk.checkpoint.marks import MARK
from ropewalk.checkpoint.run_directory import run_directory
from ropewalk.errors import UserError


def _dead_name(out: Path, kind: str = "partial") -> Path:
    """What a process that has ended would have called its half-written `out`."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    began = processes._began(child.pid)
    child.kill()
    child.wait()
    name = half_written.beside(out, kind).name
    return out.parent / name.replace(processes.token(), f"{processes._host()}-{child.pid}-{began}")


def test_what_killed_processes_left_is_swept_and_nothing_else(tmp_path):
    out = tmp_path / "out"
    left = _dead_name(out)
    left.mkdir()
    (left / "half").write_text("")
    alive, foreign = half_written.beside(out), Path(str(left).replace(processes._host(), "00000000"))
    kept = [alive, foreign, tmp_path / ".out.partial", tmp_path / ".notes.abc.partial", tmp_path / "mine.old"]
    for path in kept:
        path.mkdir()
    made(out)
    assert sorted(tmp_path.iterdir()) == sorted([*kept, out])


def test_an_old_directory_whose_replacement_was_killed_in_between_is_put_back(tmp_path, monkeypatch):
    """Where the file system cannot swap two names there are two renames, and a process can end after the first."""
    out = made(tmp_path / "out", config="old")
    os.rename(out, old := _dead_name(out, "old"))
    assert not out.exists() and old.exists()
    with pytest.raises(UserError, match="exists"), whole_directory(out):
        pytest.fail("went on")
    assert (out / "config").read_text() == "old"
    monkeypatch.setattr(half_written, "_swapped", lambda one, other: False)
    with whole_directory(out, overwrite=True) as beside:
        (beside / "config").write_text("new")
    assert (out / "config").read_text() == "new" and os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("place", [f".{MARK}", ".config.json", "checkpoints/.step-000003", "..final"])
def test_what_a_killed_process_left_half_written_is_no_strangers_and_what_is_called_otherwise_is(tmp_path, place):
    """Whatever a writer calls its own files in it: of a run's checkpoint and model, of a config that is mended, of the mark itself."""
    out = made(tmp_path / "out")
    (out / place).parent.mkdir(exist_ok=True)
    left = _dead_name((out / place).with_name((out / place).name.removeprefix(".")))
    left.mkdir()
    (left / ".tmpa5018z").write_text("half")
    guard.refuse_existing(out, overwrite=True)
    left.rename(left.with_name(f"{left.name}.mine"))
    with pytest.raises(UserError, match=r"did not make .*mine/\.tmpa5018z"):
        guard.refuse_existing(out, overwrite=True)


@pytest.mark.parametrize("written", ["", "half a"])
def test_a_mark_that_a_kill_left_half_written_is_written_again(tmp_path, monkeypatch, written):
    out, replace = made(tmp_path / "out"), os.replace
    killed = KeyboardInterrupt("as a kill: nothing is tidied up")

    def dies(source, target):
        Path(source).write_text(written)
        raise killed

    monkeypatch.setattr(os, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        marks.mark_again(out, "config")
    monkeypatch.setattr(os, "replace", replace)
    assert len(os.listdir(out)) == 3
    guard.refuse_existing(out, overwrite=True)


def test_a_replacement_that_was_killed_before_it_was_marked_is_begun_again(tmp_path):
    out = made(tmp_path / "out")
    (tmp_path / ".out.new").mkdir()
    (tmp_path / ".out.new" / processes.LOCK).write_text("")
    with run_directory(out, holds=HOLDS, signs=SIGNS, overwrite=True) as work:
        (work / "records.jsonl").write_text("")
    assert os.listdir(tmp_path) == ["out"] and "records.jsonl" in os.listdir(out)


REPLACING = """
import sys
from pathlib import Path
from ropewalk.checkpoint.files import whole_directory
number = 0
while True:
    number += 1
    with whole_directory(sys.argv[1], overwrite=True) as beside:
        for name in "abcdef":
            (beside / name).write_text(str(number))
"""


def test_killed_at_any_moment_there_is_one_whole_directory(tmp_path):
    out, chance = tmp_path / "out", random.Random(0)
    made(out, **dict.fromkeys("abcdef", "0"))
    for _ in range(12):
        child = subprocess.Popen([sys.executable, "-c", REPLACING, str(out)])
        before = tree(out)["a"]
        end = time.monotonic() + 20
        while time.monotonic() < end and tree_of(out) == before:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.02))
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert len({tree(out)[name] for name in "abcdef"}) == 1, "old and new are mixed"
    with whole_directory(out, overwrite=True) as beside:
        (beside / "last").write_text("")
    assert os.listdir(tmp_path) == ["out"] and sorted(os.listdir(out)) == [MARK, "last"]


def tree_of(out: Path) -> str:
    try:
        return (out / "a").read_text()
    except OSError:
        return ""


@pytest.mark.parametrize(
    ("written", "known"),
    [
        ("/a/out/checkpoints/step-000200", "/a/out/checkpoints/step-000200"),
        ("/a/.out.new/checkpoints/step-000200", "/a/out/checkpoints/step-000200"),
        ("/a/.out.new/.final", "/a/out"),
        (f"{half_written.beside(Path('/a/out'))}/merged", "/a/out"),
    ],
    ids=["its place", "beside it", "finished beside it", "made beside it"],
)
def test_what_could_not_be_written_is_called_as_the_user_knows_it(written, known):
    with pytest.raises(UserError, match=f"^{re.escape(known)} could not be written: the disk is full"):
        with disk_errors(written):
            raise OSError(errno.ENOSPC, "No space left on device")


def test_of_two_that_found_nothing_there_the_later_one_finds_the_first(tmp_path):
    """As two processes would: each has asked the guard, and then both are done."""
    with pytest.raises(UserError, match="exists and ropewalk does not overwrite"):
        with whole_directory(tmp_path / "out") as second:
            (second / "config").write_text("second")
            made(tmp_path / "out", config="first")
    assert (tmp_path / "out/config").read_text() == "first" and os.listdir(tmp_path) == ["out"]
