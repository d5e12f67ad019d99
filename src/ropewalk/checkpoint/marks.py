"""The mark: how a directory says what in it is ropewalk's, and which files in it are somebody's own.

in   a directory
out  `.ropewalk.json` in it; what it lists, and the paths that it does not

Every directory that ropewalk writes holds one, which lists what ropewalk put there: files by name, and what a run adds to as it goes by pattern;
a README with its hash, since people write into it; and digests of weights and of what decides beside them (digests.py). A directory without it,
or with anything that it does not list, is not replaced, whatever was asked for: it holds something of somebody's (guard.py).
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.half_written import Name, beside, is_half_written
from ropewalk.checkpoint.processes import LOCK
from ropewalk.errors import read_text
from ropewalk.version import __version__

MARK = ".ropewalk.json"


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
        if entry.name in (MARK, LOCK) or is_half_written(entry.name):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from others(entry.path, holds, f"{below}{entry.name}/")
        elif not is_listed(listed_as(entry.path, below + entry.name), holds):
            yield entry.path
