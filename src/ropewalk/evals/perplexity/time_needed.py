"""An estimate for which its minutes are too few, refused before its first window is read.

in   a model, the windows there are, minutes
out  a refusal that says how many would do, reckoned by evals/time_needed.py
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ropewalk.distributed.ranks import rank
from ropewalk.distributed.ranks import size as world_size
from ropewalk.errors import UserError
from ropewalk.evals.perplexity.strata import Unit, fewest_of, order_of
from ropewalk.evals.time_needed import SHORT, passes_of, reckoned
from ropewalk.progress import clock

_logger = logging.getLogger(__name__)
#: How many times longer than reckoned the reading may well take, or shorter.
_SURE = 1.2


@dataclass(frozen=True)
class OfWhat:
    """What is estimated. title: of its progress. ways: what makes the reading of a window shorter, in the words of the command. units: what is read.
    interval: what the fewest of them give.
    """

    title: str
    ways: str
    units: str = "windows"
    interval: str = "an interval"

    def refuse_hopeless(self, seconds: float, minutes: float, fewest: int, windows: int) -> None:
        """Refuse an estimate whose fewest windows take longer than its minutes, and by more than the reckoning may be wrong.

        seconds: of the fewest. windows: all there are. Equal on every rank.

        Raises:
            UserError: they do.
        """
        if seconds > max(SHORT, _SURE * 60 * minutes):
            raise UserError(
                f"{self.title}: {fewest} of {windows:,} {self.units} are the fewest that give {self.interval} and take about {clock(seconds)} here, and "
                f"--budget is {clock(60 * minutes)}; give --budget {enough(seconds)} or more, or ask for {self.ways}"
            )

    def tell_if_over(self, seconds: float, minutes: float, fewest: int) -> None:
        """Say that what is not refused may end a little late. seconds: of the fewest."""
        if rank() == 0 and SHORT < 60 * minutes < seconds:
            _logger.info(
                f"{self.title}: {fewest} {self.units} are the fewest that give {self.interval} and take about {clock(seconds)} here, a little more than --budget "
                f"{clock(60 * minutes)}: these are read"
            )


def reckon(model: Any, units: Sequence[Unit], of_what: OfWhat, *, minutes: float, seed: int) -> None:
    """Refuse an estimate that `minutes` are too few for, as arithmetic has it; the first batch shows it better. Raises UserError."""
    order = order_of(units, seed)
    fewest = fewest_of(units, order)
    seconds = reckoned(model, passes_of([units[place].window for place in order[:fewest]])) / world_size()
    of_what.refuse_hopeless(seconds, minutes, fewest, len(units))
    of_what.tell_if_over(seconds, minutes, fewest)


def enough(seconds: float) -> int:
    """Minutes of a budget in which so many seconds are, and a fifth more."""
    return int(_SURE * seconds / 60) + 1
