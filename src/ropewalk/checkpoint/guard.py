"""The one guard before anything is deleted or replaced: only what ropewalk made is, and only when what replaces it is whole.

in   a path that would be written, and the paths that must stay
out  a sentence that refuses

What ropewalk made is known by the mark of a directory (marks.py); a page says in its head who made it. half_written.py replaces.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ropewalk.checkpoint.half_written import Name
from ropewalk.checkpoint.marks import MARK, is_free, marked, others
from ropewalk.checkpoint.processes import refuse_locked
from ropewalk.checkpoint.steps import model_step
from ropewalk.errors import UserError
from ropewalk.sentences import counted


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
