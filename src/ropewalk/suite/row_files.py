"""The file of a row: whether it is whole and was asked for so; written from what training and measuring recorded.

in   a grid, one of its rows; the records of its making
out  `out/ROW.jsonl`, whole or absent
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.files import write_whole
from ropewalk.errors import UserError
from ropewalk.records import BOOKKEEPING, Step, read, to_line
from ropewalk.suite.grid import Grid
from ropewalk.suite.row import Row


def is_whole(grid: Grid, row: Row, out: Path) -> bool:
    """Whether a row lies there.

    Raises:
        UserError: a file of its name is of another row.
    """
    path = out / f"{row.name}.jsonl"
    if not path.exists():
        return False
    on_disk = asked_of(path)
    if on_disk is None:
        raise UserError(f"{path} is no row of an ablation; choose another --out, or move it")
    asked = json.loads(json.dumps(grid.identity(row)))
    if not {*asked.pop("measure")} <= {*on_disk.get("measure", [])}:
        return False
    for name in [name for name, value in asked.items() if on_disk.get(name) != value]:
        raise UserError(
            f"{path} is a row with {name} {on_disk.get(name)}, and asked for is {asked[name]}: rows beside each other differ in method, factor, "
            "tokens, rate and seed alone; choose another --out"
        )
    return True


def asked_of(path: Path) -> dict[str, Any] | None:
    """What a row was asked for, as its file says; None of a file that is none."""
    try:
        with path.open(encoding="utf-8") as lines:
            row = json.loads(lines.readline())["settings"]["row"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return row if isinstance(row, dict) else None


def write_row(grid: Grid, row: Row, records: Path, facts: dict[str, Any]) -> None:
    """The row's file: results without what they add up from, under headers that name the row, its command and nothing of this machine's paths."""
    measured = read([records])
    identity = grid.identity(row) | facts
    lines, said = [], set()
    for measurement in measured.measurements:
        if isinstance(measurement.row, BOOKKEEPING):
            continue
        run = measurement.run
        if run.id not in said:
            said.add(run.id)
            kept = {name: value for name, value in run.settings.items() if name not in ("model", "data", "out")}
            header = dataclasses.replace(
                run,
                command=grid.command(row),
                model=dataclasses.replace(run.model, name=identity["name"]),
                settings={"row": identity} | (kept if isinstance(measurement.row, Step) else run.settings),
            )
            lines.append(to_line(header))
        lines.append(to_line(measurement.row, run.id))
    if not lines:
        raise UserError(f"nothing of {row.name} could be measured: {'; '.join(facts['left_out'].values())}")
    text = "\n".join(lines) + "\n"
    for place in grid.places():
        text = text.replace(f"{place}/", "")
    write_whole(Path(grid.settings.out) / f"{row.name}.jsonl", text)
