"""When to stop: a loss that says the run is lost, and a signal that says the machine is.

A NaN that reaches the optimiser is in every weight a moment later, so the losses and the gradient norm are looked at before
the optimiser step, and the sentence names what can be looked into: the step, the documents, the rank.
"""

from __future__ import annotations

import math
import os
import signal
import statistics
import threading
from collections import deque
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from ropewalk.errors import UserError
from ropewalk.progress import clock, is_first_process

#: Steps whose losses a new one is held against, and how many there must be before it is.
_REMEMBERED = 20
_ENOUGH = 5


class Diverged(UserError):
    """The loss or the gradient is not finite, or the loss exploded. The optimiser step was not taken."""


class Terminated(SystemExit):
    """SIGTERM arrived, and what had been done was saved. Exit code 143 = 128 + SIGTERM, as a shell would report it."""

    def __init__(self, message: str) -> None:
        super().__init__(143)
        self.message = message

    def __str__(self) -> str:
        return self.message


class Guard:
    """Holds each step's loss against the steps before it."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=_REMEMBERED)

    def limit(self) -> float:
        """The loss above which a step counts as exploded: three times the recent median, and at least 3 nats above it.

        A batch of unusual documents moves the loss by a nat or two; a run that blows up passes this within a few steps. The first
        losses of a run vary more, and a run that blew up among them would make its own median: until there are enough, a step is held
        against the lowest so far, and may be three times that or 10 nats above it (a guess among all tokens costs about 10).
        """
        if not self._recent:
            return math.inf
        if len(self._recent) < _ENOUGH:
            return max(3 * min(self._recent), min(self._recent) + 10)
        median = statistics.median(self._recent)
        return max(3 * median, median + 3)

    def check(
        self, step: int, loss: float, grad_norm: float, blame: Callable[[], str], saved: int | None = None
    ) -> None:
        """Let a sound step pass; stop at any other.

        Args:
            step: its number, from 1.
            loss: nats a token.
            grad_norm: before clipping.
            blame: says which rank and documents, asked only when needed.
            saved: the step of the last checkpoint.

        Raises:
            Diverged: naming step, rank and documents.
        """
        limit = self.limit()
        if math.isfinite(loss) and math.isfinite(grad_norm) and loss <= limit:
            self._recent.append(loss)
            return
        if not math.isfinite(loss):
            what = f"the loss is {loss}"
        elif not math.isfinite(grad_norm):
            what = f"the loss is {loss:.4g} but the gradient's norm is {grad_norm}"
        else:
            what = f"the loss is {loss:.4g}, after {statistics.median(self._recent):.4g} in the steps before"
        as_it_was = f"the checkpoint of step {saved} is as it was" if saved else "no checkpoint was written before"
        way_on = "go on with --resume --allow-changes" if saved else "begin again with --resume"
        raise Diverged(
            f"step {step} was not taken: {what} ({blame()}); {as_it_was}: look at these documents, lower --learning-rate, then {way_on}"
        )


def blame(everyone: Sequence[tuple[int, float, Sequence[str]]]) -> str:
    """Ranks and documents in words, from (rank, loss, documents) of micro batches: those whose loss is not finite, or the worst one."""
    bad = [entry for entry in everyone if not math.isfinite(entry[1])] or [max(everyone, key=lambda entry: entry[1])]
    parts = []
    for rank, loss, names in bad[:4]:
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        parts.append(f"rank {rank}: {loss:.4g} on {shown}")
    return "; ".join(parts) + (f"; and {len(bad) - 4} more" if len(bad) > 4 else "")


class Signals:
    """Remembers SIGTERM and SIGINT instead of dying of them, so that the loop can save first. A second SIGINT is obeyed at once.

    saves: whether it will.
    """

    def __init__(self, saves: bool = True) -> None:
        self._before_long, self._then = (
            (", and saving", "") if saves else ("", ", and nothing of this training is kept")
        )
        self.received: int | None = None
        #: Seconds of a micro batch and of saving; None before any was seen.
        self.takes: float | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        # Python lets only the main thread install handlers; elsewhere signals keep their usual effect.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._remember)
        return self

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.received == signal.SIGINT == number:
            raise KeyboardInterrupt
        if self.received is None and is_first_process():
            # Not by the logger, which may be in the middle of a line: a step may take minutes, in which nothing else is said.
            within = "" if self.takes is None else f", {clock(self.takes)} at most if they take as long as before"
            os.write(
                2,
                f"\nropewalk: stopping as soon as this micro batch is done{self._before_long}{within}{self._then}; Ctrl-C again ends at once\n".encode(),
            )
        self.received = number

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
