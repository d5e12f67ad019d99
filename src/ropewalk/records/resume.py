"""Rows that a record file already holds, so that a killed run measures nothing twice.

in   a record file, and the header of the run that starts now or the rows' own keys
out  the rows that an earlier run of the same settings, seed, dtype and weights left there
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from ropewalk.records.downstream import Benchmark, DocumentSummary
from ropewalk.records.files import to_line
from ropewalk.records.long_context import LongItem
from ropewalk.records.measurement import Measurement
from ropewalk.records.reading import Records, read
from ropewalk.records.rows import DocumentGain, DocumentScore, Run

R = TypeVar("R")
K = TypeVar("K", Benchmark, DocumentGain, DocumentScore, DocumentSummary, LongItem)


def on_record(out: str | Path | None) -> Records:
    """What a record file holds; nothing if there is no file yet."""
    return read([out] if out is not None and Path(out).is_file() else [])


def by_key(recorded: Records, kind: type[K]) -> dict[str, K]:
    """The rows of one kind by their `key`, a hash of everything that decides their figures."""
    return {m.row.key: m.row for m in recorded.of(kind) if m.row.key}


def recorded_rows(out: str | Path | None, run: Run, kind: type[R]) -> list[R]:
    """Rows of one kind from earlier runs like `run`, in file order; none if there is no file.

    A run's settings must name everything that decides its figures, the weights' fingerprint included.
    """
    as_read = json.loads(to_line(run))  # lists for tuples, names as a file can hold them
    conditions = {name: as_read[name] for name in ("settings", "seed", "dtype")}
    records = on_record(out)
    alike = {
        id for id, each in records.runs.items() if all(getattr(each, name) == conditions[name] for name in conditions)
    }
    return [m.row for m in records.of(kind) if m.run.id in alike]


def already_recorded(row: Any, recorded: Iterable[Measurement[Any]], run: Run, *, ignore: tuple[str, ...] = ()) -> bool:
    """Whether a recorded row of the same model equals this one, so that repeating a finished measurement adds nothing.

    Fields in `ignore` may differ: the memory of a run that had nothing left to do, say.
    """
    return any(_model(m.run) == _model(run) and _figures(m.row, ignore) == _figures(row, ignore) for m in recorded)


def _model(run: Run) -> dict[str, Any]:
    """A run's model as its line has it; what its base is called follows from a README, which anybody may edit."""
    return json.loads(to_line(run))["model"] | {"base": ""}


def _figures(row: Any, ignore: tuple[str, ...]) -> dict[str, Any]:
    """A row as its line has it: there, two figures that are not finite are equal."""
    return {name: value for name, value in json.loads(to_line(row)).items() if name not in ignore}
