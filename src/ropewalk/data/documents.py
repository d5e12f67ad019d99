"""Documents: files, directories and data sets read as text.

in   paths, directories, data-set ids
out  `Document(name, text)`, one at a time and in a fixed order

A document is one file, or one row of a JSON-lines or Parquet file or of a data set. Where a document begins and ends matters
at long windows, so nothing here joins or cuts any (packing.py does). Nothing unreadable is skipped silently: a file that the
user named stops the run with an error, a file met in a directory is left out, counted and warned of. Needs neither torch nor
transformers: encode.py turns the text into token ids.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ropewalk.checkpoint import digests
from ropewalk.checkpoint.guard import MARK
from ropewalk.data.compression import SUFFIXES, Most, damage_named, open_bytes
from ropewalk.errors import UserError, refuse_irregular, told

#: Files that are one document each, and files that hold one a row.
PLAIN = (".txt", ".md", ".py", ".tex", ".rst")
ROWS = (".jsonl", ".ndjson", ".parquet")
#: Files of rows in formats that are not read; taken as one document each, they would train a model on commas and braces.
OTHER_ROWS = (".json", ".csv", ".tsv", ".arrow", ".feather")
#: Fields that are tried for a row's text when none was named: what published sets of long documents call it.
FIELDS = ("text", "content", "document")
#: An escape in JSON can name one half of a surrogate pair (\ud83d), which is not a character; tokenizers refuse it.
HALF_PAIRS = re.compile("[\ud800-\udfff]")
#: Fields that name a row, in the order in which they are tried.
_NAME_FIELDS = ("id", "name", "title", "path", "url")


@dataclass(frozen=True)
class Document:
    """A text, and the name that messages and records call it by."""

    name: str
    text: str


class _Unreadable(ValueError):
    """A document cannot be read: an error if the user named its file, a warning if it was met in a directory."""


def read_documents(
    sources: str | Path | Sequence[str | Path], *, field: str | None = None, seed: int | None = None
) -> Iterator[Document]:
    """Every document of the sources: sources in the order given, files in a directory in the order of their paths.

    Args:
        sources: files (plain text, `.jsonl`, `.parquet`; packed as .gz, .xz or .zst), directories, or data-set ids as
            `owner/name`, `owner/name:config` or `owner/name:config:split` (streamed; the split is `train` if not given).
        field: a row's field that holds the text; if not given, the first of `text`, `content`, `document` that it has.
        seed: shuffle a streamed data set through a buffer, the same way for the same seed; in its own order if not given.

    Raises:
        UserError: a source that does not exist, a named file that is empty, binary or not UTF-8, a damaged archive, a row
            without the field, or a source without any document.
    """
    for source in _listed(sources):
        empty = True
        for document in _read_source(source, field, seed):
            empty = False
            yield document
        if empty:
            raise UserError(f"{source} holds no text to read; name files that do, in {', '.join(PLAIN + ROWS)}")


def _read_source(source: str | Path, field: str | None, seed: int | None) -> Iterator[Document]:
    kind = kind_of(source)
    if kind == "hub":
        return _from_hub(str(source), field, seed)
    return _from_directory(Path(source), field) if kind == "directory" else _from_named_file(Path(source), field)


def _listed(sources: str | Path | Sequence[str | Path]) -> list[str | Path]:
    listed = [sources] if isinstance(sources, str | Path) else list(sources)
    if not listed:
        raise UserError(
            "documents come from at least one file, directory or data-set id, but none was named; add --data"
        )
    return listed


def refuse_missing(given: Any) -> None:
    """Raises UserError for a file or a list of them that is not there, or is none, before hours are spent on what comes first."""
    for source in [] if given is None else given if isinstance(given, list | tuple) else [given]:
        if kind_of(source) == "file":
            refuse_irregular(source, "data is read from files")


def kind_of(source: str | Path) -> Literal["file", "directory", "hub"]:
    """What a source is: a file, a directory, or a data set on the hub.

    Raises:
        UserError: it does not exist and is not written like a data-set id.
    """
    path = Path(source)
    if not str(source).strip():
        raise UserError(
            "--data takes a file, a directory, or a data-set id, but a name is empty; name what is to be read"
        )
    if path.is_dir():
        return "directory"
    if path.exists():
        return "file"
    name = str(source).split(":")[0]
    is_id = not name.startswith((".", "/", "~")) and name.count("/") == 1 and all(name.split("/")) and "\\" not in name
    if is_id and not name.endswith(PLAIN + ROWS + SUFFIXES):
        return "hub"
    raise UserError(
        f"{source} does not exist; --data takes a file, a directory, or a data-set id written owner/name (check the spelling)"
    )


def files_of(source: str | Path) -> list[Path]:
    """The files a local source is read from, in reading order: the file itself, or those in a directory that hold documents."""
    path = Path(source)
    if not path.is_dir():
        refuse_irregular(path, "data is read from files")
        return [path]
    return [file for file in _below(path) if _stem_suffix(file.name) in PLAIN + ROWS and file.is_file()]


def digest_of(source: str | Path) -> str:
    """A hash of what the files of a local source hold, in reading order, whatever they are called."""
    return hashlib.sha256(" ".join(digests.digest_of(path) for path in files_of(source)).encode()).hexdigest()[:16]


def _below(directory: Path) -> list[Path]:
    """All files below a directory, hidden ones and `__pycache__` left out, in the order of their paths."""
    files: list[Path] = []
    for folder, folders, names in os.walk(directory):
        folders[:] = [
            name
            for name in folders
            # What ropewalk wrote among the texts is none: a run that lies there would change its own data.
            if not name.startswith(".") and name != "__pycache__" and not Path(folder, name, MARK).exists()
        ]
        files += [Path(folder, name) for name in names if not name.startswith(".")]
    return sorted(files)


def _stem_suffix(name: str) -> str:
    """The suffix of a name without that of its compression: `.jsonl` of `books.jsonl.xz`."""
    path = Path(name.lower())
    return Path(path.stem).suffix if path.suffix in SUFFIXES else path.suffix


def _from_named_file(path: Path, field: str | None) -> Iterator[Document]:
    try:
        yield from _from_file(path, str(path), field)
    except _Unreadable as error:
        raise UserError(f"a document is non-empty UTF-8 text, but {error}; convert it or leave it out") from None


def _from_directory(directory: Path, field: str | None) -> Iterator[Document]:
    left_out = []
    for path in _below(directory):
        if _stem_suffix(path.name) in PLAIN + ROWS + OTHER_ROWS:
            try:
                if not path.is_file():
                    raise _Unreadable(f"{path} is not a file, or is a link to one that is gone")
                yield from _from_file(path, str(path.relative_to(directory)), field)
            except _Unreadable as error:
                left_out.append(str(error))
    if left_out:
        count = f"{len(left_out)} file was" if len(left_out) == 1 else f"{len(left_out)} files were"
        warnings.warn(f"{count} left out of {directory}, the first because {left_out[0]}", stacklevel=3)


def _from_file(path: Path, name: str, field: str | None) -> Iterator[Document]:
    suffix = _stem_suffix(path.name)
    if suffix in OTHER_ROWS:
        raise _Unreadable(f"{path} holds rows as {suffix}, and rows are read as JSON lines (.jsonl) or Parquet only")
    if suffix == ".parquet":
        yield from _from_rows(_parquet_rows(path, field), name, field, place="row")
    elif suffix in ROWS:
        yield from _from_rows(_json_rows(path), name, field, place="line")
    else:
        yield Document(name, _plain_text(path))


def _plain_text(path: Path) -> str:
    with damage_named(path), open_bytes(path) as file:
        raw = file.read()
    if not raw.strip():
        raise _Unreadable(f"{path} is empty")
    if b"\0" in raw:
        raise _Unreadable(f"{path} is binary (it has a zero byte at {raw.index(0)})")
    try:
        # A line end is one character, whichever system wrote it: a model has hardly seen another.
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise _Unreadable(f"{path} is not UTF-8 (byte {error.start} is 0x{raw[error.start]:02x})") from None


def _json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    number = 0
    with damage_named(path), open_bytes(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield number, json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError:
                raise _Unreadable(f"line {number} of {path} is not UTF-8") from None
            except (ValueError, RecursionError) as error:
                raise UserError(f"line {number} of {path} is not JSON ({error}); mend or drop that line") from None
    if not number:
        raise _Unreadable(f"{path} is empty")


def _parquet_rows(path: Path, field: str | None) -> Iterator[tuple[int, Any]]:
    """Rows of the columns that are asked for, and no other: a column that nobody needs may hold what Python has no type for."""
    import pyarrow.parquet

    refuse_irregular(path, "data is read from files")
    number = read = 0
    most = Most.of(path)
    with told(f"{path} cannot be read as Parquet", "fetch it again", Exception):
        file = pyarrow.parquet.ParquetFile(path)
        groups = (file.metadata.row_group(number) for number in range(file.num_row_groups))
        most.check(sum(group.total_byte_size for group in groups))
        columns = {column.name: column.type for column in file.schema_arrow}
        texts = [name for name in (FIELDS if field is None else (field,)) if name in columns]
        names = [name for name in _NAME_FIELDS if name in columns and _is_a_name(columns[name])]
        for batch in file.iter_batches(batch_size=64, columns=[*texts[:1], *names]):
            read += batch.nbytes
            most.check(read)
            for row in batch.to_pylist():
                number += 1
                yield number, row if texts else dict.fromkeys(columns)


def _is_a_name(kind: Any) -> bool:
    import pyarrow.types

    return pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind) or pyarrow.types.is_integer(kind)


def _from_rows(rows: Iterable[tuple[int, Any]], source: str, field: str | None, place: str) -> Iterator[Document]:
    """Documents of numbered rows; the first row decides the text field if none is named."""
    empty = half_pairs = 0
    for number, row in rows:
        if field is None and isinstance(row, dict):
            field = next((name for name in FIELDS if name in row), None)
        text = _row_text(row, field, f"{place} {number} of {source}")
        if not text.strip():
            empty += 1
            continue
        if not text.isascii() and HALF_PAIRS.search(text):
            half_pairs += 1
            text = HALF_PAIRS.sub("\ufffd", text)
        yield Document(f"{source}:{_row_name(row, field) or number}", text)
    if half_pairs:
        warnings.warn(f"half a surrogate pair in {source} is read as U+FFFD (rows: {half_pairs})", stacklevel=3)
    if empty:
        warnings.warn(f"what is empty under {field!r} in {source} is left out (rows: {empty})", stacklevel=3)


def _row_text(row: Any, field: str | None, place: str) -> str:
    if not isinstance(row, dict):
        raise UserError(f"{place} is a {type(row).__name__}, not an object with fields; mend it")
    if field not in row:
        missing = f"has no field {field!r}" if field else f"has none of the fields {', '.join(FIELDS)}"
        raise UserError(f"{place} {missing}; it has {', '.join(map(str, row))}: name one with --field")
    text = "" if row[field] is None else row[field]
    if not isinstance(text, str):
        raise UserError(f"field {field!r} in {place} is a {type(text).__name__}, not text; name another with --field")
    return text


def _row_name(row: dict[str, Any], text_field: str | None) -> str:
    for name in _NAME_FIELDS:
        if name != text_field and isinstance(row.get(name), str | int) and str(row[name]).strip():
            return str(row[name])[:80]
    return ""


def _from_hub(name: str, field: str | None, seed: int | None) -> Iterator[Document]:
    """Rows of a data set, streamed through `datasets`, so that no more is fetched than is read."""
    import datasets

    identity, _, rest = name.partition(":")
    config, _, split = rest.partition(":")
    try:
        rows = datasets.load_dataset(identity, config or None, split=split or "train", streaming=True)
        if seed is not None:
            rows = rows.shuffle(seed=seed, buffer_size=1000)
        yield from _from_rows(enumerate(rows, start=1), name, field, place="row")
    except UserError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{name} is not a path here, and could not be read as a data set ({reason}); check the id, the config after the "
            "first colon, the split after the second, and the network"
        ) from None
