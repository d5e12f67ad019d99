"""Rows always come back: any name, any disk, several writers."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

import made_up
from ropewalk import records
from ropewalk.errors import UserError
from ropewalk.records import Recorder, check_file
from ropewalk.records.resume import recorded_rows

NAMES = ["U+2028 \u2028", "U+0085 \x85", "half a pair \ud83d", "not UTF-8 \udcff", 'quoted "\\', "\r\n\x0b\x1c", "\0"]


@contextlib.contextmanager
def disk(place: Path, options: str) -> Iterator[Path]:
    """A small file system of its own."""
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def row(name: str = "d", **changes: object) -> records.Perplexity:
    return made_up.row(
        2.0, data=name, documents=1, tokens=3, per_document=[{"name": name, "tokens": 3, "nll": 6.0}], **changes
    )


def written_as(name: str) -> str:
    """What a name that UTF-8 does not have is called in a file: Python's own escape."""
    return name.encode("utf-8", "backslashreplace").decode()


@pytest.mark.parametrize("name", NAMES)
def test_whatever_a_name_holds_its_row_is_read_back(tmp_path, name):
    run = made_up.run(made_up.BASE, name, seed=1)
    Recorder(tmp_path / "r.jsonl", run).add(row(name))
    Recorder(tmp_path / "r.jsonl", run).add(row("after"))
    read = records.read([tmp_path / "r.jsonl"])
    assert read.left_out == records.LeftOut()
    assert [m.row.data for m in read.of(records.Perplexity)] == [written_as(name), "after"]
    assert read.runs[run.id].command == written_as(name)
    assert b"\n" not in (tmp_path / "r.jsonl").read_bytes().split(b"\n")[1]


@hypothesis.given(st.text(st.characters(), max_size=20))
@hypothesis.settings(max_examples=100)
def test_any_text_at_all_is_read_back(name):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "r.jsonl")
        Recorder(path, made_up.run(made_up.BASE, "c")).add(row(name))
        assert [m.row.data for m in records.read([path]).of(records.Perplexity)] == [written_as(name)]


def test_a_measurement_of_documents_of_any_name_is_found_again(tmp_path):
    import dataclasses

    run = dataclasses.replace(made_up.run(made_up.BASE, "c"), settings={"documents": ("a\udcff", "b"), "nan": [1.5]})
    Recorder(tmp_path / "r.jsonl", run).add(row())
    again = dataclasses.replace(run, id="other")
    assert recorded_rows(tmp_path / "r.jsonl", again, records.Perplexity) == [row()]
    other = dataclasses.replace(run, settings={"documents": ("b", "a\udcff"), "nan": [1.5]})
    assert recorded_rows(tmp_path / "r.jsonl", other, records.Perplexity) == []


@pytest.mark.parametrize(
    "content", ["mine\n", '{"text": "a document"}\n', "[1]\n", '{"deep": ' + "[" * 10**5, "\0" * 4096]
)
def test_rows_are_appended_to_no_file_but_records(tmp_path, content):
    path = tmp_path / "thesis.txt"
    path.write_text(content)
    with pytest.raises(UserError, match="holds no record; name another file"):
        check_file(path)
    assert path.read_text() == content


def test_a_record_file_may_be_damaged_or_empty(tmp_path):
    path = tmp_path / "r.jsonl"
    path.touch()
    check_file(path)
    Recorder(path, made_up.run(made_up.BASE, "c")).add(row())
    lines = path.read_text()
    for damaged in (lines[:20], f"damaged\n{lines}", f"{lines}damaged"):
        path.write_text(damaged)
        check_file(path)
    assert len(records.read([path]).measurements) == 1


