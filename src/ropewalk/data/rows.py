"""Files of rows: JSON lines, JSON, CSV, TSV, Parquet and Arrow, read as numbered dictionaries.

in   an `OpenFile`, on disk or in an archive; which columns are wanted
out  `(number, row)`, one at a time; `Unreadable` for a file that holds no such rows
"""

from __future__ import annotations

import codecs
import collections
import csv
import io
import itertools
import json
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ropewalk.data.archives import OpenFile
from ropewalk.data.compression import Most
from ropewalk.data.foreign import foreign
from ropewalk.errors import UserError, told

#: Chooses, of the columns of a file, those that are read; the others may hold what Python has no type for.
Columns = Callable[[dict[str, Any]], list[str]]
Numbered = Iterator[tuple[int, Any]]
_AT_ONCE = 64
#: Kinds of bad rows that an error spells out, and rows of a kind that it names.
_KINDS, _NAMED = 3, 50
#: Files of lines as they lie on disk, which a line editor reads.
_LINES = (".jsonl", ".ndjson")


#: How a file in UTF-32 or UTF-16 begins; the longer ones first, since the shorter may be their beginning.
_MARKS = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


class Unreadable(ValueError):
    """A document cannot be read: an error if the user named its file, a warning if it was met in a directory."""


def rows_of(file: OpenFile, columns: Columns) -> Numbered:
    """Every row of a file, counted from 1, with None in the columns of Parquet and Arrow that are not read; a line that is broken as the `UserError` that says so, since those after it can be read.

    Raises:
        Unreadable: it is empty, not UTF-8, or holds no rows.
        UserError: it is damaged.
    """
    return _FORMATS[file.suffix](file, columns)


def marked(raw: bytes) -> str | None:
    """The encoding that a byte-order mark says, if it is not UTF-8's."""
    return next((encoding for mark, encoding in _MARKS.items() if raw.startswith(mark)), None)


def decoded(raw: bytes, file: OpenFile) -> str:
    """Bytes as text: UTF-8, or what a byte-order mark says."""
    encoding = marked(raw)
    try:
        return raw.decode(encoding or "utf-8-sig")
    except UnicodeDecodeError as error:
        if encoding:
            raise Unreadable(f"{file} begins with the mark of {encoding} and is none ({error.reason})") from None
        what = foreign(raw) or f"is not UTF-8 (byte {error.start} is 0x{raw[error.start]:02x})"
        raise Unreadable(f"{file} {what}") from None


