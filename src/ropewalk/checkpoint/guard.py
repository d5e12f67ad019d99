"""The one guard before anything is deleted or replaced: only what ropewalk made is, and only when what replaces it is whole.

in   a path that would be written, and the paths that must stay
out  a sentence that refuses; or one directory in the place of another

**The mark.** Every directory that ropewalk writes holds `.ropewalk.json`, which lists what ropewalk put there: files by name, and what a
run adds to as it goes by pattern; a README with its hash, since people write into it; and digests of weights and of what decides beside them (digests.py). A directory without it, or with anything that it does not list, is not replaced, whatever was asked
for: it holds something of somebody's. A page says in its head who made it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fnmatch
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.processes import LOCK, is_gone, refuse_locked, token
from ropewalk.checkpoint.steps import model_step
from ropewalk.errors import UserError, read_text
from ropewalk.sentences import counted
from ropewalk.version import __version__

MARK = ".ropewalk.json"
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


def mark(directory: Path, holds: Iterable[str] | None = None, *, digests: dict[str, str] | None = None) -> None:
    """Note what ropewalk made in a directory: every file that lies there now, or these names and patterns (`fnmatch`).

    digests: of its files, by name (digests.py); if not given, those that its mark has.
    """
    if holds is None:
        files = (path for path in directory.rglob("*") if path.is_symlink() or path.is_file())
        holds = (listed_as(path, path.relative_to(directory).as_posix()) for path in files)
    digests = of_mark(directory, "digests") if digests is None else digests
    written = beside(directory / MARK)  # renamed, since the mark of a copied directory may be a link to another's
    written.write_text(_text(holds, digests), encoding="utf-8")
    os.replace(written, directory / MARK)


def mark_of(directory: Path, names: Collection[str]) -> str:
    """The text of a mark that knows these files of a directory and no others, as what was noted of them; empty where nothing was."""
    holds, digests = marked(directory), of_mark(directory, "digests")
    if holds is None or not isinstance(digests, dict):
        return ""
    of_these = {name: digest for name, digest in digests.items() if name in names}
    return _text((each for each in holds if not {each, each.partition(" ")[0]}.isdisjoint(names)), of_these)


def _text(holds: Iterable[str], digests: dict[str, str] | None) -> str:
    content: dict[str, Any] = {"made_by": f"ropewalk {__version__}", "holds": sorted({*holds} - {MARK})}
    return json.dumps(content | ({"digests": digests} if digests else {}), indent=1) + "\n"


def mark_again(directory: Path, name: str) -> None:
    """Note that a file of a marked directory was written anew; a directory without a mark stays without."""
    holds = marked(directory)
    if holds is not None:
        others = [each for each in holds if each.partition(" ")[0] != name]
        mark(directory, [*others, listed_as(directory / name, name)])


def marked(directory: Name) -> list[str] | None:
    """What a directory's mark lists; None without a mark that can be read."""
    holds = of_mark(directory, "holds")
    return holds if isinstance(holds, list) and all(isinstance(name, str) for name in holds) else None


def of_mark(directory: Name, entry: str) -> Any:
    """What a directory's mark has under a word; None if nothing, or if there is no mark that can be read."""
    try:
        return json.loads(read_text(Path(directory, MARK)))[entry]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def listed_as(path: Name, name: str) -> str:
    """How a mark lists a file that is called `name` in its directory: a page that people write into with its hash, so that theirs is theirs."""
    if not name.endswith(".md") or not os.path.isfile(path):
        return name
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"
    return name


def is_listed(name: str, holds: Iterable[str]) -> bool:
    """Whether a mark's list has this name (a path below the directory), by itself or by a pattern."""
    return any(name == each or ("*" in each and fnmatch.fnmatchcase(name, each)) for each in holds)


def is_free(out: Name) -> bool:
    """Whether nothing would be lost by writing here: nothing lies there, or a directory that holds no file but ropewalk's own notes."""
    out = os.path.realpath(out)
    return not os.path.lexists(out) or (os.path.isdir(out) and next(others(out, []), None) is None)


def others(directory: Name, holds: list[str] | None = None, below: str = "") -> Iterator[str]:
    """The paths of what lies in a directory and is not in its mark's list, or in `holds`; what has a mark of its own answers for itself."""
    if holds is None or below:
        own = marked(directory)
        if own is not None and holds is not None and not is_listed(below + MARK, holds):
            yield os.fspath(directory)
            return
        holds, below = (holds or [], below) if own is None else (own, "")
    for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
        if entry.name in (MARK, LOCK) or _LEFTOVER.fullmatch(entry.name):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from others(entry.path, holds, f"{below}{entry.name}/")
        elif not is_listed(listed_as(entry.path, below + entry.name), holds):
            yield entry.path


