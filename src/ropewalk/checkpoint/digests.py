"""A hash of a large file that is computed once, however often it is asked for; and what the mark of a model notes of its files.

in   a file; a directory of a model
out  its digest, from the cache where a file of that inode, size and dates was hashed before; the digests that a mark should note

Weights are tens of gigabytes; hashed in pieces by several threads they take seconds, and the next time nothing. The cache goes by a file's
dates, which a damaged disk leaves as they are: whoever looks for damage asks for `digest_now`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from ropewalk.checkpoint import marks
from ropewalk.checkpoint.cache import cache_directory
from ropewalk.checkpoint.links import files_below
from ropewalk.errors import read_text

_PIECE = 1 << 24
#: Seconds. A file written within them of being hashed may be written again under the same date, so it is not kept (git has the same rule).
_RECENT = 2.0
T = TypeVar("T")
R = TypeVar("R")
#: Bytes of weights that are read without being asked for: what a model of 8B holds in bfloat16, half a minute on two cores.
READ_UNASKED = 16 * 2**30
_WEIGHTS = (".safetensors", ".gguf")
#: Of what decides beside weights: a fingerprint has the config as it was parsed, and no adapter.
PARSED = ("config.json", "adapter_config.json")
_DECIDING = (*PARSED, "generation_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")
#: What the name of a file that `doctor --fix` replaced goes on with, before a number.
BEFORE_FIX = ".before-fix-"
_DECIDING_PREFIXES, _DECIDING_SUFFIXES = (
    ("tokenizer", "vocab", "chat_template", "spiece"),
    (".jinja", ".tiktoken", ".py"),
)


def digest_of(file: Path) -> str:
    """The SHA-256 of the SHA-256s of a file's pieces of 16 MiB."""
    status = file.stat()
    kept = _place(status)
    if known := _known(kept):
        return known
    digest = _hashed(file, status.st_size)
    if time.time() - status.st_mtime > _RECENT and file.stat().st_ctime_ns == status.st_ctime_ns:
        _keep(kept, digest)
    return digest


def digest_now(file: Path) -> str:
    """As `digest_of`, of what is read now, whatever the cache has."""
    return _hashed(file, file.stat().st_size)


def decides(name: str) -> bool:
    """Whether a file of this name, beside the weights, can change what a model says."""
    deciding = name in _DECIDING or name.startswith(_DECIDING_PREFIXES) or name.endswith(_DECIDING_SUFFIXES)
    return deciding and BEFORE_FIX not in name


def weights_in(directory: Path) -> list[Path]:
    """The files of weights in a directory and below it, but for what has a mark of its own."""
    return [path for path in _files_in(directory) if path.suffix in _WEIGHTS]


def _files_in(directory: Path) -> list[Path]:
    """The files of a directory and below it, but for what has a mark of its own."""
    files = files_below(directory)
    marked = {path.parent for path in files if path.name == marks.MARK} - {directory}
    return [path for path in files if marked.isdisjoint(path.parents)]


def noted_digests(directory: Path) -> dict[str, str]:
    """The digest of each file of weights, and of what decides beside them, as its mark notes it since it was written, by its path below the directory.

    A part of a model, its adapter, has no mark of its own: the mark above it has those.
    """
    place, below = _marked_above(directory)
    noted = marks.of_mark(place, "digests")
    words = noted.items() if isinstance(noted, dict) else ()
    return {name.removeprefix(below): word for name, word in words if name.startswith(below) and isinstance(word, str)}


def _marked_above(directory: Path) -> tuple[Path, str]:
    """Where the mark of a directory lies, and what its names begin with there."""
    directory = Path(os.path.abspath(directory))
    is_marked = (directory / marks.MARK).is_file()
    return (directory, "") if is_marked else (directory.parent, f"{directory.name}/")


def added_since(directory: Path) -> list[str]:
    """The files beside weights that can change what a model says and came to a directory later than its mark, by their paths below it.

    None where the mark notes no such file, as that of an earlier version or of an unfinished run. A checkpoint below is another model.
    """
    noted = noted_digests(directory)
    if not any(decides(Path(name).name) for name in noted):
        return []
    files = [path for path in _files_in(directory) if decides(path.name)]
    models = {path.parent for path in files if path.name == "config.json"} - {directory}
    return [
        name
        for path in files
        if models.isdisjoint(path.parents) and (name := path.relative_to(directory).as_posix()) not in noted
    ]


def note_again(directory: Path, names: Iterable[str]) -> None:
    """Note these files of a directory as they are now, among those whose digests its mark notes; what is gone is noted no more."""
    place, below = _marked_above(directory)
    noted, holds = noted_digests(place), marks.marked(place)
    for name in names:
        noted.pop(below + name, None)
        if (directory / name).is_file():
            noted[below + name] = digest_now(directory / name)
    if holds is not None:
        marks.mark(place, holds, digests=noted)


def to_note(directory: Path, sources: Iterable[str | os.PathLike[str]] = ()) -> dict[str, str]:
    """The digest of each file of weights, and of what decides beside them, by its path below the directory, for the mark to note.

    A link to a file of one of the `sources` has what was noted when that was written: were it read again, damage from before would be
    noted as right. Other links are read only if that is quick, since the files that they lead to are not what ropewalk wrote.
    """
    written = {}
    for source in map(Path, sources):
        for name, digest in noted_digests(source).items():
            with contextlib.suppress(OSError):  # it is gone
                written[_inode(source / name)] = digest
    files, digests = _files_in(directory), noted_digests(directory)
    weights = [path for path in files if path.suffix in _WEIGHTS]
    is_quick = sum(path.stat().st_size for path in weights) <= READ_UNASKED
    for path in weights:
        name, status = path.relative_to(directory).as_posix(), path.stat()
        if name in digests:  # it was saved into a directory that was marked then
            continue
        if _inode(path) in written:
            digests[name] = written[_inode(path)]
        elif is_quick or status.st_nlink == 1 or _known(_place(status)):
            digests[name] = digest_of(path)
    return digests | {path.relative_to(directory).as_posix(): digest_of(path) for path in files if decides(path.name)}


def _inode(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_dev, status.st_ino


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


def _known(place: Path) -> str:
    """The digest that lies in the cache; empty if there is none."""
    try:
        known = read_text(place)
    except (OSError, ValueError):
        return ""
    return known if len(known) == 64 else ""


def _hashed(file: Path, size: int) -> str:
    def piece(start: int) -> bytes:
        with open(file, "rb") as stream:
            stream.seek(start)
            return hashlib.sha256(stream.read(_PIECE)).digest()

    return hashlib.sha256(b"".join(by_threads(piece, range(0, size, _PIECE)))).hexdigest()


def by_threads(read: Callable[[T], R], pieces: Sequence[T]) -> list[R]:
    """What is read of each piece of a file, in order, by several threads at a time."""
    if len(pieces) == 1:  # and a thread that finds no memory to begin with is waited for for ever (CPython 3.11)
        return [read(pieces[0])]
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(read, pieces))


def _keep(place: Path, digest: str) -> None:
    """Whole or not at all; a cache that cannot be written is done without."""
    beside = place.with_name(f"{place.name}.{os.getpid()}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(digest, encoding="ascii")
        os.replace(beside, place)
    except OSError:
        beside.unlink(missing_ok=True) if beside.parent.is_dir() else None
