"""Which process writes something, and whether it still runs: names of what is half written, and locks on directories.

in   a directory
out  a lock that is free again when its process ends, however it ends; a name that tells whose something is
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import socket
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from ropewalk.errors import UserError, refuse_irregular

try:
    import fcntl
except ImportError:  # Windows has no locks of this kind: there the lock file's own words count
    fcntl = None

#: The file by which a run holds its directory.
LOCK = ".ropewalk.lock"
#: Locks of this process, by the lock file's real path: the system's own do not tell one thread from another.
_held: set[str] = set()
_BUSY = (errno.EACCES, errno.EAGAIN)
#: Bytes of a file's name, so that there is room for its lock's.
_LONGEST = 200


@contextlib.contextmanager
def one_at_a_time(directory: Path) -> Iterator[None]:
    """For the instant in which a result takes its place in a directory: what is asked in the block still holds when it ends.

    Waits for seconds at most, since the lock may be somebody's else; without one where directories cannot be locked.
    """
    handle = None
    with contextlib.suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
    try:
        if handle is not None and fcntl is not None:
            for _ in range(500):
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError as error:
                    if error.errno not in _BUSY:
                        break
                    time.sleep(0.01)
        yield
    finally:
        if handle is not None:
            os.close(handle)


def token() -> str:
    """A name for this process that no other has had or will have: machine, number, and when it began."""
    return f"{_host()}-{os.getpid()}-{_began(os.getpid())}"


def is_gone(name: str) -> bool:
    """Whether the process of that `token` surely runs no more. One on another machine may, for all that can be seen from here."""
    host, pid, began = name.split("-")
    return host == _host() and _began(int(pid)) != began


def _host() -> str:
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def _began(pid: int) -> str:
    """When a process began, in ticks since the machine did, since numbers are used again; "gone" if none has this number."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return "gone" if fields[0] in (b"Z", b"X") else fields[19].decode()
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "gone"
    except OSError:  # it runs, and is somebody else's
        pass
    return "0"


def _lock_of(place: str | os.PathLike[str]) -> Path:
    """The lock file of a directory, in it; of a single file, beside it."""
    place = Path(place)
    if place.is_dir():
        return place / LOCK
    name = place.name if len(os.fsencode(place.name)) <= _LONGEST else f"{zlib.crc32(os.fsencode(place.name)):08x}"
    return place.with_name(f".{name}{LOCK}")


@contextlib.contextmanager
def locked(place: Path) -> Iterator[None]:
    """Hold a directory, which must exist, or a file, while the block runs. A lock whose process is gone counts for nothing.

    Raises:
        UserError: another process holds it; which one.
    """
    path = _lock_of(place)
    handle = _take(path, place)
    key = os.path.realpath(path)
    _held.add(key)
    try:
        yield
    finally:
        _held.discard(key)
        _forget(path, handle)


def refuse_locked(place: str | os.PathLike[str]) -> None:
    """Refuse a directory into which a run writes just now, or a file that one writes; what does not exist is free.

    Raises:
        UserError: which process holds it.
    """
    path = _lock_of(place)
    if os.path.realpath(path) in _held:  # not opened: closing a file ends this process's own lock on it
        raise _busy(path, place)
    with contextlib.suppress(OSError):  # no such file, or none that may be opened
        handle = _opened(path)
        try:
            if not _got(handle, path):
                raise _busy(path, place)
        finally:
            os.close(handle)


def _take(path: Path, place: Path) -> int:
    """The lock file, open and locked."""
    while True:
        refuse_locked(place)
        handle = _opened(path, os.O_CREAT)
        if not _got(handle, path):
            os.close(handle)
            raise _busy(path, place)
        # Whoever held it before may have removed the file after it was opened here: a lock on that is none.
        if os.path.exists(path) and os.path.samestat(os.fstat(handle), os.stat(path)):
            break
        os.close(handle)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    about = {"process": token(), "pid": os.getpid(), "host": socket.gethostname(), "since": now}
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(about).encode(), 0)
    return handle


def _opened(path: Path, flags: int = 0) -> int:
    """The lock file itself, which is written into: never what a link of its name leads to.

    Raises:
        UserError: it is a link, a directory, a pipe or a device.
    """
    refuse_irregular(path, "a run holds its directory by a lock file", follow=False)
    return os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | flags, 0o666)


def _got(handle: int, path: Path) -> bool:
    """Lock an open file if nobody else has; on file systems without locks, if the process named in it is gone."""
    if fcntl is not None:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno in _BUSY:
                return False
    holder = _about(path).get("process")
    return not isinstance(holder, str) or is_gone(holder)


def _forget(path: Path, handle: int) -> None:
    """Remove the lock file if it is still the one that is held (its directory may have given way to another), then let go."""
    with contextlib.suppress(OSError):
        if os.path.samestat(os.fstat(handle), os.stat(path)):
            os.unlink(path)
    os.close(handle)


def _about(path: Path) -> dict[str, object]:
    try:
        about = json.loads(path.read_bytes() or b"{}")
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def _busy(path: Path, place: str | os.PathLike[str]) -> UserError:
    about = _about(path)
    whose = f"process {about.get('pid', 'unknown')} on {about.get('host', 'another machine')}"
    return UserError(
        f"{os.fspath(place)} is being written by {whose}, since {about.get('since', 'a moment ago')}; wait until it ends, or choose another --out"
    )
