"""Numbers and lists in sentences."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Decimal


def counted(number: int, noun: str, form: str = "") -> str:
    """1 window, 2 windows; form: of the number, as in a format string."""
    return f"{number:{form}} {noun}{'s' if number != 1 else ''}"


def share(part: float, digits: int = 0) -> str:
    """A part of a whole: 0.75 → 75 %; halves up, 1/8 → 13 %. The blank is a narrow one that does not break."""
    # By the shortest decimals of the number, since 100 times 0.145 falls short of 14.5.
    percent = (Decimal(repr(float(part))) * 100).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)
    return f"{percent:f}\u202f%"


def joined(words: Iterable[object]) -> str:
    """256; 256 and 512; 256, 512 and 1024."""
    *first, last = map(str, words)
    return f"{', '.join(first)} and {last}" if first else last
