"""Documents: from files, directories and data sets to text, and from text to token ids.

in   paths, directories, data-set ids
out  `Document(name, text)`, one at a time and in a fixed order; token ids of one

A document is one file, or one row of a JSON-lines or Parquet file or of a data set. Where a document begins and ends matters
at long windows, so nothing here joins or cuts any (packing.py does). What cannot be read is never passed over in silence: a
file named by the user stops the run with a sentence, a file met in a directory is left out and counted.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from transformers import PreTrainedTokenizerBase

from ropewalk.data.compression import SUFFIXES, damage_named, open_bytes
from ropewalk.errors import UserError

#: Files that are one document each, and files that hold one a row.
PLAIN = (".txt", ".md", ".py", ".tex", ".rst")
ROWS = (".jsonl", ".ndjson", ".parquet")
#: Files of rows in formats that are not read; as one document each they would train a model on commas and braces.
OTHER_ROWS = (".json", ".csv", ".tsv", ".arrow", ".feather")
#: Where a row's text is looked for when no field was named: what published sets of long documents call it.
FIELDS = ("text", "content", "document")
#: Escapes in JSON can name one half of a pair (\ud83d), which is no character and no tokenizer takes.
_HALVES = re.compile("[\ud800-\udfff]")
_NAMES = ("id", "name", "title", "path", "url")


@dataclass(frozen=True)
class Document:
    """A text and where it comes from; the name is what messages and records call it."""

    name: str
    text: str


class _Unreadable(ValueError):
    """One document cannot be read; whether that is an error depends on who named it."""


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
        kind = kind_of(source)
        if kind == "hub":
            found: Iterator[Document] = _from_hub(str(source), field, seed)
        elif kind == "directory":
            found = _from_directory(Path(source), field)
        else:
            found = _from_named_file(Path(source), field)
        any_yet = False
        for document in found:
            any_yet = True
            yield document
        if not any_yet:
            raise UserError(f"{source} holds no text to read; name files that do, in {', '.join(PLAIN + ROWS)}")


def _listed(sources: str | Path | Sequence[str | Path]) -> list[str | Path]:
    listed = [sources] if isinstance(sources, str | Path) else list(sources)
    if not listed:
        raise UserError(
            "documents come from at least one file, directory or data-set id, but none was named; add --data"
        )
    return listed


def kind_of(source: str | Path) -> str:
    """ "file", "directory" or "hub".

    Raises:
        UserError: it is neither there nor shaped like a data-set id.
    """
    path = Path(source)
    if path.is_dir():
        return "directory"
    if path.exists():
        return "file"
    name = str(source).split(":")[0]
    is_id = not name.startswith((".", "/", "~")) and name.count("/") == 1 and "\\" not in name
    if is_id and not name.endswith(PLAIN + ROWS + SUFFIXES):
        return "hub"
    raise UserError(
        f"{source} does not exist; --data takes a file, a directory, or a data-set id written owner/name (check the spelling)"
    )


def files_of(source: str | Path) -> list[Path]:
    """The files a local source is read from, in reading order: itself, or those of a directory that hold documents."""
    path = Path(source)
    if not path.is_dir():
        return [path]
    return [file for file in _below(path) if _stem_suffix(file.name) in PLAIN + ROWS and file.is_file()]


def _below(directory: Path) -> list[Path]:
    """All that is no directory under this one, hidden files apart, in the order of paths."""
    found = []
    for folder, folders, names in os.walk(directory):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
        found += [Path(folder, name) for name in names if not name.startswith(".")]
    return sorted(found)


def _stem_suffix(name: str) -> str:
    """The suffix below a packed file's own: `.jsonl` of `books.jsonl.xz`."""
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
                    raise _Unreadable(f"{path} is no file, or a link to one that is gone")
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
        rows = _parquet_rows(path)
        yield from _from_rows(rows, name, field, place="row")
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
        return raw.decode("utf-8-sig")
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
            except ValueError as error:
                raise UserError(f"line {number} of {path} is not JSON ({error}); mend or drop that line") from None
    if not number:
        raise _Unreadable(f"{path} is empty")


