"""Writing rows to a record file and reading them back.

in   a run's header and its rows, one after the other; paths
out  JSON lines; headers and rows as dictionaries, and how many lines were damaged
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import math
import os
import platform
import shlex
import sys
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.model_info import ModelInfo
from ropewalk.errors import UserError
from ropewalk.records.rows import Run

_LIBRARIES = ("torch", "transformers", "numpy", "tokenizers", "peft", "lm-eval", "rouge-score", "liger-kernel")


def versions() -> dict[str, str]:
    """Python, platform and the libraries that can change a figure; without importing any of them."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in ("ropewalk", *_LIBRARIES):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def new_run(
    model: ModelInfo,
    *,
    device: str,
    dtype: str,
    seed: int = 0,
    settings: dict[str, Any] | None = None,
    command: str | None = None,
) -> Run:
    """A header for a run that starts now. `command` defaults to this process's own command line."""
    if command is None:
        program = Path(sys.argv[0])
        # `python -m ropewalk`, under torchrun say, leaves the path of __main__.py there.
        name = program.parent.name if program.name == "__main__.py" else program.name
        command = shlex.join([name, *sys.argv[1:]])
    return Run(
        id=uuid.uuid4().hex[:12],
        command=command,
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        model=model,
        seed=seed,
        device=device,
        dtype=dtype,
        versions=versions(),
        settings=settings or {},
    )


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: both become null, so that every reader can parse the line."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def to_line(row: Any, run: str | None = None) -> str:
    """One row as one line of JSON, tied to its run."""
    tie = {} if run is None else {"run": run}
    fields = dataclasses.asdict(row)
    if isinstance(row, Run):
        fields["model"] = row.model.to_dict()
    return json.dumps({"kind": row.kind, **tie, **_plain(fields)}, ensure_ascii=False)


def check_file(path: str | Path | None) -> None:
    """Raises UserError, before anything is measured, for a record file that could not be appended to."""
    if path is None:
        return
    if Path(path).is_dir():
        raise UserError(f"a record file is asked for, but {path} is a directory; name a file in it")
    above = next((part for part in Path(path).absolute().parents if part.exists()), None)
    if above is not None and not above.is_dir():
        raise UserError(f"a record file lies in a directory, but {above} is a file; name another place")


class Recorder:
    """Appends one run's rows to a JSON-lines file, or nowhere if `path` is None. The header goes out with the first row.

    Raises:
        UserError: a directory is there, or a file where a directory must be.
    """

    def __init__(self, path: str | Path | None, run: Run) -> None:
        check_file(path)
        self.path = None if path is None else Path(path)
        self.run = run
        self.rows: list[Any] = []
        self._opened = False

    def add(self, row: Any) -> None:
        """Append a row and flush it to disk: a killed run keeps every row it had finished."""
        self.rows.append(row)
        if self.path is None:
            return
        lines = [] if self._opened else [to_line(self.run)]
        lines.append(to_line(row, self.run.id))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:
            # A run killed in the middle of a line left no newline; start a fresh one so that only that line is lost.
            if not self._opened and file.tell() and not _ends_with_newline(self.path):
                file.write("\n")
            file.write("\n".join(lines) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._opened = True


def _ends_with_newline(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


@dataclass(frozen=True)
class Records:
    """What was read: headers by run id, rows as (run, row dictionary) in file order, and how many lines were damaged."""

    runs: dict[str, dict[str, Any]]
    rows: list[dict[str, Any]]
    damaged: int = 0

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The rows of one kind, each with its run's header under "header"."""
        return [{**row, "header": self.runs.get(row.get("run", ""), {})} for row in self.rows if row["kind"] == kind]


def read(paths: Iterable[str | Path]) -> Records:
    """Read record files. A line that is no record (cut short, edited) is skipped and counted, never guessed at.

    Raises:
        UserError: a file is missing.
    """
    runs: dict[str, dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    damaged = 0
    for path in map(Path, paths):
        if not path.is_file():
            raise UserError(
                f"records are JSON-lines files, but {path} does not exist; check the path or run a measurement"
            )
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                kind = row["kind"]
            except (ValueError, TypeError, KeyError):
                damaged += 1
                continue
            if kind == "run" and isinstance(row.get("id"), str):
                runs[row["id"]] = row
            else:
                rows.append(row)
    return Records(runs, rows, damaged)
