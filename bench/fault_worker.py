"""One command line in a process of its own, forked after everything heavy was imported: what it did, said, took and left.

in   a `Case`, and a directory of models and texts to copy
out  "as promised", or what happened otherwise

As promised is: exit 2 with one message and no traceback, or exit 0 with the right result, within the time, and nothing lost that was there.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

#: What a user does not know, where it could not be written.
_HIDDEN = re.compile(r"/\.\S+\.(partial|old)\b|/\.\S+\.new\S* could not be written|/ropewalk-[a-z0-9_]{8}\b")
REFUSED, DONE, EITHER = "refused", "done", "either"


@dataclass(frozen=True)
class Case:
    """One command line under one fault.

    Attributes:
        kind: the table's row.
        name: what is tried.
        arguments: of `ropewalk`; several command lines run one after the other, the last one counts.
        expected: REFUSED, DONE or EITHER.
        prepare: makes the fault in the directory where the command runs.
        inside: makes the fault in the process: limits, closed streams, another user.
        check: what is wrong with a result; empty if nothing is.
        killed: seconds after which the process is killed; the command then runs once more, and that counts.
        twice: the command runs in two processes at once; one of them counts, the other may be refused.
        alone: and must be, since both write the same place.
        seconds: of a quiet core. lost: whether what was there before must be there after.
    """

    kind: str
    name: str
    arguments: tuple[str, ...]
    expected: str = REFUSED
    prepare: Callable[[Path], None] | None = None
    inside: Callable[[], None] | None = None
    check: Callable[[Path, str], str] | None = None
    killed: float | None = None
    twice: bool = False
    alone: bool = False
    seconds: float = 30.0
    keeps: bool = True


@dataclass(frozen=True)
class End:
    """How a process ended."""

    status: int | None
    stdout: str
    stderr: str


def outcome(case: Case, template: Path, *, patience: float = 1.0) -> str:
    """Run a case; empty if it ended as promised, else what happened.

    patience: how many times as long a case may take, on a busy machine.
    """
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        place = Path(folder) / "work"
        Path(folder).chmod(0o755)  # for the case that somebody else runs here
        shutil.copytree(template, place, symlinks=True)
        os.mkfifo(place / "pipe")
        if case.prepare is not None:
            case.prepare(place)
        before = _contents(place)
        if case.killed is not None:
            _wait([_fork(case, place, Path(folder) / "first")], case.killed)
        ends = _ends(case, place, Path(folder), case.seconds * patience)
        if case.alone and all(end.status == 0 for end in ends):
            return "lost: both wrote the same place, and one of them is gone"
        found = next((reason for reason in (_judged(case, end, place) for end in ends) if not reason), None)
        if found is None:
            return _judged(case, ends[0], place)
        return _lost(before, place) if case.keeps else ""


def _ends(case: Case, place: Path, folder: Path, seconds: float) -> list[End]:
    said = [folder / f"end-{number}" for number in range(1 + case.twice)]
    return [
        End(status, _read(path.with_suffix(".out")), _read(path.with_suffix(".err")))
        for status, path in zip(_wait([_fork(case, place, path) for path in said], seconds), said, strict=True)
    ]


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _judged(case: Case, end: End, place: Path) -> str:
    if end.status is None:
        return "did not end in time"
    if "Traceback (most recent call last)" in end.stderr:
        return "traceback: " + (end.stderr.strip().splitlines() or [""])[-1][:160]
    if end.status < 0:
        return f"ended by signal {-end.status}"
    if end.status == 2 and (hidden := _HIDDEN.search(_message(end))):
        return f"a hidden path: {hidden[0]}"
    if end.status == 2:
        if case.expected == DONE:
            return f"refused: {_message(end)[:200]}"
        return "" if _message(end) else "exit 2 without a message"
    if end.status == 141 and case.expected != REFUSED:
        return ""
    verdicts = {"doctor": (1, 3), "plan": (1,)}.get(case.arguments[0], ())
    if end.status in verdicts and end.stdout and case.expected != REFUSED:
        return ""  # something is wrong with the checkpoint, was not checked, or does not fit, and it says what
    if end.status != 0:
        return f"exit {end.status}: {_message(end)[:160]}"
    if case.expected == REFUSED:
        return "silent: exit 0"
    return case.check(place, end.stdout) if case.check is not None else ""


def _message(end: End) -> str:
    """The last line of ours; what tyro says of options comes in a box on stderr."""
    ours = [line for line in end.stderr.splitlines() if line.startswith("ropewalk: ")]
    boxed = "╭" in end.stderr or "+-" in end.stderr
    return ours[-1] if ours else "a box of tyro's" if boxed or "usage" in end.stderr.lower() else ""


def _contents(place: Path) -> dict[str, str]:
    """Every regular file by its hash; what a process writes while it runs is not among the template's files."""
    files = [path for path in place.rglob("*") if path.is_file() and not path.is_symlink()]
    return {str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _lost(before: dict[str, str], place: Path) -> str:
    after = _contents(place)
    gone = [name for name in before if after.get(name) != before[name] and not name.endswith("appended.jsonl")]
    return f"lost: {gone[0]} and {len(gone) - 1} more" if gone else ""


def _wait(children: list[int], seconds: float) -> list[int | None]:
    """Exit statuses, negative for a signal; None for a child that had to be killed."""
    until, ended = time.monotonic() + seconds, dict[int, int | None]()
    while len(ended) < len(children) and time.monotonic() < until:
        for child in children:
            if child not in ended:
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    ended[child] = os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    for child in set(children) - set(ended):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        ended[child] = None
    return [ended[child] for child in children]


def _fork(case: Case, place: Path, said: Path) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    status = 70
    gc.disable()
    try:
        status = _run(case, place, said)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _run(case: Case, place: Path, said: Path) -> int:
    """In the child: the command as a shell would start it."""
    os.chdir(place)
    os.environ |= {"ROPEWALK_CACHE": str(said.parent / "cache"), "HOME": str(said.parent), "COLUMNS": "100"}
    stdin = os.open(os.devnull, os.O_RDONLY)
    streams = [os.open(said.with_suffix(end), os.O_WRONLY | os.O_CREAT | os.O_TRUNC) for end in (".out", ".err")]
    for number, opened in enumerate((stdin, *streams)):
        os.dup2(opened, number)
        os.set_inheritable(number, True)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)
    if case.inside is not None:
        case.inside()
    from ropewalk.cli import main

    sys.argv = ["ropewalk", *case.arguments]
    try:
        main(list(case.arguments))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1 if end.code else 0
    return 0
