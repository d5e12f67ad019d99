"""Writing rows to a record file; reading.py reads them back.

in   a run's header and its rows, one after the other
out  JSON lines
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import shlex
import sys
import uuid
from pathlib import Path
from typing import Any

import msgspec

from ropewalk.checkpoint.model_info import ModelInfo
from ropewalk.errors import UserError
from ropewalk.records.rows import Run
from ropewalk.rope.scaling import Scaling, to_dict
from ropewalk.version import __version__

#: The format of record files, said in every run's header. Raise it when a line's meaning changes, and have reading.py convert.
SCHEMA = 1
_LIBRARIES = ("torch", "transformers", "numpy", "tokenizers", "peft", "lm-eval", "rouge-score", "liger-kernel")


def versions() -> dict[str, str]:
    """Python, platform and the libraries that can change a figure; without importing any of them."""
    numbers = {"python": platform.python_version(), "platform": platform.platform(), "ropewalk": __version__}
    for name in _LIBRARIES:
        try:
            numbers[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return numbers


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


def to_line(row: Any, run: str | None = None) -> str:
    """A header or a row as one line of JSON, a row tied to its run. What is not finite becomes null, as JSON has neither."""
    tie = {"schema": SCHEMA} if isinstance(row, Run) else {} if run is None else {"run": run}
    fields = {name: _as_dict(value) for name, value in vars(row).items()}
    return msgspec.json.encode({"kind": row.kind, **tie, **fields}, enc_hook=_of_numpy).decode()


def _as_dict(value: Any) -> Any:
    """A scaling names its method in a class variable, which msgspec would leave out."""
    if isinstance(value, ModelInfo):
        return value.to_dict()
    return to_dict(value) if isinstance(value, Scaling) else value


def _of_numpy(value: Any) -> Any:
    """numpy's scalars as Python's, for msgspec, which knows none of them."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"a record holds numbers, text, lists and dictionaries, got {type(value).__name__}")


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
