"""Figures of the seeds of one training in words: their mean, and the least and the largest of them, as tables have them.

in   a figure of each seed that has it, and how many seeds there are
out  words
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any


def spread(values: Sequence[float], write: Callable[[Any], str], seeds: int) -> str:
    """ "2 of 3 seeds, 8.1 to 8.4"; nothing where there is one seed, or all have the same figure."""
    few = f"{len(values)} of {seeds} seeds" if len(values) < seeds else ""
    least, largest = write(min(values)), write(max(values))
    return ", ".join(filter(None, [few, f"{'' if few else 'seeds '}{least} to {largest}" if least != largest else ""]))


def told(values: Sequence[float], write: Callable[[Any], str], seeds: int) -> str:
    """Their mean, with the spread in brackets."""
    around = spread(values, write, seeds)
    return write(fmean(values)) + (f" ({around})" if around else "")
