"""The directory of a run that takes hours and can be killed: held by one process, and never the end of the run that lay there before.

in   `--out`, and whether to begin, to go on, or to replace
out  where to write

A run writes into `out`. One that is to replace another writes into `.OUT.new` beside it, and takes its place when it is finished, so
that the old one is there until the new one is whole; killed, it goes on from there.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ropewalk.checkpoint import guard, half_written, marks, replacement
from ropewalk.checkpoint.files import disk_errors, refuse_unwritable
from ropewalk.checkpoint.processes import locked, refuse_locked
from ropewalk.errors import UserError

_logger = logging.getLogger(__name__)


@contextlib.contextmanager
def run_directory(
    out: str | Path,
    *,
    holds: Sequence[str],
    signs: Sequence[str],
    overwrite: bool = False,
    go_on: bool = False,
    inputs: Iterable[str | Path] = (),
) -> Iterator[Path]:
    """Yield the directory to write into, made, marked and locked. If the block ends well, what it wrote lies at `out`.

    Of the processes that torchrun started the first alone calls it, and tells the others the place.

    Args:
        out: of the command.
        holds: what the run will write there, as names and patterns of the mark.
        signs: files of which a run that can go on has at least one; what has none is nobody's run.
        overwrite: replace what lies in `out`, if the guard allows it.
        go_on: with what lies in `out`, or with a replacement of it that was begun.
        inputs: what the run reads; see `refuse_existing`.

    Raises:
        UserError: another process writes there; the guard refuses; the disk does.
    """
    place = Path(os.path.realpath(out))
    guard.refuse_unreadable(place)
    if not place.name:
        raise UserError(f"--out is a directory of its own, and {out} is the root of all of them; name one below it")
    refuse_unwritable(out)
    refuse_locked(place)
    work = _work(out, place, signs, overwrite=overwrite, go_on=go_on, inputs=inputs)
    with disk_errors(out), _held(place, signs):
        with contextlib.nullcontext() if work == place else _held(work, signs):
            half_written.sweep(place.parent, place)
            half_written.sweep(work)
            if marks.is_free(work):
                marks.mark(work, holds)
            yield work
        if work != place:
            _take_the_place(work, place, inputs)


@contextlib.contextmanager
def _held(directory: Path, signs: Sequence[str]) -> Iterator[None]:
    """Made if it is not there, and locked. A run that ends before there was any sign of it leaves nothing."""
    is_new = not directory.exists()
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with locked(directory):
            yield
    finally:
        if is_new and not _has(directory, signs) and next(marks.others(directory), None) is None:
            half_written.remove(directory)


def _work(
    out: str | Path, place: Path, signs: Sequence[str], *, overwrite: bool, go_on: bool, inputs: Iterable[str | Path]
) -> Path:
    """Where the run is written; a replacement that is begun anew is empty."""
    begun = replacement.place_beside(place)
    pending = replacement.begun(place) is not None
    if pending:
        refuse_locked(begun)
    if go_on:
        if not pending:
            refuse_unlike(out, signs)
            return place
        _logger.info(replacement.taken_up(begun, out))
        return begun
    if pending and not overwrite:
        raise UserError(replacement.both(out))
    guard.refuse_existing(out, overwrite=overwrite, inputs=inputs)
    if pending:
        half_written.remove(begun)
    if marks.is_free(place):
        return place
    if not marks.is_free(begun):  # one that was killed before it was marked left no file
        raise UserError(f"a run that replaces {out} is written to {begun} first, which is taken; move that elsewhere")
    _logger.info(f"{out} is replaced when this run is finished; until then it is written to {begun}")
    return begun


def refuse_unlike(out: str | Path, signs: Sequence[str]) -> None:
    """A run goes on in a directory that holds one, whoever marked it; it never begins among somebody's files.

    Raises:
        UserError: what lies there is no run.
    """
    place = Path(os.path.realpath(out))
    if not marks.is_free(place) and marks.marked(place) is None and not _has(place, signs):
        raise UserError(
            f"{out} exists and holds no run to go on with (no {' or '.join(signs)}), and ropewalk does not write among other files; "
            "choose another --out"
        )


def _has(directory: Path, signs: Sequence[str]) -> bool:
    return any(next(directory.glob(sign), None) for sign in signs)


def _take_the_place(work: Path, place: Path, inputs: Iterable[str | Path]) -> None:
    try:
        guard.refuse_to_lose(place, inputs)
        for other in marks.others(place):
            raise UserError(f"ropewalk did not make {other}")
    except UserError as error:
        raise UserError(f"the run is finished and lies in {work}, but {error}; move it to where you want it") from None
    half_written.replace(work, place)
