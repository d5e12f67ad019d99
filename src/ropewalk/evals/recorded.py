"""Rows that a record file already holds, so that a killed run measures nothing twice.

in   a record file, and the header of the run that starts now or the rows' own keys
out  the rows that an earlier run of the same settings, seed, dtype and weights left there
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from ropewalk import records

Row = TypeVar("Row")


def on_record(out: str | Path | None) -> records.Records:
    """The rows of a record file; none if there is no file yet."""
    return records.read([out] if out is not None and Path(out).is_file() else [])


def by_key(recorded: records.Records, kind: type[Row]) -> dict[str, Row]:
    """The rows of one kind by their `key`, a hash of everything that decides their figures."""
    return {row["key"]: _typed(kind, row) for row in recorded.of(kind.kind) if "key" in row}  # type: ignore[attr-defined]


def _typed(kind: type[Row], row: dict[str, Any]) -> Row:
    """A line as a row again; what a line has beside its row's fields (its run, its header) is left out."""
    fields = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: row[name] for name in fields & row.keys()})


def recorded_rows(out: str | Path | None, run: records.Run, kind: type[Row]) -> list[Row]:
    """Rows of one kind from earlier runs like `run`, in file order; none if there is no file.

    A run's settings must name everything that decides its figures, the weights' fingerprint included.
    """
    wanted = (run.settings, run.seed, run.dtype)
    rows = on_record(out).of(kind.kind)  # type: ignore[attr-defined]
    return [_typed(kind, row) for row in rows if _conditions(row["header"]) == wanted]


def _conditions(header: dict[str, Any]) -> tuple[Any, Any, Any]:
    return header.get("settings"), header.get("seed"), header.get("dtype")


def already_recorded(row: Any, recorded: Iterable[dict[str, Any]], *, ignore: tuple[str, ...] = ()) -> bool:
    """Whether a recorded line equals this row, so that repeating a finished measurement adds nothing.

    Fields in `ignore` may differ: the memory of a run that had nothing left to do, say.
    """
    fields = {name: value for name, value in json.loads(records.to_line(row)).items() if name not in ignore}
    return any(all(line.get(name) == value for name, value in fields.items()) for line in recorded)
