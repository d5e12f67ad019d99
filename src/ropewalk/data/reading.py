"""What of a row is read: its text, or the turns of a conversation.

in   numbered rows (rows.py), and which field or which columns are meant
out  `Document`s and `Conversation`s
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ropewalk.data.conversations import COLUMNS, Conversation, conversation_of, is_conversation, unread
from ropewalk.data.rows import line_ends
from ropewalk.errors import UserError

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


class NoText(UserError):
    """A file's first row has no text: an error if the user named it, a warning if it was met in a directory."""


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
        turns = [] if self.conversations == "never" or self.field is not None else [c for c in COLUMNS if c in kinds]
        if texts and self.conversations == "also":
            turns = []
        fields = list(dict.fromkeys([*texts, *turns]))
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
    for number, row in rows:
        is_first, settled = settled is None, settled or reading.settled(row)
        where, field = f"{place} {number} of {source}", settled.field
        if settled.conversations == "first" and isinstance(row, dict) and is_conversation(row, field):
            talk = conversation_of(row, f"{source}:{_row_name(row, field) or number}", where, field)
            half_pairs += HALF_PAIRS.search(talk.text) is not None
            unread_keys |= unread(row, field)
            yield talk
            continue
        try:
            text = _row_text(row, field, where)
        except NoText as error:
            raise error if is_first else UserError(str(error)) from None
        if not text.strip():
            empty += 1
            continue
        if not text.isascii() and HALF_PAIRS.search(text):
            half_pairs += 1
            text = HALF_PAIRS.sub("\ufffd", text)
        yield Document(f"{source}:{_row_name(row, field) or number}", line_ends(text))
    if unread_keys:
        warnings.warn(
            f"turns of {source} have {', '.join(sorted(map(str, unread_keys)))} beside their text, which is left out",
            stacklevel=3,
        )
    if half_pairs:
        warnings.warn(f"half a surrogate pair in {source} is read as U+FFFD (rows: {half_pairs})", stacklevel=3)
    if empty:
        warnings.warn(f"what is empty under {field!r} in {source} is left out (rows: {empty})", stacklevel=3)


def _row_text(row: Any, field: str | None, place: str) -> str:
    if not isinstance(row, dict):
        raise UserError(f"{place} is a {type(row).__name__}, not an object with fields; mend it")
    if field not in row:
        missing = f"has no field {field!r}" if field else f"has none of the fields {', '.join(FIELDS)}"
        turns = " (`ropewalk train` reads rows of turns)" if is_conversation(row) else ""
        raise NoText(f"{place} {missing}; it has {', '.join(map(str, row))}: name one with --field{turns}")
    text = "" if row[field] is None else row[field]
    if not isinstance(text, str):
        raise UserError(f"field {field!r} in {place} is a {type(text).__name__}, not text; name another with --field")
    return text


def _row_name(row: dict[str, Any], text_field: str | None) -> str:
    for name in _NAME_FIELDS:
        if name != text_field and isinstance(row.get(name), str | int) and str(row[name]).strip():
            return str(row[name])[:80]
    return ""


def text_digest(text: str) -> str:
    """A hash of a text, by which it is known whatever it is called."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _is_a_name(kind: Any) -> bool:
    import pyarrow.types

    return pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind) or pyarrow.types.is_integer(kind)
