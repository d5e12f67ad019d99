"""Files and directories: JSON, links, directories that are whole or absent, and what must never be overwritten.

in   paths
out  files; or a sentence that says which path is wrong and how
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ropewalk.checkpoint import digests, guard, half_written, marks
from ropewalk.checkpoint.file_limit import refuse_above_limit
from ropewalk.checkpoint.guard import refuse_existing, refuse_to_lose
from ropewalk.checkpoint.processes import one_at_a_time
from ropewalk.checkpoint.replacement import refuse_unfinished
from ropewalk.errors import UserError, read_text, told

__all__ = ["refuse_existing", "refuse_to_lose"]  # of the guard, for those who write
#: By this file an adapter is known.
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
#: How the type of ropewalk's own adapters begins, which peft does not know on purpose.
OWN_ADAPTER = "ROPEWALK_LORA"
#: Bytes that a disk must have free before anything is measured or trained.
_PROBE = 1 << 16


def read_config(directory: Path) -> dict[str, Any]:
    """The dictionary of a checkpoint's config.json."""
    refuse_unfinished(directory)
    if is_adapter(directory) and not (directory / "config.json").exists():
        raise no_adapter(directory)
    return read_json(directory / "config.json", what="a model directory holds a config.json")


def is_adapter(directory: Path) -> bool:
    """Whether an adapter lies there, peft's or ropewalk's own."""
    return (directory / ADAPTER_CONFIG).exists()


def is_own_adapter(about: dict[str, Any]) -> bool:
    """Whether an adapter_config.json is of the type that `ropewalk train` writes."""
    return str(about.get("peft_type")).startswith(OWN_ADAPTER)


def no_adapter(directory: Path) -> UserError:
    """What is said where a whole model is needed; of an adapter of ours without its config, which cannot be merged either, what it lacks."""
    about = read_json(directory / ADAPTER_CONFIG, what=f"an adapter has an {ADAPTER_CONFIG}")
    if not (directory / "config.json").exists() and is_own_adapter(about):
        return UserError(without_its_config(directory))
    return UserError(
        f"{directory} is an adapter and no whole model; merge it first: ropewalk merge {shlex.quote(str(directory))} --out …"
    )


def without_its_config(adapter: Path) -> str:
    """The sentence for an adapter of `ropewalk train` of which nobody can tell the rotation that it was trained with."""
    return (
        f"an adapter of `ropewalk train` carries the config of the model it was trained on, and {adapter / 'config.json'} is missing; take the "
        "adapter directory as it was written"
    )


def strange_config(name: str) -> AbstractContextManager[None]:
    """Where a config.json is looked into: values that it cannot have become a sentence, whatever Python raises over them."""
    return told(f"the config.json of {name} cannot be read as a model's config", "mend it, or fetch it again")


def read_json(path: Path, *, what: str) -> dict[str, Any]:
    """A JSON object from a file; `what` is the rule that a missing or broken file breaks."""
    with told(f"{what}, but {path} cannot be read", "fetch it again", (ValueError, OSError, RecursionError)):
        try:
            content = json.loads(read_text(path, what), object_pairs_hook=partial(_unique, path))
        except FileNotFoundError:
            raise UserError(f"{what}, but {path} does not exist; check the path") from None
    if not isinstance(content, dict):
        raise UserError(f"{what}, but {path} holds no JSON object; fetch it again")
    return content


def _unique(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, in which Python would take the last of two values without a word, and other programs the first."""
    content = dict(pairs)
    for key, value in pairs:
        if value is not content[key] and value != content[key]:  # nan is not equal to itself
            raise UserError(
                f"{path} names {key} twice, {value!r:.60} and {content[key]!r:.60}; take out the one that is wrong"
            )
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """A JSON object as a file, indented for people to read."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def link_or_copy(source: Path, target: Path) -> None:
    """Put a file into another directory without reading it: a hard link where the file system allows, a copy elsewhere.

    A hard link is safe from ropewalk, whose safetensors (from 0.8) saves beside and renames, so that writing a new model over the link
    leaves the original alone (tests/model/test_extend.py). It is not from every other program: see docs/decisions/066.
    """
    source = source.resolve()  # a hub cache holds symbolic links, which would break when the cache is cleaned
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES, errno.ENOSYS):
            raise
        refuse_above_limit(str(target.name), source.stat().st_size)
        shutil.copyfile(source, target)


@contextlib.contextmanager
def whole_directory(out: str | Path, *, overwrite: bool = False, inputs: Iterable[str | Path] = ()) -> Iterator[Path]:
    """A directory that appears whole or not at all: write into what this yields; on success it is marked as ropewalk's and put at `out`.

    An old `out` gives way only after the new one is complete; an error leaves it as it was, and leaves nothing else. What killed
    processes left beside it is swept first.

    Raises:
        UserError: the guard refuses `out` (guard.py); the disk is full; no permission.
    """
    place = Path(os.path.realpath(out))
    half_written.sweep(place.parent, place)
    guard.refuse_existing(out, overwrite=overwrite, inputs=inputs)
    guard.refuse_to_lose_home(place)  # an empty one would be replaced too
    # Asked again when it takes its place: hours may have passed.
    with whole_directory_of_ours(
        place, called=out, ask=lambda: guard.refuse_existing(out, overwrite=overwrite, inputs=inputs), sources=inputs
    ) as beside:
        yield beside


