"""Who holds a directory: one process, by a lock that ends with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from ropewalk.checkpoint import processes
from ropewalk.checkpoint.files import whole_directory
from ropewalk.checkpoint.processes import LOCK, locked
from ropewalk.errors import UserError

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


def test_a_file_is_held_as_a_directory_is_and_its_lock_is_gone_afterwards(tmp_path):
    with locked(tmp_path / "found.json"):
        with pytest.raises(UserError, match=f"found.json is being written by process {os.getpid()} on"):
            with locked(tmp_path / "found.json"):
                pass
        with locked(tmp_path / "other.json"):
            pass
    assert os.listdir(tmp_path) == []
