"""Numbers and lists in sentences."""

from __future__ import annotations

from collections.abc import Iterable


def counted(number: int, noun: str, form: str = "") -> str:
    """1 window, 2 windows; form: of the number, as in a format string."""
    return f"{number:{form}} {noun}{'s' if number != 1 else ''}"


def joined(words: Iterable[object]) -> str:
    """256; 256 and 512; 256, 512 and 1024."""
    *first, last = map(str, words)
    return f"{', '.join(first)} and {last}" if first else last