@contextlib.contextmanager
def whole_directory_of_ours(
    place: Path,
    *,
    called: str | Path | None = None,
    ask: Callable[[], None] = lambda: None,
    sources: Iterable[str | Path] | None = (),
) -> Iterator[Path]:
    """`whole_directory` at a place whose name alone says that it is ropewalk's (in a cache, below a run), so that no guard is asked.

    called: what a sentence calls it. ask: the guard, at the last moment, so that of two processes one alone finds nothing there.
    sources: directories whose weights may be linked in it, for the digests that the mark notes (digests.py); None: those of a model that was
    saved into it are enough.
    """
    beside, known = half_written.beside(place), half_written.known_as(called or place)
    missing = [path for path in place.parents if not path.exists()]
    try:
        with disk_errors(called or place):
            beside.mkdir(parents=True)
            yield beside
            _share(beside)
            marks.mark(beside, digests=None if sources is None else digests.to_note(beside, sources))
            _sync(beside)
            with one_at_a_time(place.parent):
                ask()
                half_written.replace(beside, place)
            _sync_one(place.parent)
    except UserError as error:
        sentence = str(error).replace(str(beside), str(known))  # nobody but us knows the name beside
        raise (error if sentence == str(error) else UserError(sentence)) from error.__cause__
    finally:
        half_written.remove(beside)
        for path in () if place.exists() else missing:
            with contextlib.suppress(OSError):  # not empty: somebody else's by now
                path.rmdir()


def write_whole(out: Path, content: str | bytes, *, ask: Callable[[], None] = lambda: None) -> None:
    """A file that appears whole or not at all; `ask` asks the guard at the last moment. What is no Unicode in a text is written as `\\udcff`."""
    place = Path(os.path.realpath(out))
    if place.is_symlink():
        raise UserError(f"{out} could not be written: its links lead in a circle; choose another place")
    half_written.sweep(place.parent, place)
    beside = half_written.beside(place)
    try:
        with disk_errors(out):
            place.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                beside.write_bytes(content)
            else:
                beside.write_text(content, encoding="utf-8", errors="backslashreplace")
            _sync_one(beside)
            with one_at_a_time(place.parent):
                ask()
                half_written.replace(beside, place)
    finally:
        half_written.remove(beside)


def refuse_unwritable(out: str | Path) -> None:
    """Whether a directory can be made at `out`, asked before hours are spent on what goes into it.

    Raises:
        UserError: it is a file or lies in one, or nothing can be written where it is or would be.
    """
    out = Path(out)
    nearest = next(path for path in (out.absolute(), *out.absolute().parents) if os.path.exists(path))
    if not nearest.is_dir():
        raise UserError(f"--out is a directory, but {nearest} is a file; choose another --out")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(
            f"{out} could not be written: {nearest} is read-only or belongs to somebody else; choose another --out"
        )
    refuse_full(out, nearest)


def refuse_full(out: str | Path, directory: Path) -> None:
    """Whether the file system of a directory takes anything at all: a small file is written there, and removed.

    Raises:
        UserError: `out` could not be written, and why.
    """
    half_written.sweep(directory)  # of a process that was killed just here, too
    probe = half_written.beside(directory / "probe")
    try:
        with disk_errors(out):
            probe.write_bytes(bytes(_PROBE))
            _sync_one(probe)
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


@contextlib.contextmanager
def disk_errors(out: str | Path) -> Iterator[None]:
    """Turn an error of the disk into a sentence: full, read-only, no permission."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reasons = {
            errno.ENOSPC: "the disk is full; free some space or choose another place",
            errno.EDQUOT: "the disk quota is used up; free some space or choose another place",
            errno.EFBIG: "a file grew over the size limit set for this process; raise it or choose another place",
            errno.EROFS: "the file system is read-only; choose another place",
            errno.EACCES: "there is no permission to write there; choose another place",
            errno.ENOTDIR: "a part of that path is a file and no directory; choose another place",
            errno.EEXIST: "a part of that path is a file and no directory; choose another place",
            errno.ENAMETOOLONG: "its name is longer than the file system takes; choose a shorter one",
            errno.ELOOP: "its links lead in a circle; choose another place",
            errno.EBUSY: "something is mounted there, which cannot be replaced; name a directory in it",
            errno.EPERM: "the file system does not allow it; choose another place",
            errno.ENOTEMPTY: "something else was written there meanwhile; choose another place",
            errno.EIO: "the disk reports an error; choose another place",
            errno.ENOENT: "no file or directory can be made there; choose another place",
        }
        number = system_error(error)
        if number not in reasons or (number == errno.ENOENT and not _is_near(error, out)):
            raise
        raise UserError(f"{half_written.known_as(out)} could not be written: {reasons[number]}") from error


def _is_near(error: Exception, out: str | Path) -> bool:
    """Whether what was not found lies where `out` would; anything else that is missing is another matter."""
    return str(getattr(error, "filename", "")).startswith(os.path.realpath(Path(out).parent))


def system_error(error: BaseException | None) -> int | None:
    """The system's number of an error, if it has one; safetensors writes in Rust and passes that on as text: "… (os error 28)"."""
    if isinstance(error, OSError):
        return error.errno
    number = re.search(r"\(os error (\d+)\)", str(error))
    return int(number[1]) if number else None


def _share(directory: Path) -> None:
    """Give weights the directory's read and write permissions: safetensors (0.8) makes its files private whatever the umask."""
    for path in directory.rglob("*.safetensors"):
        if path.stat().st_nlink == 1:  # a linked file is the original's too, and its owner's to open up
            path.chmod(directory.stat().st_mode & 0o666)


def _sync(directory: Path) -> None:
    """Force a directory's files to disk, so that after a crash the renamed directory is not full of holes."""
    for path in [*directory.rglob("*"), directory]:
        _sync_one(path)


def _sync_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
