"""Reading record files: lines → headers and rows of the classes that were written.

in   paths of JSON-lines files
out  Records: measurements (a row tied to its run), and what was left out and why

A line that is no record (cut short, edited, of another version) is left out and counted, never guessed at.
"""

from __future__ import annotations

import codecs
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from ropewalk.errors import STRANGE_DATA, UserError, refuse_irregular
from ropewalk.records.decoding import decode_header, decode_row
from ropewalk.records.files import FIRST, first_lines
from ropewalk.records.kinds import KINDS, Row
from ropewalk.records.measurement import Measurement
from ropewalk.records.retrieval import Passkey, PasskeySummary
from ropewalk.records.rows import Run
from ropewalk.records.tables import Rows
from ropewalk.records.totals import check, check_test

R = TypeVar("R")
_logger = logging.getLogger(__name__)


@dataclass
class LeftOut:
    """What could not be read: lines that are no JSON, rows without their run's header, rows that do not fit their kind."""

    damaged: int = 0
    headless: int = 0
    malformed: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    #: Of files that are empty or end within a line, a sentence each.
    files: list[str] = field(default_factory=list)
    #: kind → where its first malformed row stands, and what is wrong with it.
    reasons: dict[str, str] = field(default_factory=dict)

    def refuse(self, kind: str, place: str, error: Exception) -> None:
        """Count a row that does not fit its kind; keep the reason of the first."""
        self.malformed[kind] += 1
        self.reasons.setdefault(kind, f"{place}: {error}")


@dataclass(frozen=True)
class Records:
    """What was read: headers by run id, rows in file order each with its run, what was left out, and by run id the commands that began a run and went on with it."""

    runs: dict[str, Run]
    measurements: list[Measurement[Row]]
    left_out: LeftOut = field(default_factory=LeftOut)
    commands: dict[str, list[str]] = field(default_factory=dict)

    def of(self, kind: type[R]) -> Rows[Measurement[R]]:
        """The measurements whose row is of this class."""
        return Rows(m for m in self.measurements if type(m.row) is kind)  # pyrefly: ignore[bad-return] (it narrows no generics)


class _Head(msgspec.Struct):
    """What every line has: enough to know what the rest must be."""

    kind: str
    run: str = ""


class _Line(NamedTuple):
    head: _Head
    text: bytes
    place: str


_HEAD = msgspec.json.Decoder(_Head)


def read(paths: Iterable[str | Path]) -> Records:
    """Read record files; of a directory all that lie below it, in the order of their paths.

    Raises:
        UserError: a file is missing, a directory holds none, or a newer version of ropewalk wrote it in a format that this one does not know.
    """
    left_out, places = LeftOut(), [Path(path) for path in paths]
    files = {place: _below(place, left_out) if place.is_dir() else [place] for place in places}
    bare = [place for place, below in files.items() if not below]
    for place in bare:
        if len(bare) == len(files) or not (place / "config.json").is_file():
            raise UserError(
                f"{place} holds no record file (*.jsonl, as training and measurements write them); name another"
            )
        _logger.warning("nothing is on record in %s, which is a model; the other records are read", place)
    lines = [line for place in places for file in files[place] for line in _lines(file, left_out)]
    headers = {number: run for number, line in enumerate(lines) if (run := _run(line, left_out)) is not None}
    runs = {run.id: run for run in headers.values()}
    # A run that goes on has a header again: rows are of the one before them.
    in_force, measurements, stands = dict(runs), [], dict[Measurement[Row], str]()
    for number, line in enumerate(lines):
        if number in headers:
            in_force[headers[number].id] = headers[number]
        elif line.head.kind != Run.kind and (measured := _measurement(line, in_force, left_out)) is not None:
            measurements.append(measured)
            stands[measured] = line.place
    commands: dict[str, list[str]] = {}
    for run in headers.values():
        commands.setdefault(run.id, []).append(run.command)
    return Records(runs, _whole_tests(measurements, stands, left_out), left_out, commands)


