"""stdout and stderr in whatever state a shell leaves them: another encoding, closed, full, or a pipe that nobody reads."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PLAN = [sys.executable, "-m", "ropewalk", "plan", "llama-7b", "--window", "8192", "--gpus", "8xH100"]
#: A refusal, whose sentence goes to stderr.
REFUSED = [sys.executable, "-m", "ropewalk", "plan", "llama-7b", "--window", "0"]
SHELL = 'exec "$0" "$@"'


def run(command: list[str], redirected: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    shell = ["bash", "-c", f"{SHELL} {redirected}", *command]
    return subprocess.run(shell, capture_output=True, env={**os.environ, **environment}, timeout=300)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_a_result_is_written_in_any_encoding(encoding: str) -> None:
    done = run(PLAN, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert "window 2048" in done.stdout.decode(encoding)


def test_bytes_of_a_path_that_are_no_unicode_are_said_as_they_are() -> None:
    done = subprocess.run([*REFUSED[:4], b"./b\xffd", "--window", "9"], capture_output=True)
    assert done.returncode == 2 and b"there is no directory ./b\xffd" in done.stderr


@pytest.mark.parametrize(
    ("command", "redirected", "status", "said"),
    [
        (PLAN, ">&-", 2, b"(it is closed); open it and run the command again, with another --out"),
        (PLAN, "<&- >&- 2>&-", 2, b""),
        (PLAN, "<&- 2>&-", 0, b""),
        (PLAN, ">/dev/full", 2, b"could not be written to standard output (No space left on device); "),
        (PLAN, "2>/dev/full", 0, b""),
        (REFUSED, ">/dev/full", 2, b"window is a whole number"),
        (REFUSED, "2>/dev/full", 2, b""),
        (REFUSED, "2>&-", 2, b""),
    ],
)
def test_a_stream_that_is_closed_or_full_is_no_traceback(command, redirected, status, said) -> None:
    done = run(command, redirected)
    assert done.returncode == status and said in done.stderr
    assert b"Traceback" not in done.stderr and done.stderr.count(b"\n") <= 1


def test_a_reader_that_has_gone_is_no_fault() -> None:
    shell = subprocess.run(["bash", "-c", '"$0" "$@" | true; exit ${PIPESTATUS[0]}', *PLAN], capture_output=True)
    assert shell.returncode == 141 and shell.stderr == b""
