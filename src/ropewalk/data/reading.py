"""What of a row is read: its text, or the turns of a conversation.

in   numbered rows (rows.py), and which field or which columns are meant
out  `Document`s and `Conversation`s
"""

from __future__ import annotations

import collections
import hashlib
import itertools
import logging
import re
import shlex
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ropewalk.data.conversations import (
    BESIDE_TURNS,
    COLUMNS,
    TURNS,
    Conversation,
    columns_of,
    conversation_of,
    is_conversation,
    unread,
    with_turns,
)
from ropewalk.data.preferences import Preferences, preferences_in, tells_of_preferences
from ropewalk.data.rows import Unreadable, json_kind, line_ends, refusal_of
from ropewalk.errors import UserError
from ropewalk.sentences import counted

_logger = logging.getLogger(__name__)
#: Fields that are tried for a row's text when none was named: what published sets of long documents call it.
FIELDS = ("text", "content", "document")
#: An escape in JSON can name one half of a surrogate pair (\ud83d), which is not a character; tokenizers refuse it.
HALF_PAIRS = re.compile("[\ud800-\udfff]")
#: Rows that are looked at after a bad one, for others.
_LOOKED_AT = 10**6
#: Fields that name a row, in the order in which they are tried.
_NAME_FIELDS = ("id", "name", "title", "path", "url")


@dataclass(frozen=True)
class Document:
    """A text, and the name that messages and records call it by."""

    name: str
    text: str


class NoText(UserError):
    """A file's first row has no text, or none that is right: an error if the user named it, a warning if it was met in a directory."""


@dataclass(frozen=True)
class Reading:
    """What of a row is read.

    Attributes:
        field: that holds the text; if None, the first of FIELDS that the first row has.
        conversations: whether rows of turns are read, as `Conversation`s: never, where a row has no text, or before its text.
    """

    field: str | None = None
    conversations: Literal["never", "also", "first"] = "never"

    def columns(self, kinds: dict[str, Any]) -> list[str]:
        """Of a file's columns (name → Arrow type) those that are needed; none where there is nothing to read."""
        if self.field is not None:
            texts = [name for name in (self.field,) if name in kinds]
        else:
            texts = [name for name in FIELDS if name in kinds][:1]
        if self.field is not None:
            turns = [name for name in BESIDE_TURNS if name in kinds and texts and _is_a_list(kinds[self.field])]
        else:
            turns = [name for name in COLUMNS if name in kinds and (self.conversations == "first" or not texts)]
        turns = [] if self.conversations == "never" else turns
        judged = [name for name in kinds if self.field is None and tells_of_preferences(name)]
        fields = list(dict.fromkeys([*texts, *turns, *judged]))
        names = [name for name in _NAME_FIELDS if name in kinds and name not in fields and _is_a_name(kinds[name])]
        return [*fields, *names] if fields else []

    def settled(self, row: Any) -> Reading:
        """As a file's first row decides it: with a field, or as conversations."""
        if not isinstance(row, dict):
            return self
        field = self.field or next((name for name in FIELDS if name in row), None)
        turns = self.conversations != "never" and is_conversation(row, self.field)
        if turns and (self.field is not None or field is None or self.conversations == "first"):
            return Reading(self.field, "first")
        return Reading(field)


def from_rows(
    rows: Iterable[tuple[int, Any]], source: str, reading: Reading, place: str
) -> Iterator[Document | Conversation]:
    """What numbered rows hold; the first row decides where their text is, if no field is named."""
    empty = half_pairs = 0
    unread_keys: set[str] = set()
    settled: Reading | None = None
    rows = iter(rows) if reading.conversations == "never" else ((number, with_turns(row)) for number, row in rows)
    with _Beside(source) as beside:
        for number, row in rows:
            is_first, settled = settled is None, settled or reading.settled(row)
            try:
                item = _item(number, row, source, settled, place, guessed=reading.field is None)
            except UserError as error:
                if is_first and isinstance(error, NoText):
                    raise
                known = settled if isinstance(row, dict) or not is_first else None
                raise refusal_of(
                    error,
                    _errors(rows, source, reading, known, place),
                    source if place == "line" else "",
                ) from None
            if isinstance(item, Conversation):
                half_pairs += HALF_PAIRS.search(item.text) is not None
                unread_keys |= unread(row, settled.field)
                beside.count(row, columns_of(row), reading)
                yield item
                continue
            text = item.text
            if not text.strip():
                empty += 1
                continue
            if not text.isascii() and HALF_PAIRS.search(text):
                half_pairs += 1
                text = HALF_PAIRS.sub("\ufffd", text)
            beside.count(row, (str(settled.field),), reading)
            yield Document(item.name, line_ends(text))
    field = None if settled is None else settled.field
    if unread_keys:
        warnings.warn(
            f"turns of {source} have {', '.join(sorted(map(str, unread_keys)))} beside their text, which is left out",
            stacklevel=3,
        )
    if half_pairs:
        warnings.warn(f"half a surrogate pair in {source} is read as U+FFFD (rows: {half_pairs})", stacklevel=3)
    if empty:
        warnings.warn(f"what is empty under {field!r} in {source} is left out (rows: {empty})", stacklevel=3)


