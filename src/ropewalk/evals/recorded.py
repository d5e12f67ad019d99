"""What a record file already holds, so that a killed run repeats nothing.

in   a record file and the header of the run that starts now
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
    """What a record file holds; nothing if there is no file yet."""
    return records.read([out] if out is not None and Path(out).is_file() else [])


def by_key(found: records.Records, kind: type[Row]) -> dict[str, Row]:
    """The rows of a kind that say in their `key` all that decides them."""
    return {row["key"]: _made(kind, row) for row in found.of(kind.kind) if "key" in row}  # type: ignore[attr-defined]


def _made(kind: type[Row], row: dict[str, Any]) -> Row:
    """A row as it was before it was written; fields that only its line has are left out."""
    fields = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: row[name] for name in fields & row.keys()})


def recorded_rows(out: str | Path | None, run: records.Run, kind: type[Row]) -> list[Row]:
    """Rows of one kind from earlier runs like `run`, in file order; none if there is no file.

    A run's settings must name everything that decides its figures, the weights' fingerprint included.
    """
    alike = (run.settings, run.seed, run.dtype)
    found = on_record(out).of(kind.kind)  # type: ignore[attr-defined]
    return [_made(kind, row) for row in found if _decides(row["header"]) == alike]


def _decides(header: dict[str, Any]) -> tuple[Any, Any, Any]:
    return header.get("settings"), header.get("seed"), header.get("dtype")


def already_recorded(row: Any, old: Iterable[dict[str, Any]], *, whatever: tuple[str, ...] = ()) -> bool:
    """Whether a recorded row says all that this one does; then a finished measurement, repeated, adds nothing.

    Fields in `whatever` may differ: the memory that a run took which had nothing left to do, say.
    """
    said = {name: value for name, value in json.loads(records.to_line(row)).items() if name not in whatever}
    return any(all(one.get(name) == value for name, value in said.items()) for one in old)
