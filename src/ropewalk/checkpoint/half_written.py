"""What is half written: named beside what it will become, put in its place at once, swept away after a kill.

in   a path that the guard allows (guard.py), and what was written beside it
out  one directory in the place of another, or what was there before
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import re
import shutil
import uuid
from pathlib import Path

from ropewalk.checkpoint.processes import is_gone, token

#: What is half written, or was just replaced: `.NAME.PROCESS-RANDOM.partial` or `.old`.
_LEFTOVER = re.compile(
    r"\.(?P<name>.+)\.(?P<process>[0-9a-f]{8}-\d+-\w+)-[0-9a-f]{8}\.(?P<kind>partial|old)", re.DOTALL
)
#: A run that is to replace NAME (run_directory.py), and where a finished model is put together.
_PENDING, FINAL = re.compile(r"\.(?P<name>.+)\.new", re.DOTALL), ".final"
#: Bytes of a name that may have 255: longer ones stand shortened in the name of what is half written.
_LONGEST = 150
#: Linux: "swap the two", for renameat2; and "relative to the current directory".
_RENAME_EXCHANGE, _AT_FDCWD = 2, -100

Name = str | os.PathLike[str]


def beside(out: Path, kind: str = "partial") -> Path:
    """A new name beside `out` for what will become it, which says which process writes it."""
    return out.absolute().parent / f".{_short(out.name)}.{token()}-{uuid.uuid4().hex[:8]}.{kind}"


def is_half_written(name: str) -> bool:
    """Whether a file or directory is called so."""
    return _LEFTOVER.fullmatch(name) is not None


def known_as(path: Name) -> Path:
    """What a user knows a place by: what is made beside X, and a run that is to replace X, is X; the final model is its run's."""
    path = Path(path)
    for part in (*reversed(path.parents), path):
        if part.name == FINAL:
            return known_as(part.parent)
        if left := _LEFTOVER.fullmatch(part.name):
            return known_as(part.with_name(left["name"]))
        if pending := _PENDING.fullmatch(part.name):
            return known_as(part.with_name(pending["name"]) / path.relative_to(part))
    return path


def _short(name: str) -> str:
    raw = os.fsencode(name)
    return name if len(raw) <= _LONGEST else f"{name[:20]}-{hashlib.sha256(raw).hexdigest()[:16]}"


def replace(new: Path, out: Path) -> None:
    """Put `new` in the place of `out`, then delete what lay there: at every moment, `out` is the whole old one or the whole new one.

    The caller has asked the guard. Where the file system cannot swap two names there is an instant without `out`; `sweep` puts the old
    one back if the process ends in it.
    """
    if os.path.lexists(out) and _swapped(new, out):
        remove(new)
        return
    old = beside(out, "old")
    if os.path.lexists(out):
        os.rename(out, old)
    try:
        os.rename(new, out)
    except OSError:
        if os.path.lexists(old):
            os.rename(old, out)
        raise
    remove(old)


def _swapped(one: Path, other: Path) -> bool:
    """Swap two names at once; False where this system or file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    return renameat2 is not None and not renameat2(
        _AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE
    )


def remove(path: Path) -> None:
    """Delete something of ours: a directory with all that is in it, a file, a link; nothing if it is gone already."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):  # where nothing can be, nothing of ours is
            path.unlink()


def set_aside(path: Path) -> Path:
    """Rename what is in the way and not ours to NAME.aside, or NAME.aside-2 and so on."""
    number = 1
    while os.path.lexists(aside := path.with_name(f"{path.name}.aside{f'-{number}' if number > 1 else ''}")):
        number += 1
    os.rename(path, aside)
    return aside


def sweep(directory: Path, out: Path | None = None) -> None:
    """Delete what killed processes left half written in a directory; an old `out` that one of them had just moved away is put back."""
    with contextlib.suppress(OSError):  # there is no such directory, or it cannot be looked into
        for entry in list(os.scandir(directory)):
            left = _LEFTOVER.fullmatch(entry.name)
            if left is None or not is_gone(left["process"]):
                continue
            if left["kind"] == "partial":
                remove(Path(entry.path))
            elif out is not None and left["name"] == _short(out.name):
                remove(Path(entry.path)) if os.path.lexists(out) else os.rename(entry.path, out)
