"""Nothing of anybody's is deleted or replaced: what `--overwrite` takes, what a kill leaves, who holds a directory."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ropewalk.checkpoint import guard, half_written, marks, processes
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.files import disk_errors, whole_directory, write_whole
from ropewalk.checkpoint.guard import refuse_existing, refuse_existing_file
from ropewalk.checkpoint.marks import MARK
from ropewalk.checkpoint.processes import LOCK, locked
from ropewalk.checkpoint.run_directory import run_directory
from ropewalk.errors import UserError

HOLDS, SIGNS = ("records.jsonl", "checkpoints/step-*"), ("records.jsonl",)


def made(out: Path, **files: str) -> Path:
    """A directory that ropewalk made."""
    with whole_directory(out) as beside:
        for name, text in (files or {"config": "{}"}).items():
            (beside / name).write_text(text)
    return out


def tree(directory: Path) -> dict[str, str]:
    return {str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*") if path.is_file()}


def _mine_beside(out: Path) -> None:
    (made(out) / "thesis.tex").write_text("mine")


def _mine_below(out: Path) -> None:
    (made(out) / "figures").mkdir()
    (out / "figures/thesis.tex").write_text("mine")


def _linked_in(out: Path) -> None:
    (out.parent / "mine").mkdir()
    (out.parent / "mine/thesis.tex").write_text("mine")
    (made(out) / "data").symlink_to(out.parent / "mine")


def _looks_like_a_model(out: Path) -> None:
    out.mkdir()
    (out / "config.json").write_text("{}")


def _a_file(out: Path) -> None:
    out.write_text("mine")


def _a_link_to_a_file(out: Path) -> None:
    (out.parent / "notes.txt").write_text("mine")
    out.symlink_to("notes.txt")


def _a_copy_beside_what_it_copies(out: Path) -> None:
    shutil.copytree(made(out / "model").parent / "model", out / "model copy")


def _a_mark_that_says_nothing(out: Path) -> None:
    (made(out) / MARK).write_text("[]")


def _a_model_card_that_was_written_into(out: Path) -> None:
    with open(made(out, **{"README.md": "made"}) / "README.md", "a") as file:
        file.write("mine")


@pytest.mark.parametrize(
    "lies_there",
    [
        _a_model_card_that_was_written_into,
        _mine_beside,
        _mine_below,
        _linked_in,
        _looks_like_a_model,
        _a_file,
        _a_link_to_a_file,
        _a_copy_beside_what_it_copies,
        _a_mark_that_says_nothing,
    ],
)
def test_what_ropewalk_did_not_make_is_never_replaced(tmp_path, lies_there):
    out = tmp_path / "out"
    lies_there(out)
    before = tree(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(UserError, match="another --out|overwrite"), whole_directory(out, overwrite=overwrite):
            pytest.fail("went on")
        with pytest.raises(UserError), run_directory(out, holds=HOLDS, signs=SIGNS, overwrite=overwrite):
            pytest.fail("went on")
    assert tree(tmp_path) == before


def _spelt(out: Path, how: str) -> Path:
    """Another spelling of a directory."""
    if how == "dots":
        return out.parent / "x" / ".." / out.name
    if how == "link":
        (out.parent / "link").symlink_to(out.name)
        return out.parent / "link"
    if how == "link above":
        (out.parent / "above").symlink_to(".")
        return out.parent / "above" / out.name
    return out


@pytest.mark.parametrize("how", ["plain", "dots", "link", "link above"])
@pytest.mark.parametrize("reads", ["", "data"])
def test_no_spelling_hides_that_an_input_would_go(tmp_path, how, reads):
    (tmp_path / "x").mkdir()
    out = made(tmp_path / "out", config="{}", data="text")
    spelt = _spelt(out, how)
    for written, read in ((spelt, out / reads), (out, spelt / reads)):
        with pytest.raises(UserError, match="all of .* would be replaced, and with it"):
            refuse_existing(written, overwrite=True, inputs=[read])


def test_a_model_made_of_links_into_a_directory_keeps_it(tmp_path):
    out = made(tmp_path / "out", weights="1")
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").symlink_to(out / "weights")
    with pytest.raises(UserError, match="and with it .*model"):
        refuse_existing(out, overwrite=True, inputs=[model])


@pytest.mark.parametrize("place", ["", "inside"])
def test_the_current_directory_and_home_stay(tmp_path, monkeypatch, place):
    out = made(tmp_path / "out")
    (out / "inside").mkdir()
    for stand in ("cwd", "home"):
        monkeypatch.chdir(out / place if stand == "cwd" else tmp_path)
        monkeypatch.setenv("HOME", str(out / place if stand == "home" else tmp_path))
        with pytest.raises(UserError, match="all of .* would be replaced"):
            refuse_existing(out, overwrite=True)
    monkeypatch.chdir(tmp_path / "out")
    (out / "inside").rmdir()
    shutil.copytree(out, tmp_path / "kept")
    for name in os.listdir(out):
        (out / name).unlink()
    with pytest.raises(UserError, match="all of .* would be replaced"), whole_directory("."):  # empty, and stood in
        pytest.fail("went on")


def test_an_empty_directory_is_written_to_and_a_link_stays_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    made(tmp_path / "link", config="{}")
    made_again = tmp_path / "link"
    with whole_directory(made_again, overwrite=True) as beside:
        (beside / "config").write_text("new")
    assert made_again.is_symlink() and (tmp_path / "disk/config").read_text() == "new"
    assert sorted(os.listdir(tmp_path)) == ["disk", "link"]


def test_a_hard_link_elsewhere_keeps_what_it_had(tmp_path):
    out = made(tmp_path / "out", weights="old")
    os.link(out / "weights", tmp_path / "mine")
    with whole_directory(out, overwrite=True) as beside:
        (beside / "weights").write_text("new")
    assert (tmp_path / "mine").read_text() == "old" and (out / "weights").read_text() == "new"


def test_a_mark_that_is_a_link_to_anothers_is_not_written_through(tmp_path):
    first = made(tmp_path / "first")
    before = (first / MARK).read_text()
    with whole_directory(tmp_path / "second") as beside:
        os.link(first / MARK, beside / MARK)
        (beside / "other").write_text("")
    assert (first / MARK).read_text() == before and "other" in (tmp_path / "second" / MARK).read_text()


@pytest.mark.parametrize("content", ["mine", '{"kind":"run"}\n', ""])
def test_a_page_replaces_pages_only(tmp_path, content):
    out, page = tmp_path / "report.html", b"made by ropewalk"
    out.write_text(content)
    for overwrite in (False, True):
        with pytest.raises(UserError):
            refuse_existing_file(out, page, overwrite=overwrite)
    out.write_text("<html> made by ropewalk")
    refuse_existing_file(out, page, overwrite=True)
    os.link(out, tmp_path / "the same")
    with pytest.raises(UserError, match="and with it"):
        refuse_existing_file(out, page, overwrite=True, inputs=[tmp_path / "the same"])
    write_whole(out, "new \udcff")
    assert out.read_text() == "new \\udcff" and "made" in (tmp_path / "the same").read_text()


def test_no_model_is_written_or_read_under_a_name_that_readers_cannot_open(tmp_path):
    out = tmp_path / "a\udcff" / "out"
    with pytest.raises(UserError, match="no path that is not UTF-8"), whole_directory(out):
        pytest.fail("went on")
    with pytest.raises(UserError, match="no path that is not UTF-8"), run_directory(out, holds=HOLDS, signs=SIGNS):
        pytest.fail("went on")
    out.mkdir(parents=True)
    with pytest.raises(UserError, match=r"no path that is not UTF-8, such as '.*a\\udcff/out'; rename it"):
        Checkpoint.open(out)


# ---- kills


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


#: Who deletes or renames but the guard: what, where nobody else's files can lie.
DELETING = {
    "checkpoint/half_written.py": "what the guard allowed",
    "checkpoint/marks.py": "a mark in the place of another",
    "checkpoint/processes.py": "its own lock",
    "checkpoint/files.py": "what it was just writing itself",
    "checkpoint/digests.py": "the cache",
    "data/token_corpus.py": "the cache",
    "exports/converter.py": "the cache",
    "exports/export.py": "a directory that is being written",
    "exports/gguf_rope.py": "a directory that is being written",
    "model/carry.py": "a directory that is being written",
    "model/position_table.py": "a directory that is being written",
    "readers/mend.py": "a file that it keeps under another name",
    "records/files.py": "a record file that it began and could not write",
    "settings/run_file.py": "a run's settings, kept under another name when they change",
    "suite/ablation.py": "below .work of a directory that it marked",
    "suite/kept.py": "below .work of a directory that ablate marked",
    "suite/claims.py": "below .work of a directory that ablate marked",
    "training/threads.py": "the cache",
    "training/checkpoints.py": "a run's own, by its mark",
    "training/snapshots.py": "a run's own, by its manifests",
}


def test_nothing_else_deletes_or_renames():
    package = Path(guard.__file__).parents[1]
    deletes = re.compile(r"rmtree\(|\.unlink\(|os\.(remove|rename|replace|rmdir)\(|\.rename\(|shutil\.move")
    found = {str(path.relative_to(package)) for path in package.rglob("*.py") if deletes.search(path.read_text())}
    assert found <= DELETING.keys()


# ---- who holds a directory


HOLDING = """
import sys, time
from pathlib import Path
from ropewalk.checkpoint.processes import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_directory_is_held_by_one_process_and_free_when_that_is_killed(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", HOLDING, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    said = f"is being written by process {child.pid} on {os.uname().nodename}, since 20"
    for _ in range(2):  # asking does not free it
        with pytest.raises(UserError, match=said), locked(tmp_path):
            pytest.fail("held by two")
    with pytest.raises(UserError, match=said), whole_directory(tmp_path, overwrite=True):
        pytest.fail("replaced what is being written")
    child.kill()
    child.wait()
    child.stdout.close()
    assert (tmp_path / LOCK).exists()
    with locked(tmp_path):
        with pytest.raises(UserError, match=f"by process {os.getpid()} "), locked(tmp_path):
            pytest.fail("held twice by one process")
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert os.listdir(tmp_path) == []


def test_without_locks_of_the_file_system_the_words_in_the_file_count(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "fcntl", None)
    (tmp_path / LOCK).write_text(json.dumps({"process": processes.token(), "pid": 1, "host": "h"}))
    with pytest.raises(UserError, match="by process 1 on h"), locked(tmp_path):
        pytest.fail("held by two")
    (tmp_path / LOCK).write_text("")
    with locked(tmp_path):
        pass


def test_a_lock_is_never_written_through_a_link(tmp_path):
    (tmp_path / "theirs").write_text("mine")
    (tmp_path / LOCK).symlink_to("theirs")
    with pytest.raises(UserError, match="is a link"), locked(tmp_path):
        pytest.fail("held by a link")
    assert (tmp_path / "theirs").read_text() == "mine"


# ---- runs


def run(out, *, fails=False, **options):
    """A run that writes one row; its number is what it has written so far."""
    with run_directory(out, holds=HOLDS, signs=SIGNS, **options) as work:
        with open(work / "records.jsonl", "a") as file:
            file.write(f"{options}\n")
        if fails:
            raise KeyboardInterrupt
        return work


def test_the_run_that_is_replaced_stays_until_the_new_one_is_finished(tmp_path):
    out = tmp_path / "out"
    assert run(out) == out
    first = tree(out)
    with pytest.raises(KeyboardInterrupt):
        run(out, overwrite=True, fails=True)
    assert tree(out) == first and sorted(os.listdir(tmp_path)) == [".out.new", "out"]
    with pytest.raises(
        UserError, match=r"\.out\.new holds a run that is to replace .* train --resume goes on with that one"
    ):
        run(out)
    assert run(out, go_on=True) == tmp_path / ".out.new"
    assert os.listdir(tmp_path) == ["out"] and sorted(os.listdir(out)) == [MARK, "records.jsonl"]
    assert (out / "records.jsonl").read_text().count("\n") == 2, "it went on with what was begun"
    with pytest.raises(KeyboardInterrupt):
        run(out, overwrite=True, fails=True)
    run(out, overwrite=True)
    assert (out / "records.jsonl").read_text().count("\n") == 1, "it began anew"


def test_a_finished_run_is_kept_where_its_place_was_taken_by_something_else(tmp_path):
    out = tmp_path / "out"
    run(out)
    with pytest.raises(UserError, match=r"is finished and lies in .*\.out\.new, but ropewalk did not make .*thesis"):
        with run_directory(out, holds=HOLDS, signs=SIGNS, overwrite=True) as work:
            (work / "records.jsonl").write_text("new")
            (out / "thesis").write_text("mine")
    assert (out / "thesis").read_text() == "mine" and (tmp_path / ".out.new/records.jsonl").read_text() == "new"


def test_a_run_that_is_refused_leaves_nothing(tmp_path):
    for options in ({}, {"go_on": True}):
        with pytest.raises(UserError), run_directory(tmp_path / "out", holds=HOLDS, signs=SIGNS, **options):
            raise UserError("no such data")
    assert os.listdir(tmp_path) == []
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError), run_directory(tmp_path / "mine", holds=HOLDS, signs=SIGNS):
        raise UserError("no such data")
    assert os.listdir(tmp_path) == ["mine"]


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