def test_what_cannot_be_written_is_known_before(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for path, said in [
        ("/dev/full", "is a plain file"),
        (tmp_path / "pipe", "is a plain file"),
        (tmp_path, "is a directory"),
        (tmp_path / "file/below.jsonl", "is a file"),
        (tmp_path / ("n" * 300), "longer than the file system takes"),
        (tmp_path / "loop", "lead in a circle"),
    ]:
        with pytest.raises(UserError, match=said):
            check_file(path)
    assert sorted(os.listdir(tmp_path)) == ["file", "loop", "pipe"]


@pytest.mark.parametrize("there", [False, True])
def test_a_read_only_or_full_disk_is_known_before(tmp_path, there):
    with disk(tmp_path / "disk", "size=256k") as place:
        path = place / "r.jsonl"
        if there:
            Recorder(path, made_up.run(made_up.BASE, "c")).add(row())
        check_file(path)
        (place / "full").write_bytes(b"")
        with contextlib.suppress(OSError), open(place / "full", "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        with pytest.raises(UserError, match="r.jsonl could not be written: the disk is full"):
            check_file(path)
        (place / "full").unlink()
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        with pytest.raises(UserError, match="r.jsonl could not be written: .*read-only"):
            check_file(path)
        assert sorted(os.listdir(place)) == ["r.jsonl"] * there


AS_NOBODY = """
import os, sys
from ropewalk.errors import UserError
from ropewalk.records import check_file
os.setuid(65534)
for path in sys.argv[1:]:
    try:
        check_file(path)
    except UserError as error:
        print(error)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="to become another user needs root, who may write anywhere")
def test_permission_that_is_missing_is_known_before():
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        Recorder(path := Path(folder, "r.jsonl"), made_up.run(made_up.BASE, "c")).add(row())
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, path, f"{folder}/new.jsonl"], capture_output=True, text=True
        )
    assert done.stdout.count("could not be written: there is no permission") == 2, done.stdout + done.stderr


def test_where_the_disk_fails_later_the_rows_are_elsewhere_and_it_is_said_where(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "elsewhere"))
    with disk(tmp_path / "disk", "size=128k") as place:
        recorder = Recorder(place / "r.jsonl", run := made_up.run(made_up.BASE, "c"))
        names = [f"{number}{'n' * 8000}" for number in range(30)]
        for name in names:
            recorder.add(row(name))
        kept = tmp_path / f"elsewhere/r-{run.id}.jsonl"
        (error,) = [record.message for record in caplog.records]
        assert f"disk/r.jsonl could not be written (No space left on device): rows from here on are in {kept}" in error
        parts = [records.read([path]) for path in (place / "r.jsonl", kept)]
        assert [m.row.data for part in parts for m in part.of(records.Perplexity)] == names
        assert all(part.left_out == records.LeftOut() for part in parts), "no half line stays"
        together = tmp_path / "all.jsonl"
        together.write_bytes((place / "r.jsonl").read_bytes() + kept.read_bytes())
        assert len(records.read([together]).measurements) == len(names)


def test_where_no_place_takes_them_that_is_said_and_the_measurement_goes_on(tmp_path, caplog):
    recorder = Recorder(tmp_path / "r.jsonl", made_up.run(made_up.BASE, "c"))
    recorder.add(row())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        recorder.add(row("lost"))
        recorder.add(row("lost too"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    (error,) = [record.message for record in caplog.records]
    assert "nor any other place: what is printed is all there is" in error
    assert [m.row.data for m in records.read([tmp_path / "r.jsonl"]).of(records.Perplexity)] == ["d"]


WRITING = """
import sys
sys.path.insert(0, sys.argv[3])
import made_up
from ropewalk.records import Recorder
for number in range(40):
    Recorder(sys.argv[1], made_up.run(made_up.BASE, "c")).add(made_up.row(2.0, data=f"{sys.argv[2]} {number} " + "n" * 100_000))
"""


def test_two_who_write_to_one_file_do_not_mix_their_lines(tmp_path):
    path, tests = tmp_path / "r.jsonl", str(Path(__file__).parents[1])
    command = [sys.executable, "-c", WRITING, str(path)]
    writers = [subprocess.Popen([*command, name, tests]) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    read = records.read([path])
    assert read.left_out == records.LeftOut()
    wanted = {f"{name} {number}" for name in "ab" for number in range(40)}
    assert {" ".join(m.row.data.split()[:2]) for m in read.of(records.Perplexity)} == wanted
    assert all(json.loads(line) for line in path.read_bytes().splitlines())