class _Beside:
    """What rows hold beside what is read of them, where a text stands beside turns or beside its summary; said when no more are read."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._counts: collections.Counter[tuple[tuple[str, ...], ...]] = collections.Counter()

    def count(self, row: Any, used: tuple[str, ...], reading: Reading) -> None:
        """Of a row that is read from the columns `used`. Who named a field leaves out the others knowingly."""
        if reading.field is not None or not isinstance(row, dict) or not (talk := columns_of(row)):
            return
        others = FIELDS if used == talk else talk
        if left_out := tuple(name for name in others if name in row and name not in used):
            self._counts[used, left_out, talk] += 1

    def __enter__(self) -> _Beside:
        return self

    def __exit__(self, *_: object) -> None:
        for (used, left_out, talk), count in self._counts.items():
            way_out = f"`train` reads {' and '.join(talk)} with --loss answers or --loss all"
            verbs = ["is" if len(columns) == 1 else "are" for columns in (used, left_out)]
            _logger.info(
                f"{self._source}: of {counted(count, 'row', ',')} {' and '.join(used)} {verbs[0]} read, and {' and '.join(left_out)} {verbs[1]} not: "
                f"{'without --loss the text is' if used == talk else way_out}"
            )


def _item(
    number: int, row: Any, source: str, settled: Reading, place: str, *, guessed: bool
) -> Document | Conversation:
    """What one row holds. guessed: the field is the first row's, and nobody named it. Raises UserError: it is none of those that the first row promised."""
    if isinstance(row, UserError):
        raise row
    where, field = f"{place} {number} of {source}", settled.field
    if guessed and isinstance(row, dict) and (preferences := preferences_in(row, FIELDS)):
        raise _of_preferences(where, preferences, in_lines=place == "line")
    if settled.conversations == "first" and isinstance(row, dict) and is_conversation(row, field):
        return conversation_of(row, f"{source}:{_row_name(row, field) or number}", where, field)
    if isinstance(row, dict) and (settled.conversations == "first" if field is None else guessed and field not in row):
        raise _of_another_kind(row, where, field)
    text = _row_text(row, field, where)
    return Document(f"{source}:{_row_name(row, field) or number}", text)


def _of_preferences(where: str, preferences: Preferences, *, in_lines: bool) -> NoText:
    """That a row of preferences is not read."""
    by_jq = f" (`jq -c {shlex.quote(preferences.liked)}` does)" if in_lines and preferences.liked else ""
    return NoText(
        f"{where} holds {preferences.what}, and a row is read as one text or one conversation that is right as it stands, since nothing here trains on "
        f"preferences; write the preferred answers alone into a file, as messages, as prompt and completion, or as text{by_jq}"
    )


def _of_another_kind(row: dict[str, Any], where: str, field: str | None) -> UserError:
    """What a row is that is none of those before it. field: of the text that these have; None where they are conversations."""
    text = next((name for name in FIELDS if name in row and name != field), None)
    columns = ", ".join(map(str, row)) or "nothing"
    if field is None:
        what = "is a text" if text else f"has none of their columns, but {columns}"
    elif talk := columns_of(row):
        what = f"is a conversation ({', '.join(talk)})"
    else:
        what = f"has its text under {text!r}" if text else f"has no {field!r}, but {columns}"
    others = "conversations" if field is None else f"texts under {field!r}"
    way_out = f", or call it {field!r}" if text and field else ""
    return UserError(
        f"{where} {what}, and the rows of this file are {others}, as its first: rows of another kind go into a file of their own{way_out}"
    )


def _errors(
    rows: Iterator[tuple[int, Any]], source: str, reading: Reading, settled: Reading | None, place: str
) -> Iterator[UserError]:
    """What is wrong with the rows after one that is; of a stream, which may never end, with the next ones."""
    try:
        for number, row in itertools.islice(rows, _LOOKED_AT):
            try:
                settled = settled or (reading.settled(row) if isinstance(row, dict) else None)
                _item(number, row, source, settled or reading, place, guessed=reading.field is None)
            except UserError as error:
                yield error
    except (UserError, Unreadable) as error:  # the file itself, further on
        yield UserError(str(error))


def _row_text(row: Any, field: str | None, place: str) -> str:
    if not isinstance(row, dict):
        raise UserError(f"{place} is {json_kind(row)}, not an object with fields; mend it")
    if field not in row:
        missing = f"has no field {field!r}" if field else f"has none of the fields {', '.join(FIELDS)}"
        if field:
            way_out = "name one with --field"
        elif is_conversation(with_turns(row)):
            way_out = "turns are read by training and by measures of a text, not here"
        elif isinstance(turns := row.get(TURNS[0]), str):
            way_out = f"a conversation's are a list of {{role, content}}, or JSON of one, and this is {turns[:20]!r}; write it so, or call a text {FIELDS[0]}"
        else:
            way_out = f"call the one with the text {FIELDS[0]}, or name it where a command has --field"
        raise NoText(f"{place} {missing}; it has {', '.join(map(str, row))}: {way_out}")
    text = "" if row[field] is None else row[field]
    if not isinstance(text, str):
        raise UserError(f"field {field!r} in {place} is {json_kind(text)}, not a text; name another, or mend it")
    return text


def _row_name(row: dict[str, Any], text_field: str | None) -> str:
    for name in _NAME_FIELDS:
        if name != text_field and isinstance(row.get(name), str | int) and str(row[name]).strip():
            return str(row[name])[:80]
    return ""


def text_digest(text: str) -> str:
    """A hash of a text, by which it is known whatever it is called."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _is_a_list(kind: Any) -> bool:
    import pyarrow.types

    return pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind)


def _is_a_name(kind: Any) -> bool:
    import pyarrow.types

    return pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind) or pyarrow.types.is_integer(kind)
