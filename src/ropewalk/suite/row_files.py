"""The file of a row: whether it is whole and was asked for so; written from what training and measuring recorded.

in   a grid, one of its rows; the records of its making
out  `out/ROW.jsonl`, whole or absent
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import re
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.files import write_whole
from ropewalk.errors import UserError
from ropewalk.progress import is_first_process
from ropewalk.records import BOOKKEEPING, LeftOut, Step, read, to_line
from ropewalk.records.files import FIRST
from ropewalk.records.kinds import KINDS
from ropewalk.records.whole import ROWS, missing
from ropewalk.sentences import joined
from ropewalk.suite.digests import TEXTS
from ropewalk.suite.grid import Grid
from ropewalk.suite.row import Row, asked_of
from ropewalk.suite.row_command import command

_logger = logging.getLogger(__name__)
#: What a digest is of.
_WORDS = {
    "model": "weights",
    "data": "training data",
    "test": "test documents",
    "validation": "validation documents",
    "also": "further documents",
    "scores": "scores",
    "benchmarks": "benchmark files",
}
_ALIKE = "rows beside each other differ in method, factor, tokens, rate and seed alone; choose another --out"


def is_whole(grid: Grid, row: Row, out: Path) -> bool:
    """Whether a row lies there, with all that it was asked to measure; raises what `lack` does."""
    return not lack(grid, row, out)


def lack(grid: Grid, row: Row, out: Path) -> str:
    """Why a row that lies there is to be made again, or that none does; empty of a whole one.

    Raises:
        UserError: a file of its name is of another row, or of something else.
    """
    path = out / f"{row.name}.jsonl"
    if not path.exists():
        return "is not there"
    on_disk = asked_of(path)
    if on_disk is None:
        _refuse_other_lines(path)
        return "does not say what was asked for"
    asked = json.loads(json.dumps(grid.identity(row)))
    _refuse_other_content(path, on_disk, asked)
    if further := [name for name in asked.pop("measure") if name not in on_disk.get("measure", [])]:
        return f"was not asked for {joined(further)}"
    same = {"digests", *(name for name in _WORDS if _is_same_text(name, on_disk, asked))}
    for name in [name for name, value in asked.items() if name not in same and on_disk.get(name) != value]:
        raise UserError(f"{path} is a row with {name} {on_disk.get(name)}, and asked for is {asked[name]}: {_ALIKE}")
    return _lack(path.absolute(), path.stat().st_mtime_ns)


def _refuse_other_lines(path: Path) -> None:
    """What a row's file has left without a header is of the row, which is made again.

    Raises:
        UserError: whole lines of it are of something else: of another measurement, or no record; or nothing of it is of a record.
    """
    content, entries = path.read_bytes(), []
    for line in content.split(b"\n"):
        with contextlib.suppress(ValueError, RecursionError):  # cut, zeros, a message of some program
            entries.append(json.loads(line))
    kinds = {str(entry.get("kind")) for entry in entries if isinstance(entry, dict)}
    left = content.strip(b"\0 \t\r\n")
    is_of_row = kinds or FIRST + b'"' in left or FIRST.startswith(left)
    if not is_of_row or not kinds <= KINDS.keys():
        raise UserError(f"{path} is no row of an ablation; choose another --out, or move it")


@functools.cache  # a grid asks of each of its rows several times before it begins
def _lack(path: Path, changed: int) -> str:
    """What a row's file lacks, as it was at a time in nanoseconds. Rows of kinds that only a later version knows may be what was asked for."""
    records = read([path])
    unknown = records.left_out.unknown
    if records.left_out != LeftOut(unknown=unknown):
        return "has lines that cannot be read"
    if unknown and is_first_process():
        kinds = joined([f"{name} ({number})" for name, number in unknown.items()])
        _logger.warning(
            f"{path} has lines of kinds that this version does not know: {kinds}; the row counts without them"
        )
    return next(iter(missing(records.runs.values(), records.measurements, unknown.total()).values()), "")


