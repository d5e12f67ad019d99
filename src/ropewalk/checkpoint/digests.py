"""A hash of a large file that is computed once, however often it is asked for.

in   a file
out  its digest, from the cache where a file of that inode, size and dates was hashed before

Weights are tens of gigabytes; hashed in pieces by several threads they take seconds, and the next time nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ropewalk.checkpoint.files import cache_directory
from ropewalk.errors import read_text

_PIECE = 1 << 24
#: Seconds. A file written within them of being hashed may be written again under the same date, so it is not kept (git has the same rule).
_RECENT = 2.0


def digest_of(file: Path) -> str:
    """The SHA-256 of the SHA-256s of a file's pieces of 16 MiB."""
    status = file.stat()
    kept = _place(status)
    try:
        known = read_text(kept)
        if len(known) == 64:
            return known
    except (OSError, ValueError):
        pass
    digest = _hashed(file, status.st_size)
    if time.time() - status.st_mtime > _RECENT and file.stat().st_ctime_ns == status.st_ctime_ns:
        _keep(kept, digest)
    return digest


@contextlib.contextmanager
def same_bytes(file: Path) -> Iterator[None]:
    """Around what changes a file's status and none of its bytes, as a new link does: what was known of it is known afterwards."""
    before = _place(file.stat())
    yield
    with contextlib.suppress(OSError, ValueError):  # it was not known, or the cache cannot be read
        _keep(_place(file.stat()), read_text(before))


def _place(status: os.stat_result) -> Path:
    """Where the digest of such a file is kept. The date of the last change of its status counts too, which no program sets back: copies and
    archives keep the other date, and a deleted file's inode is used again."""
    key = f"{status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
    return cache_directory() / "digests" / hashlib.sha256(key.encode()).hexdigest()[:32]


def _hashed(file: Path, size: int) -> str:
    def piece(start: int) -> bytes:
        with open(file, "rb") as stream:
            stream.seek(start)
            return hashlib.sha256(stream.read(_PIECE)).digest()

    starts = range(0, size, _PIECE)
    if len(starts) == 1:  # and a thread that finds no memory to begin with is waited for for ever (CPython 3.11)
        return hashlib.sha256(piece(0)).hexdigest()
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return hashlib.sha256(b"".join(pool.map(piece, starts))).hexdigest()


def _keep(place: Path, digest: str) -> None:
    """Whole or not at all; a cache that cannot be written is done without."""
    beside = place.with_name(f"{place.name}.{os.getpid()}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(digest, encoding="ascii")
        os.replace(beside, place)
    except OSError:
        beside.unlink(missing_ok=True) if beside.parent.is_dir() else None