def _parquet_rows(path: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        number = 0
        for batch in file.iter_batches(batch_size=64):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} cannot be read as Parquet ({reason}); fetch it again") from None


def _from_rows(rows: Iterable[tuple[int, Any]], source: str, field: str | None, place: str) -> Iterator[Document]:
    empty = halves = 0
    chosen = field
    for number, row in rows:
        if not isinstance(row, dict):
            raise UserError(
                f"{place} {number} of {source} is a {type(row).__name__}, not an object with fields; mend it"
            )
        if chosen is None:
            chosen = next((name for name in FIELDS if name in row), None)
        if chosen not in row:
            asked = f"has no field {chosen!r}" if chosen else "has no field that ropewalk takes for its text"
            raise UserError(
                f"{place} {number} of {source} {asked}; it has {', '.join(map(str, row))}: name one with --field"
            )
        text = "" if row[chosen] is None else row[chosen]
        if not isinstance(text, str):
            raise UserError(
                f"field {chosen!r} in {place} {number} of {source} is a {type(text).__name__}, not text; name another with --field"
            )
        if not text.strip():
            empty += 1
            continue
        if not text.isascii() and _HALVES.search(text):
            halves += 1
            text = _HALVES.sub("\ufffd", text)
        yield Document(f"{source}:{_row_name(row, chosen) or number}", text)
    if halves:
        warnings.warn(f"{halves} rows of {source} hold half a surrogate pair, which is read as U+FFFD", stacklevel=3)
    if empty:
        warnings.warn(f"{empty} rows of {source} have an empty {chosen!r} and were left out", stacklevel=3)


def _row_name(row: dict[str, Any], text_field: str) -> str:
    for name in _NAMES:
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
            f"{name} is no path here, and as a data set it could not be read ({reason}); check the id, the config after the first "
            "colon, the split after the second, and the network"
        ) from None


def bos_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id put in front of a document: BOS where the tokenizer itself puts one (LLaMA), none where it does not (Qwen).

    Asking the tokenizer what it does, rather than whether it names such a token (some that put one in front name none), keeps to
    what the model was pretrained with.
    """
    with_special, bare = tokenizer("a").input_ids, tokenizer("a", add_special_tokens=False).input_ids
    return with_special[0] if with_special and with_special[0] != bare[0] else None


def encode(
    tokenizer: PreTrainedTokenizerBase, text: str, *, bos: bool = True, eos: bool = False
) -> Int[np.ndarray, " tokens"]:
    """Token ids of a text, int64.

    Args:
        tokenizer: a transformers tokenizer.
        text: any length; the tokenizer's own `model_max_length` neither cuts it nor warns.
        bos: put BOS in front if the tokenizer does so itself (`bos_id`).
        eos: put EOS at the end if the tokenizer has one.
    """
    return encode_all(tokenizer, [text], bos=bos, eos=eos)[0]


def encode_all(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, bos: bool = True, eos: bool = False
) -> list[Int[np.ndarray, " tokens"]]:
    """As `encode`, for many texts at once: a fast tokenizer spreads them over all cores."""
    with _on_all_cores() if len(texts) > 1 else contextlib.nullcontext():
        # verbose=False: a warning that a text is longer than model_max_length would be wrong for text that is cut into windows.
        rows = tokenizer(list(texts), add_special_tokens=False, verbose=False, return_attention_mask=False)["input_ids"]
    first = bos_id(tokenizer) if bos else None
    last = tokenizer.eos_token_id if eos else None
    head = [] if first is None else [first]
    tail = [] if last is None else [last]
    return [np.array(head + row + tail, dtype=np.int64) for row in rows]


@contextlib.contextmanager
def _on_all_cores() -> Iterator[None]:
    """The tokenizer's threads are its own (Rust), and it asks the environment at each call."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before
