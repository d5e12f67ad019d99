"""What one process does and others leave to it or wait for: held by the lock of a directory, free again when its process ends.

in   a directory of the work in progress
out  whether this process has it; of a torchrun's processes the first claims, for all of them
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from ropewalk.checkpoint.files import disk_errors
from ropewalk.checkpoint.processes import locked
from ropewalk.distributed import ranks
from ropewalk.errors import UserError


@contextlib.contextmanager
def claimed(work: Path) -> Iterator[Path | None]:
    """A directory that this process alone has, or the first of a torchrun for all of it; None if another one has it."""
    with contextlib.ExitStack() as stack:
        yield work if ranks.first(lambda: _claim(work, stack)) else None


def _claim(work: Path, stack: contextlib.ExitStack) -> bool:
    try:
        with disk_errors(work):
            work.mkdir(parents=True, exist_ok=True)
        stack.enter_context(locked(work))
    except (UserError, FileNotFoundError):  # gone just now, with its row
        return False
    return True


@contextlib.contextmanager
def waiting(place: Path) -> Iterator[None]:
    """One process at a time; the others wait."""
    while True:
        with claimed(place) as held:
            if held is not None:
                yield
                return
        time.sleep(1)
