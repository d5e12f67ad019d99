"""Writing rows to a record file; reading.py reads them back.

in   a run's header and its rows, one after the other
out  JSON lines
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import logging
import os
import platform
import shlex
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from ropewalk.checkpoint.files import disk_errors, refuse_full, write_whole
from ropewalk.checkpoint.model_info import ModelInfo
from ropewalk.errors import UserError
from ropewalk.progress import is_first_process
from ropewalk.records.rows import Run
from ropewalk.rope.scaling import Scaling, to_dict
from ropewalk.version import __version__

#: The format of record files, said in every run's header. Raise it when a line's meaning changes, and have reading.py convert.
SCHEMA = 1
_logger = logging.getLogger(__name__)
_LIBRARIES = (
    "torch",
    "transformers",
    "numpy",
    "tokenizers",
    "peft",
    "lm-eval",
    "rouge-score",
    "wonderwords",
    "liger-kernel",
)


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
    return _encoded({"kind": row.kind, **tie, **fields})


def _encoded(value: Any) -> str:
    """JSON. A name that is no Unicode (a path in another encoding, half a surrogate pair) is written as `\\udcff`, so that it is read back."""
    try:
        return msgspec.json.encode(value, enc_hook=_of_numpy).decode()
    except UnicodeEncodeError:
        return msgspec.json.encode(_unicode(msgspec.to_builtins(value, enc_hook=_of_numpy))).decode()


def _unicode(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_unicode(key): _unicode(each) for key, each in value.items()}
    return [_unicode(each) for each in value] if isinstance(value, list | tuple) else value


def rename_in(path: Path, old: str, new: str) -> None:
    """Write another name in a file of JSON lines wherever `old` stands in a text: of a directory that is moved, say."""
    old, new = (_encoded(name)[1:-1] for name in (old, new))
    text = path.read_bytes().replace(old.encode(), new.encode())
    write_whole(path, text.decode("utf-8", "surrogateescape"))


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


#: A record file begins like this, or one of its first lines is a record.
FIRST, _LOOKED_AT = b'{"kind":', 100


def check_file(path: str | Path | None) -> None:
    """Refuse, before anything is measured, a record file that could not be appended to, or that is something else.

    Raises:
        UserError: a directory, a device, somebody's text, a read-only or full disk.
    """
    if path is None or not is_first_process():
        return
    path = Path(path)
    with disk_errors(path), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.stat(path)  # a name that is too long, links in a circle
    if path.is_dir():
        raise UserError(f"a record file is asked for, but {path} is a directory; name a file in it")
    if path.exists():
        _refuse_other_file(path)
        with disk_errors(path):
            open(path, "ab").close()
    nearest = next(part for part in Path(os.path.realpath(path)).parents if part.exists())
    if not nearest.is_dir():
        raise UserError(f"a record file lies in a directory, but {nearest} is a file; name another place")
    if not path.exists() or os.access(nearest, os.W_OK | os.X_OK):
        refuse_full(path, nearest)


def _refuse_other_file(path: Path) -> None:
    if not path.is_file():
        raise UserError(
            f"a record file is a plain file, which is read again when a run goes on, but {path} is none; name another"
        )
    with disk_errors(path), open(path, "rb") as file:
        lines = list(first_lines(file))
    if lines and not lines[0].startswith(FIRST) and not any(_is_record(line) for line in lines):
        raise UserError(
            f"rows are appended to a record file, but {path} holds no record; name another file, or one that is not there yet"
        )


def first_lines(file: BinaryIO) -> Iterator[bytes]:
    """Those by which a file is known, as far as it has them."""
    return filter(None, (file.readline(1 << 20) for _ in range(_LOOKED_AT)))


def _is_record(line: bytes) -> bool:
    try:
        return "kind" in msgspec.json.decode(line, type=dict)
    except (msgspec.DecodeError, RecursionError):
        return False


class Recorder:
    """Appends one run's rows to a JSON-lines file, or nowhere if `path` is None. The header goes out with the first row.

    Several processes may write to one file: each row is appended whole. If the disk refuses, the rows go to another place from then on,
    and an error is logged that says where; the measurement goes on. With `elsewhere=False` the disk's error is raised.

    Raises:
        UserError: what `check_file` raises.
    """

    def __init__(self, path: str | Path | None, run: Run, *, elsewhere: bool = True) -> None:
        check_file(path)
        self.path = None if path is None else Path(path)
        self.run = run
        self.rows: list[Any] = []
        self._opened, self._elsewhere = False, elsewhere

    def add(self, row: Any) -> None:
        """Append a row and flush it to disk: a killed run keeps every row it had finished."""
        self.rows.append(row)
        if self.path is None:
            return
        lines = [] if self._opened else [to_line(self.run)]
        try:
            append_lines(self.path, [*lines, to_line(row, self.run.id)])
        except OSError as error:
            if not self._elsewhere:
                raise
            self.path = self._put_elsewhere(row, error)
        self._opened = True

    def _put_elsewhere(self, row: Any, error: OSError) -> Path | None:
        """Where this row and its run's header were written instead of `path`; None if no place took them."""
        lines = [to_line(self.run), to_line(row, self.run.id)]
        name = f"{self.path.stem if self.path else 'records'}-{self.run.id}.jsonl"
        for directory in (tempfile.gettempdir(), Path.home(), Path.cwd()):
            with contextlib.suppress(OSError):
                append_lines(Path(directory) / name, lines)
                _logger.error(
                    f"{self.path} could not be written ({error.strerror}): rows from here on are in {Path(directory) / name}; "
                    f"when there is room again, cat {shlex.join([str(Path(directory) / name)])} >> {shlex.join([str(self.path)])}"
                )
                return Path(directory) / name
        _logger.error(
            f"{self.path} could not be written ({error.strerror}), nor any other place: what is printed is all there is"
        )
        return None


def append_lines(path: Path, lines: list[str]) -> None:
    """Append all lines or none to a file, in one piece, whoever else appends just now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b", buffering=0) as file:
        with contextlib.suppress(OSError, ImportError):  # a file system, or a system, without locks
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        end = file.seek(0, os.SEEK_END)
        # A run killed in the middle of a line left no newline; start a fresh one so that only that line is lost.
        begun = b"\n" if end and not _ends_with_newline(path) else b""
        left = memoryview(begun + ("\n".join(lines) + "\n").encode())
        try:
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(end) if end else path.unlink()
            raise


def _ends_with_newline(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