def test_a_file_is_held_as_a_directory_is_and_its_lock_is_gone_afterwards(tmp_path):
    with locked(tmp_path / "found.json"):
        with pytest.raises(UserError, match=f"found.json is being written by process {os.getpid()} on"):
            with locked(tmp_path / "found.json"):
                pass
        with locked(tmp_path / "other.json"):
            pass
    assert os.listdir(tmp_path) == []


def test_of_two_that_found_nothing_there_the_later_one_finds_the_first(tmp_path):
    """As two processes would: each has asked the guard, and then both are done."""
    with pytest.raises(UserError, match="exists and ropewalk does not overwrite"):
        with whole_directory(tmp_path / "out") as second:
            (second / "config").write_text("second")
            made(tmp_path / "out", config="first")
    assert (tmp_path / "out/config").read_text() == "first" and os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("out", ["hemp", "./hemp", Path("hemp"), "hemp/"])
def test_the_embedded_models_name_is_no_place(out, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="hemp names the embedded model"):
        guard.refuse_existing(out)
    guard.refuse_existing("hemp-4k")


def test_a_way_out_that_would_be_refused_in_turn_is_not_offered(tmp_path, monkeypatch):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for directory in (ours, theirs):
        directory.mkdir()
        (directory / "a.txt").write_text("text")
    marks.mark(ours)
    monkeypatch.chdir(theirs)
    for out, offered in ((ours, True), (theirs, False), (".", False)):
        with pytest.raises(UserError, match="exists and ropewalk does not overwrite; choose another --out") as refused:
            guard.refuse_existing(out)
        assert str(refused.value).endswith("or add --overwrite") == offered
    for content, offered in ((b"made by us", True), (b"a letter", False)):
        (tmp_path / "page").write_bytes(content)
        with pytest.raises(UserError, match="choose another --out") as refused:
            guard.refuse_existing_file(tmp_path / "page", b"made by us")
        assert str(refused.value).endswith("or add --overwrite") == offered