def refuse_other_rows(grid: Grid, out: Path) -> None:
    """Rows of one directory are of one model, read the same texts and are trained in one mode, whichever rows are asked for now.

    Raises:
        UserError: one that lies there is of another model or mode, or read other texts, though names may agree.
    """
    on_disk = {path: asked for path in sorted(out.glob("*.jsonl")) if (asked := asked_of(path)) is not None}
    if on_disk:  # nothing is hashed for nothing
        asked = json.loads(json.dumps(grid.identity(next((row for row in grid.rows if row.tokens), grid.rows[0]))))
        for path, there in on_disk.items():
            _refuse_other_content(path, there, asked)
            modes = there.get("mode"), asked["mode"]  # none of rows that are not trained
            if None not in modes and modes[0] != modes[1]:
                raise UserError(f"{path} is a row with mode {modes[0]}, and asked for is {modes[1]}: {_ALIKE}")


def _refuse_other_content(path: Path, on_disk: dict[str, Any], asked: dict[str, Any]) -> None:
    """Texts by digest, where both rows have one, whatever their paths; else by name, as rows of earlier versions, which have no digests. A model by both."""
    for name in _WORDS:
        if _is_same_text(name, on_disk, asked):
            continue
        names = [_name_of_model(row) if name == "model" else row.get(name) for row in (on_disk, asked)]
        digests = [row.get("digests", {}).get(name) for row in (on_disk, asked)]
        if None not in names and names[0] != names[1]:
            raise UserError(f"{path} is a row with {name} {names[0]}, and asked for is {names[1]}: {_ALIKE}")
        if None not in digests and digests[0] != digests[1]:
            raise UserError(
                f"{path} is a row of other {_WORDS[name]} than asked for, though both are called {names[0]} (digest {digests[0]}, asked for is "
                f"{digests[1]}): {_ALIKE}"
            )


def _is_same_text(name: str, on_disk: dict[str, Any], asked: dict[str, Any]) -> bool:
    """Whether both rows read the same of a setting that names texts; False where no digest says so."""
    digests = [row.get("digests", {}).get(name) for row in (on_disk, asked)]
    return name in TEXTS and None not in digests and digests[0] == digests[1]


def _name_of_model(row: dict[str, Any]) -> str:
    return str(row.get("name", "")).rpartition("/")[0]


def write_row(grid: Grid, row: Row, records: Path, facts: dict[str, Any]) -> None:
    """The row's file: results without what they add up from, under headers that name the row and its command.

    But for that command, which has paths as they were given, nothing names a directory of this machine.
    """
    measured = [m for m in read([records]).measurements if not isinstance(m.row, BOOKKEEPING)]
    identity = grid.identity(row) | facts | {ROWS: len(measured)}
    lines, said = [], set()
    for measurement in measured:
        run = measurement.run
        if run.id not in said:
            said.add(run.id)
            kept = {
                name: value for name, value in run.settings.items() if name not in ("model", "data", "out", "digests")
            }
            header = dataclasses.replace(
                run,
                command="",
                model=dataclasses.replace(run.model, name=identity["name"]),
                settings={"row": identity} | (kept if isinstance(measurement.row, Step) else run.settings),
            )
            shortened = _without(grid.places(), to_line(header))
            lines.append(shortened.replace('"command":""', f'"command":{json.dumps(command(grid, row))}', 1))
        lines.append(_without(grid.places(), to_line(measurement.row, run.id)))
    if not lines:
        raise UserError(f"nothing of {row.name} could be measured: {'; '.join(facts['left_out'].values())}")
    write_whole(Path(grid.settings.out) / f"{row.name}.jsonl", "\n".join(lines) + "\n")


def _without(places: set[str], line: str) -> str:
    """A line whose paths do not begin with any of these directories."""
    for place in sorted(places, key=len, reverse=True):
        line = re.sub(rf"(?<![\w./~@+-]){re.escape(place)}/", "", line)
    return line
