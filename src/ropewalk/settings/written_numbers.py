"""Numbers as people write them on a command line: 32k tokens, 1.5h; one that cannot be read is handed on, and refused where its option is known."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tyro.constructors import PrimitiveConstructorSpec

#: Tokens below which a window in a list is likelier the thousands of a number.
_SHORT = 64


class Unread(str):
    """A word that was typed for a number and is none; `why` says how that is written, if not as usual."""

    why = ""


def tokens(word: str) -> int:
    """A number of tokens as people write it: 32768, 32_768, 32k (32 x 1024), 1M (1024 x 1024).

    Raises:
        ValueError: anything else.
    """
    match = re.fullmatch(r"(-?\d+(?:_\d+)*)([km]?)", word.strip().lower())
    if match is None:
        raise ValueError("as in 32768, 32_768, 32k (32 x 1024) or 1M")
    return int(match[1]) * {"": 1, "k": 2**10, "m": 2**20}[match[2]]


def is_likelier_thousands(word: str) -> bool:
    """Whether a word in a list of tokens is likelier one number with commas between thousands (16,384; 32,000) than several windows (256,512).

    Both are of one to three digits and groups of three; it is one number if that is a multiple of 1024, a group begins with zero, or the first
    number would be a window of less than 64 tokens.
    """
    if re.fullmatch(r"[1-9]\d{0,2}(,\d{3})+", word) is None:
        return False
    return int(word.replace(",", "")) % 1024 == 0 or ",0" in word or int(word.partition(",")[0]) < _SHORT


def minutes(word: str) -> float:
    """A number of minutes as people write it: 5, 0.5, 5m, 1h, 1.5h.

    Raises:
        ValueError: anything else.
    """
    match = re.fullmatch(r"(-?\d*\.?\d+(?:e-?\d+)?)(m|min|h)?", word.strip().lower())
    if match is None:
        raise ValueError("as in 5, 0.5, 5m or 1h")
    return float(match[1]) * (60 if match[2] == "h" else 1)


def typed(metavar: str, read: Callable[[str], Any], kind: Any) -> PrimitiveConstructorSpec[Any]:
    """A number that people write with a unit: how the command line reads it."""
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: read_or_not(read, words[0]),
        is_instance=lambda value: isinstance(value, kind) and not isinstance(value, bool),
        str_from_instance=lambda value: [str(value)],
    )


def read_or_not(read: Callable[[str], Any], word: str) -> Any:
    """The number that a word is; else the word itself, which the settings refuse under the option's name."""
    try:
        return read(word)
    except ValueError as error:
        unread = Unread(word)
        unread.why = str(error) if read in (tokens, minutes) else ""
        return unread
