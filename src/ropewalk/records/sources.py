"""What a record calls the texts that were read: names in one line, and back.

in   the names of sources
out  one text: names joined by blanks; a name that has one itself, a comma or a quote stands in double quotes, as JSON writes it
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

#: A quoted name, or a word; a letter of `reports/same_names.py` may follow.
_NAME = re.compile(r'("(?:[^"\\]|\\.)*")(\[\w+\])?(?=[,\s]|$)|[^,\s]+')
_WEIGHT = re.compile(r"[\d.]+(@\w+)?|@\w+")


class Named(NamedTuple):
    """Sources as a record names them. more: how many it only counts."""

    names: list[str]
    more: int = 0


def write_names(names: Sequence[str], written: int) -> str:
    """The first of them, and how many more."""
    shown, more = list(names[:written]), len(names) - written
    text = " ".join(json.dumps(name, ensure_ascii=False) if re.search(r'[\s,"]', name) else name for name in shown)
    if read_names(text).names != shown:  # it would be taken for one of an old record
        text = " ".join(json.dumps(name, ensure_ascii=False) for name in shown)
    return f"{text} and {more} more" if more > 0 else text


def with_letter(text: str, letter: str) -> str:
    """With a letter behind the first name."""
    first = _NAME.match(text)
    end = first.end() if first else 0
    return f"{text[:end]}{letter}{text[end:]}"


def read_names(text: str) -> Named:
    """What `write_names` wrote. Records of before have no quotes: there a word is the rest of a name with a blank where the one before has no ending and this
    one has no folder, but an ending (`my test.jsonl`), or the one before has a folder (`books/my test`)."""
    text, more = text.strip(), 0
    if (rest := re.search(r" and (\d+) more$", text)) is not None:
        text, more = text[: rest.start()], int(rest[1])
    names: list[str] = []
    open_name = False  # whether the last may go on
    for found in _NAME.finditer(text):
        if found[1]:
            names.append(json.loads(found[1]) + (found[2] or ""))
            open_name = False
            continue
        word = found[0]
        blank = text[: found.start()].endswith(" ")
        if (
            open_name
            and blank
            and "/" not in word
            and not _WEIGHT.fullmatch(word)
            and ("/" in names[-1] or "." in word)
        ):
            names[-1] += f" {word}"
        else:
            names.append(word)
        open_name = not _WEIGHT.fullmatch(word) and "." not in word.rpartition("/")[2]
    return Named(names, more)
