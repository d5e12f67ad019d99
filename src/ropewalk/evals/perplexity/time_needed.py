"""How long windows take on a CPU, reckoned before the first of them is read: one of 8192 tokens takes minutes there.

in   a model, windows
out  seconds; a sentence at the start of what takes minutes; a refusal of an estimate that cannot be had in its minutes

On a GPU nothing is reckoned: the first batch shows it in a moment.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ropewalk.data.sliding import SlidingWindow
from ropewalk.distributed.ranks import rank, same
from ropewalk.distributed.ranks import size as world_size
from ropewalk.errors import UserError
from ropewalk.evals.perplexity.strata import Unit, fewest_of, order_of
from ropewalk.planner.shape import read_shape
from ropewalk.progress import clock
from ropewalk.records.format import duration
from ropewalk.training.deadline import seconds_of

_logger = logging.getLogger(__name__)
#: Seconds: what takes less is neither announced nor refused.
_SHORT = 20.0


def reckoned(model: Any, windows: Iterable[SlidingWindow]) -> float:
    """Seconds that windows take at the rate of a matrix product here and now, as the first rank measures it; 0 where nobody knows.

    A weight is one multiplication and one addition a token, those of the head for scored tokens alone; a model whose config the planner
    cannot count, or on a GPU, is not reckoned.
    """
    device = next(model.parameters()).device
    if device.type != "cpu":
        return 0.0
    try:
        shape = read_shape(model.config.to_dict(), name="")
    except UserError:
        return 0.0
    flops = 0.0
    for (tokens, scored), count in Counter((each.stop - each.start, each.scored) for each in windows).items():
        body = 2.0 * (shape.active_weights - shape.embedding) + shape.attention_flops(tokens)
        flops += count * (tokens * body + 2.0 * shape.embedding * scored)
    return same(seconds_of(flops, device))


def announce(title: str, model: Any, windows: Sequence[SlidingWindow], ways: str) -> None:
    """Say at the start how long this rank's windows will take, where that is more than a moment. ways: what makes it shorter."""
    seconds = reckoned(model, windows)
    if rank() == 0 and seconds >= _SHORT:
        _logger.info("%s: %s windows, about %s here; %s", title, f"{len(windows):,}", duration(seconds), ways)


@dataclass(frozen=True)
class OfWhat:
    """What is estimated. title: of its progress. ways: what makes the reading of a window shorter, in the words of the command."""

    title: str
    ways: str

    def refuse_hopeless(self, seconds: float, minutes: float, fewest: int, windows: int) -> None:
        """Refuse an estimate whose fewest windows take longer than its minutes.

        seconds: of the fewest. windows: all there are. Equal on every rank.

        Raises:
            UserError: they do.
        """
        if seconds > max(_SHORT, 60 * minutes):
            raise UserError(
                f"{self.title}: {fewest} of {windows:,} windows are the fewest that give an interval and take about {clock(seconds)} here, and "
                f"--budget is {clock(60 * minutes)}; give --budget {enough(seconds)} or more, or ask for {self.ways}"
            )


def reckon(model: Any, units: Sequence[Unit], of_what: OfWhat, *, minutes: float, seed: int) -> None:
    """Refuse an estimate that `minutes` are too few for, as arithmetic has it; the first batch shows it better. Raises UserError."""
    order = order_of(units, seed)
    fewest = fewest_of(units, order)
    seconds = reckoned(model, [units[place].window for place in order[:fewest]]) / world_size()
    of_what.refuse_hopeless(seconds, minutes, fewest, len(units))


def enough(seconds: float) -> int:
    """Minutes of a budget in which so many seconds are, and a fifth more."""
    return int(1.2 * seconds / 60) + 1
