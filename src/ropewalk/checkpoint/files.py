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
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import platformdirs
from safetensors import SafetensorError

from ropewalk.errors import UserError, refuse_irregular, told


def cache_directory() -> Path:
    """Where what can be made again is kept, tokenised corpora and hashes of weights: $ROPEWALK_CACHE, or the user's cache directory (on Linux $XDG_CACHE_HOME or ~/.cache)."""
    from_environment = os.environ.get("ROPEWALK_CACHE")
    return Path(from_environment) if from_environment else platformdirs.user_cache_path("ropewalk", appauthor=False)


def read_config(directory: Path) -> dict[str, Any]:
    """The dictionary of a checkpoint's config.json."""
    return read_json(directory / "config.json", what="a model directory holds a config.json")


def read_json(path: Path, *, what: str) -> dict[str, Any]:
    """A JSON object from a file; `what` is the rule that a missing or broken file breaks."""
    refuse_irregular(path, what)
    with told(f"{what}, but {path} cannot be read", "fetch it again", (ValueError, OSError, RecursionError)):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{what}, but {path} does not exist; check the path") from None
    if not isinstance(content, dict):
        raise UserError(f"{what}, but {path} holds no JSON object; fetch it again")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """A JSON object as a file, indented for people to read."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def link_or_copy(source: Path, target: Path) -> None:
    """Put a file into another directory without reading it: a hard link where the file system allows, a copy elsewhere.

    A hard link is safe here because safetensors (from 0.8) saves beside and renames, so writing a new model over the link
    leaves the original alone (tests/model/test_extend.py).
    """
    source = source.resolve()  # a hub cache holds symbolic links, which would break when the cache is cleaned
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.EACCES, errno.ENOSYS):
            raise
        shutil.copyfile(source, target)


@contextlib.contextmanager
def whole_directory(out: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A directory that appears whole or not at all: write into what this yields; on success it is renamed to `out`.

    An old `out` gives way only after the new one is complete; an error leaves it as it was, and leaves nothing else.

    Raises:
        UserError: `out` exists and `overwrite` was not asked for; the disk is full; no permission.
    """
    out = Path(out)
    _refuse_unasked(out, overwrite)
    beside = out.absolute().parent / f".{out.name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        with disk_errors(out):
            beside.mkdir(parents=True)
            yield beside
            _share(beside)
            _sync(beside)
            _replace(beside, out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


#: One of these lies in whatever ropewalk writes as a directory for a user: a model, a run, a suite.
_MARKS = ("config.json", "records.jsonl", "stages.jsonl", "checkpoints")


def refuse_existing(out: str | Path, *, overwrite: bool = False) -> None:
    """The rule of every `--out`: what exists is never overwritten unless asked for; even then it must be a model or a run, and neither
    the current directory nor the home directory may lie in it.

    Raises:
        UserError: it exists and may not be replaced.
    """
    _refuse_unasked(out, overwrite)
    if os.path.isdir(out) and os.listdir(out) and not any(os.path.exists(os.path.join(out, mark)) for mark in _MARKS):
        raise UserError(
            f"--overwrite replaces a model or a run, but {out} holds neither (no {', '.join(_MARKS[:2])}, …); "
            "choose another --out, or delete it yourself"
        )


def _refuse_unasked(out: str | Path, overwrite: bool) -> None:
    if not os.path.exists(out):
        return
    if not overwrite:
        raise UserError(f"{out} exists and ropewalk does not overwrite; choose another --out or add --overwrite")
    refuse_to_lose(out, [os.getcwd(), os.path.expanduser("~")])


def refuse_to_lose(out: str | Path, kept: Iterable[str | os.PathLike[str]]) -> None:
    """Replacing a directory deletes what is in it: refuse one that is, or holds, something that must stay.

    Args:
        out: what would be replaced.
        kept: paths, which need not exist.

    Raises:
        UserError: the first of them that would be gone.
    """
    for path in kept:
        if os.path.exists(path) and Path(path).resolve().is_relative_to(Path(out).resolve()):
            raise UserError(f"--overwrite deletes all of {out}, and with it {path}; choose another --out")


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
        }
        number = error.errno if isinstance(error, OSError) else _os_error(error)
        if number not in reasons:
            raise
        raise UserError(f"{out} could not be written: {reasons[number]}") from error


def _os_error(error: SafetensorError) -> int | None:
    """safetensors writes in Rust and passes the system's error on as text: "… (os error 28)"."""
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
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _replace(new: Path, out: Path) -> None:
    """Rename `new` to `out`; an old `out` is put back if that fails, and deleted after it."""
    old = new.with_suffix(".old")
    if out.exists():
        os.rename(out, old)
    try:
        os.rename(new, out)
    except OSError:
        if old.exists():
            os.rename(old, out)
        raise
    if old.is_dir():
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.unlink(missing_ok=True)