def json_kind(value: Any) -> str:
    """What a value is, in JSON's words."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    kinds = {str: "a text", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return kinds.get(type(value), f"a {type(value).__name__}")  # Parquet has others: bytes, dates


def line_ends(text: str) -> str:
    """With each line end as one character, whichever system wrote it: a model has hardly seen another."""
    text = text.replace("\r\n", "\n")
    return text if "\n" in text else text.replace("\r", "\n")


def joined_lines(value: Any) -> Any:
    """A document or a summary that is a list of its lines, as published sets of summaries have them, as one text; anything else as it is."""
    return "\n".join(value) if isinstance(value, list) and all(isinstance(line, str) for line in value) else value


def _json_lines(file: OpenFile, columns: Columns) -> Numbered:
    number, begun = 0, False
    with file.stream() as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            way_out = "call it .json, or put each object on a line of its own"
            if not begun and (reason := not_lines(line, lines, way_out)):
                raise Unreadable(f"{file} {reason}")
            begun = True
            try:
                yield number, json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip())
            except UnicodeDecodeError:
                what = foreign(line) if number == 1 else ""
                raise Unreadable(f"{file} {what}" if what else f"line {number} of {file} is not UTF-8") from None
            except (ValueError, RecursionError) as error:
                yield number, UserError(f"line {number} of {file} {broken(error)}; mend or drop it")
    if not number:
        raise Unreadable(f"{file} is empty")


def broken(error: Exception) -> str:
    """What is wrong with a line of JSON; its number is said by whoever read it."""
    if not isinstance(error, json.JSONDecodeError):
        return f"is not JSON ({error})"
    if error.pos >= len(error.doc) or error.msg.startswith("Unterminated string"):
        return f"ends in the middle of a value (column {len(error.doc)})"
    return f"is not JSON ({error.msg.removesuffix(' at')}, column {error.pos + 1})"


def not_lines(first: bytes, rest: Iterable[bytes], way_out: str) -> str:
    """What a file is whose first line is no object where an object a line is read, and a way out; empty for any other line.

    rest: the lines after it, of which one is read if it begins with an array. way_out: of what goes over all lines.
    """
    begins = first.removeprefix(codecs.BOM_UTF8).strip()
    if begins.startswith(b"["):
        if _is_array(begins) and _is_array(next(filter(bytes.strip, rest), b"")):
            return (
                "has a JSON array on each line, and is read as an object a line (make objects of them; of the turns of conversations: "
                "jq -c '{messages: .}')"
            )
        return f"is one JSON array, and is read as an object a line ({way_out})"
    over_several = begins == b"{"
    return (
        f"has objects that go over several lines, and is read as an object a line ({way_out})" if over_several else ""
    )


def _is_array(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), list)
    except (ValueError, RecursionError):
        return False


def refusal_of(first: UserError, others: Iterable[UserError], lines_of: str = "") -> UserError:
    """One error for all bad rows of a file, so that they can be mended together: what is wrong with the first of each kind, where the others are, and how many.

    lines_of: the file, where a row is a line of it.
    """
    alike: dict[str, list[str]] = {}
    counts: collections.Counter[str] = collections.Counter()
    for error in itertools.chain([first], others):
        kind = _ROW.sub("", str(error))
        counts[kind] += 1
        if counts[kind] <= _NAMED:
            alike.setdefault(kind, []).append(str(error))
    if counts.total() == 1:
        return first
    listed = [_with_its_kind(alike[kind], counts[kind]) for kind in [*counts][:_KINDS]]
    if unlisted := counts.total() - sum(counts[kind] for kind in [*counts][:_KINDS]):
        places = [match for kind in [*counts][_KINDS:] for each in alike[kind] if (match := _ROW.search(each))]
        listed.append(f"and {_named(places, unlisted)} for other reasons" if places else f"and {unlisted} more")
    return UserError(
        f"{counts.total()} rows cannot be read: {', '.join(listed)}; mend or drop them{_dropping(alike, counts, lines_of)}"
    )


def _dropping(alike: dict[str, list[str]], counts: collections.Counter[str], lines_of: str) -> str:
    """The command that drops so few lines that each is named; empty where they are more, or no lines that sed reads."""
    if Path(lines_of).suffix.lower() not in _LINES or not Path(lines_of).is_file():  # compressed, or in an archive
        return ""
    numbers = [int(match[2]) for each in alike.values() for sentence in each if (match := _ROW.search(sentence))]
    if len(numbers) != counts.total() or len(numbers) > _NAMED:
        return ""
    file, drops = shlex.quote(lines_of), ";".join(f"{number}d" for number in sorted(numbers))
    return f" (sed '{drops}' {file} > kept{Path(lines_of).suffix} drops them)"


#: Where a row is, as the errors of rows say it.
_ROW = re.compile(r"\b(line|row) (\d+) of ")


def _with_its_kind(sentences: Sequence[str], count: int) -> str:
    """What is wrong with the first of several rows, and which the next ones are. count: of all of them."""
    places = [match for sentence in sentences[1:] if (match := _ROW.search(sentence))]
    if not places:
        return sentences[0].removesuffix("; mend or drop it")
    return sentences[0].removesuffix("; mend or drop it") + f" (likewise {_named(places, count - 1)})"


def _named(places: Sequence[re.Match[str]], count: int) -> str:
    """Lines 4, 6 and 20 more: of so many places the first ones."""
    numbers = ", ".join(place[2] for place in places[:_NAMED])
    more = f" and {count - len(places[:_NAMED])} more" * (count > len(places[:_NAMED]))
    return f"{places[0][1]}{'s' * (count > 1)} {numbers}{more}"


def _json(file: OpenFile, columns: Columns) -> Numbered:
    """An array of objects, one object, an object around one array of them; or lines of JSON under this name."""
    text = decoded(file.read(), file)
    try:
        rows = _listed(json.loads(text))
    except (ValueError, RecursionError) as error:
        lines = [line for line in text.split("\n") if line.strip()]
        try:
            rows = [json.loads(line) for line in lines]
        except (ValueError, RecursionError):
            raise Unreadable(f"{file} is not JSON ({error})") from None
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise Unreadable(f"{file} holds no rows: JSON is read as an array of objects, or an object a line")
    yield from enumerate(rows, start=1)


def _listed(whole: Any) -> list[Any]:
    if isinstance(whole, list):
        return whole
    wrapped = list(whole.values()) if isinstance(whole, dict) and len(whole) == 1 else []
    turns = wrapped and isinstance(wrapped[0], list) and wrapped[0] and isinstance(wrapped[0][0], dict)
    # {"data": [{…}, …]} is a list of rows, {"messages": [{"role": …}, …]} one row.
    return wrapped[0] if turns and not {"role", "from"} & set(wrapped[0][0]) else [whole]


def _separated(file: OpenFile, columns: Columns) -> Numbered:
    csv.field_size_limit(2**31 - 1)  # a cell may hold a book
    text = decoded(file.read(), file)
    header = re.split(r"[\r\n]", text.lstrip("\r\n"), maxsplit=1)[0]
    delimiter = "\t" if file.suffix == ".tsv" else max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    number = 0
    try:
        counts = collections.Counter(filter(None, reader.fieldnames or ()))
        if again := next((name for name, count in counts.items() if count > 1), None):
            raise UserError(f"columns of {file} have names of their own, and {again!r} comes twice; rename one")
        for number, row in enumerate(reader, start=1):
            if None in row or None in row.values():
                raise UserError(
                    f"row {number} of {file} has {'more' if None in row else 'fewer'} cells than its first line names; mend or drop it"
                )
            yield number, row
    except csv.Error as error:
        raise UserError(
            f"row {number + 1} of {file} is not {file.suffix[1:].upper()} ({error}); mend or drop it"
        ) from None
    if not number:
        raise Unreadable(f"{file} holds no rows below a first line of names")


def _parquet(file: OpenFile, columns: Columns) -> Numbered:
    import pyarrow.parquet

    most = file.most
    with told(f"{file} cannot be read as Parquet", "fetch it again", Exception):
        opened = pyarrow.parquet.ParquetFile(file.place())
        groups = (opened.metadata.row_group(number) for number in range(opened.num_row_groups))
        most.check(sum(group.total_byte_size for group in groups))
        kinds = {column.name: column.type for column in opened.schema_arrow}
        chosen = columns(kinds)
        yield from _batches(opened.iter_batches(batch_size=_AT_ONCE, columns=chosen), chosen, kinds, most)


def _arrow(file: OpenFile, columns: Columns) -> Numbered:
    """Arrow's stream format, which `datasets` saves, or its file format (Feather)."""
    import pyarrow.ipc

    most = file.most
    with told(f"{file} cannot be read as Arrow", "fetch it again", Exception):
        place = file.place()
        opened = pyarrow.memory_map(str(place)) if not isinstance(place, io.BytesIO) else place
        try:
            schema = pyarrow.ipc.open_stream(opened).schema
            reopen: Any = pyarrow.ipc.open_stream
        except pyarrow.ArrowInvalid:
            reopen = pyarrow.ipc.open_file
            opened.seek(0)
            schema = reopen(opened).schema
        kinds = {column.name: column.type for column in schema}
        chosen = columns(kinds)
        included = [schema.get_field_index(name) for name in chosen] or [0]
        opened.seek(0)
        reader = reopen(opened, options=pyarrow.ipc.IpcReadOptions(included_fields=included))
        whole = reader if reopen is pyarrow.ipc.open_stream else map(reader.get_batch, range(reader.num_record_batches))
        pieces = (batch.slice(at, _AT_ONCE) for batch in whole for at in range(0, batch.num_rows, _AT_ONCE))
        yield from _batches(pieces, chosen, kinds, most)


def _batches(batches: Any, chosen: Sequence[str], kinds: dict[str, Any], most: Most) -> Numbered:
    number = read = 0
    for batch in batches:
        read += batch.nbytes
        most.check(read)
        for row in batch.to_pylist():
            number += 1
            yield number, {**dict.fromkeys(kinds), **row} if chosen else dict.fromkeys(kinds)


_FORMATS: dict[str, Callable[[OpenFile, Columns], Numbered]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _separated,
    ".tsv": _separated,
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".feather": _arrow,
}
#: Files that hold one document a row.
ROWS = tuple(_FORMATS)
