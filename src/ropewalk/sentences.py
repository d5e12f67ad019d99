"""Numbers, sizes and lists in sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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


def _decimals(value: float, digits: int) -> str:
    return f"{value:.{digits}f}"


def size_in_words(size: float, digits: int = 1) -> str:
    """Bytes in GiB, or in MiB where they are less than one."""
    return f"{size / 2**30:.{digits}f} GiB" if size >= 2**30 else f"{size / 2**20:.{digits}f} MiB"


def apart(*values: float, words: Callable[[float, int], str] = _decimals) -> list[str]:
    """Numbers that a sentence compares, with one decimal, or as many as show that they differ."""
    for digits in range(1, 20):
        told = [words(value, digits) for value in values]
        if len({*told}) == len({*values}):
            break
    return told


def sizes_apart(*sizes: float) -> list[str]:
    """The same of bytes."""
    return apart(*sizes, words=size_in_words)