def _whole_tests(
    measurements: list[Measurement[Row]], stands: dict[Measurement[Row], str], left_out: LeftOut
) -> list[Measurement[Row]]:
    """Without the passkey tests that lack a depth or whose depths add up to something else: they are counted, and left out whole, since k_max is of all depths."""
    tests: dict[tuple[str, int], list[Measurement[Any]]] = {}
    for m in measurements:
        if isinstance(m.row, Passkey | PasskeySummary):
            tests.setdefault((m.run.id, m.row.window), []).append(m)
    wrong = set[int]()
    for test in tests.values():
        depths = [m.row for m in test if isinstance(m.row, Passkey)]
        for m in test:
            try:
                if isinstance(m.row, PasskeySummary):
                    check_test(m.row, depths)
            except ValueError as error:
                left_out.refuse(PasskeySummary.kind, stands[m], error)
                wrong.update(map(id, test))
    return [m for m in measurements if id(m) not in wrong]


def _below(path: Path, left_out: LeftOut) -> list[Path]:
    """The record files below a directory."""
    below = [file for file in sorted(path.rglob("*.jsonl")) if file.is_file()]
    shown = [file for file in below if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    begins = {file: _begins(file) for file in shown}
    left_out.files += [
        f"No record stands at the beginning of {file}, so that nothing of it is read."
        for file in shown
        if begins[file] is None
    ]
    return [file for file in shown if begins[file]]


def _begins(path: Path) -> bool | None:
    """Whether one of the first lines of a file begins as a record; one that is empty, or cut short there, is named later. JSON of another kind (texts, a suite's stages) was never a record file; None of what is no JSON, and may be one that was damaged."""
    with path.open("rb") as file:
        first = file.readline(len(FIRST))
        file.seek(0)
        if FIRST.startswith(first) or any(line.startswith(FIRST) for line in first_lines(file)):
            return True
    return False if first.startswith(FIRST[:1]) else None


def _run(line: _Line, left_out: LeftOut) -> Run | None:
    """The header of a line that is one and can be read."""
    if line.head.kind != Run.kind:
        return None
    try:
        return decode_header(line.text, line.place)
    except UserError:
        raise
    except STRANGE_DATA as error:
        left_out.refuse(Run.kind, line.place, error)
        return None


def _lines(path: Path, left_out: LeftOut) -> Iterable[_Line]:
    refuse_irregular(path, "records are JSON-lines files")
    if not path.is_file():
        raise UserError(f"records are JSON-lines files, but {path} does not exist; check the path or run a measurement")
    lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n")  # JSON knows no other line ends
    records, damaged = [], []
    for number, text in enumerate(lines, 1):
        if text.strip():
            try:
                text.decode()
                records.append(_Line(_HEAD.decode(text), text, f"{Path(*path.parts[-2:])}, line {number}"))
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
                damaged.append(text)
    begins = damaged[0][: len(FIRST)] if damaged else b""
    if damaged and not records and not FIRST.startswith(begins):  # a record that was cut short begins as one
        raise UserError(
            f"records are what ropewalk wrote with --out or into a run's directory, but none of the {len(damaged)} lines of {path} is one, the first being "
            f"{damaged[0][:60].decode(errors='replace').strip()!r}; name a file of records, and give texts and conversations to a measurement's --data"
        )
    left_out.damaged += len(damaged)
    if damaged and records and damaged[0] is next(filter(bytes.strip, lines)):
        left_out.files.append(f"The beginning of {path} is no record, so that what it held is missing.")
    if damaged and damaged[-1] is lines[-1]:
        left_out.files.append(f"{path} ends within a line, so that what else it held is missing.")
    elif not (damaged or records):
        left_out.files.append(f"{path} is empty.")
    return records


def _measurement(line: _Line, runs: dict[str, Run], left_out: LeftOut) -> Measurement[Row] | None:
    """The row of a line with its run; None if it cannot be used, which is then counted."""
    kind = line.head.kind
    if kind not in KINDS:
        left_out.unknown[kind] += 1
    elif line.head.run not in runs:
        left_out.headless += 1
    else:
        try:
            check(row := decode_row(KINDS[kind], line.text))
            return Measurement(row, runs[line.head.run])
        except STRANGE_DATA as error:
            left_out.refuse(kind, line.place, error)
    return None
