"""Which lines a figure shows where there are more than can be told apart: the seeds of a training as one line, the winner and the base before all others.

in   the states that were measured, each with the figure by which the better is told
out  lines, in the order of the states
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from ropewalk.records import format as number_format
from ropewalk.records.variant import Variant, labels, seeds_of_rows
from ropewalk.reports.contests import contests
from ropewalk.reports.rows import Clean

_CROWDED = 8  # more lines than this cannot be told apart in one figure
#: A variant, and the window that it was read at.
State = tuple[Variant, int]


@dataclass(frozen=True)
class Shown:
    """One line: a training's seeds that were measured at a window. name: without it."""

    name: str
    window: int
    seeds: list[Variant]

    @property
    def title(self) -> str:
        return f"{self.name}, {self.window}"

    @property
    def first(self) -> Variant:
        """For its looks, which its seeds share."""
        return self.seeds[0]


def to_draw(clean: Clean, values: Mapping[State, float]) -> tuple[list[Shown], str]:
    """Lines, and what a caption adds where they are not all: of the longest window the trained first, of those the best; winner and base whatever they are.

    values: of each state, the higher the better.
    """
    lines = _lines(list(values))
    always = _always(clean, lines)

    def rank(line: Shown) -> tuple:
        known = [value for seed in line.seeds if number_format.is_finite(value := values[seed, line.window])]
        return line not in always, line.first.role != "trained", -(fmean(known) if known else -math.inf)

    longest = max((line.window for line in lines), default=0)
    of_longest = [line for line in lines if line.window == longest or line in always]
    best = lines if len(lines) <= _CROWDED else sorted(of_longest, key=rank)[:_CROWDED]
    left_out = f" Drawn are {len(best)} of {len(lines)} lines; all are in the table." if len(best) < len(lines) else ""
    return [line for line in lines if line in best], left_out


def _lines(states: Sequence[State]) -> list[Shown]:
    lines = []
    for window in dict.fromkeys(window for _, window in states):
        variants = [variant for variant, at in states if at == window]
        names = labels(variants)
        lines += [Shown(names[seeds[0]], window, seeds) for seeds in seeds_of_rows(variants)]
    return sorted(lines, key=lambda line: states.index((line.first, line.window)))


def _always(clean: Clean, lines: Sequence[Shown]) -> list[Shown]:
    """The winner of the methods and the base, each at the longest window that it was read at."""
    winners = [variant for one in contests(clean) for variant in one.leader.variants]
    of_winner = [line for line in lines if line.first in winners]
    of_base = [line for line in lines if not (line.first.extended or line.first.steps)]
    return [max(each, key=lambda line: line.window) for each in (of_winner, of_base) if each]