def refuse_unreadable(path: Name) -> None:
    """Models lie under names that every reader takes.

    Raises:
        UserError: the path is not UTF-8, which safetensors and tokenizers cannot open.
    """
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"readers of models open no path that is not UTF-8, such as {os.fspath(path)!a}; rename it"
        ) from None


#: The model that comes with ropewalk, by the name that commands take it by.
EMBEDDED = "hemp"


def refuse_existing(out: Name, *, overwrite: bool = False, inputs: Iterable[Name] = ()) -> None:
    """The rule of every `--out` that is a directory: what exists is replaced only if asked for, and then only if ropewalk made all of it.

    Args:
        inputs: what the command reads: none of it may lie in `out`. The current and the home directory never may.

    Raises:
        UserError: it exists and may not be replaced, or a run is writing it.
    """
    if os.path.normpath(out) == EMBEDDED:
        raise UserError(
            f"{EMBEDDED} names the embedded model in every command, and what was written there could not be named; choose another --out"
        )
    refuse_unreadable(os.path.abspath(out))
    refuse_locked(out)
    if is_free(out):
        return
    if not overwrite:
        step = model_step(Path(out))
        run = f" the finished run that it holds ({counted(step, 'step')})" if step else ""
        way_out = _way_out(
            lambda: refuse_existing(out, overwrite=True, inputs=inputs), "--overwrite --yes" if run else "--overwrite"
        )
        raise UserError(f"{out} exists and ropewalk does not overwrite{run}; {way_out}")
    refuse_to_lose_home(out)
    refuse_to_lose(out, inputs)
    if not os.path.isdir(out):
        raise UserError(
            f"--overwrite replaces a directory that ropewalk made, but {out} is a file; choose another --out"
        )
    holds = marked(out)
    if holds is None:
        raise UserError(
            f"--overwrite replaces only what ropewalk made, and {out} has no {MARK} to say so (an earlier version, another tool or "
            "you made it); choose another --out, or delete it yourself"
        )
    if (other := next(others(out, holds), None)) is not None:
        raise UserError(
            f"--overwrite replaces only what ropewalk made, and it did not make {other}; move that elsewhere, or choose "
            "another --out"
        )


def refuse_existing_file(out: Name, made_by: bytes, *, overwrite: bool = False, inputs: Iterable[Name] = ()) -> None:
    """`refuse_existing` for an `--out` that is one file; `made_by` stands in the first or last bytes of such a file if ropewalk made it."""
    if not os.path.lexists(out):
        return
    if not overwrite:
        way_out = _way_out(lambda: refuse_existing_file(out, made_by, overwrite=True, inputs=inputs), "--overwrite")
        raise UserError(f"{out} exists and ropewalk does not overwrite; {way_out}")
    refuse_to_lose(out, inputs)
    if not os.path.isfile(out) or made_by not in _ends(out):
        raise UserError(
            f"--overwrite replaces only what ropewalk made, and {out} is something else; choose another --out, or delete it yourself"
        )


def _way_out(ask: Callable[[], None], option: str) -> str:
    """What is offered where something exists: the option that replaces it only if that would not be refused in turn."""
    with contextlib.suppress(UserError):
        ask()
        return f"choose another --out or add {option}"
    return "choose another --out"


def _ends(path: Name) -> bytes:
    with open(path, "rb") as file:
        head = file.read(4096)
        file.seek(max(0, os.path.getsize(path) - 128))
        return head + b"\n" + file.read()


def refuse_to_lose(out: Name, kept: Iterable[Name]) -> None:
    """Replacing deletes: refuse to replace what is, or holds, something that must stay.

    Compared by what the file system says is the same, so that no other spelling, link or mount hides it.

    Args:
        out: what would be replaced.
        kept: paths, which need not exist; of a directory the files that it links to, too.

    Raises:
        UserError: the first of them that would be gone.
    """
    for path in kept:
        for place in (path, *_links_in(path)) if os.path.lexists(path) else ():
            _refuse_above(out, place, path)


def refuse_to_lose_home(out: Name) -> None:
    """`refuse_to_lose` for the current and the home directory. Where their links lead is not theirs: `out` may be such a link, to a larger disk."""
    for path in (os.getcwd(), os.path.expanduser("~")):
        _refuse_above(out, path, path)


def _refuse_above(out: Name, place: Name, path: Name) -> None:
    place = Path(os.path.realpath(place))
    if os.path.exists(out) and any(
        os.path.exists(part) and os.path.samefile(part, out) for part in (place, *place.parents)
    ):
        raise UserError(f"all of {out} would be replaced, and with it {path}; choose another --out")


def _links_in(path: Name) -> Iterator[Path]:
    """Where the links of a directory lead: a model may be made of links to another's files."""
    with contextlib.suppress(OSError):  # no directory, or one that cannot be looked into
        yield from (Path(os.path.realpath(entry.path)) for entry in os.scandir(path) if entry.is_symlink())


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
