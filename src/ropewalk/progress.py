"""Progress of a long piece of work as log records: nothing here prints or draws.

in   a title, a total, and how much was done
out  records of the logger "ropewalk.progress", each with an `Event` as its attribute `progress`

An advance is logged at level PROGRESS, below INFO, unless one was a moment before: a log record takes longer than reading a short document. At most every ten seconds one of them is an INFO record, so that a script with
`logging.basicConfig(level=logging.INFO)` sees lines and not thousands of them. The command line draws bars from the same records
(cli/progress.py). Of the processes that torchrun started only the first logs its progress.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType

#: The level of an advance that a log file need not show: between DEBUG and INFO.
PROGRESS = 15
#: Seconds between two INFO records of one piece of work.
BETWEEN_LINES = 10.0
#: Seconds between two records of any level that say no more than how far the work is.
_BETWEEN_RECORDS = 0.05

_logger = logging.getLogger(__name__)
#: When the command line was entered, before anything heavy was imported.
ENTERED: ContextVar[float | None] = ContextVar("entered", default=None)
#: Is shown the title of whatever advances, and raises where that comes too late.
IN_TIME: ContextVar[Callable[[str], None] | None] = ContextVar("in_time", default=None)


@dataclass(frozen=True)
class Event:
    """How far one piece of work is.

    Attributes:
        work: which one; equal for all events of one `Progress`.
        title: what is done.
        done, total: in any unit; the total is None where nobody knows it.
        detail: more about this moment, for a human.
        ended: whether this is the last event.
    """

    work: int
    title: str
    done: int
    total: int | None
    detail: str = ""
    ended: bool = False

    def __str__(self) -> str:
        if self.detail:
            return self.detail
        return f"{self.title}: {self.done:,}" + ("" if self.total is None else f" of {self.total:,}")


class Progress:
    """One piece of work; a context manager that gives the function to call with how much was done.

    title, total: as in `Event`. done: what an earlier run has done. news: whether the first and the last advance are INFO records; other work
    is silent for its first ten seconds, which is the whole of it if it is short.
    """

    def __init__(self, title: str, total: int | None = None, *, done: int = 0, news: bool = False) -> None:
        self._title, self._total, self._done = title, total, done
        self._news, self._next_line = news, time.monotonic() + (0.0 if news else BETWEEN_LINES)
        self._next_record = 0.0
        self._silent = not is_first_process()

    def __enter__(self) -> Callable[..., None]:
        self.begin()
        return self.advance

    def begin(self) -> None:
        """Log that the work begins."""
        self._log(PROGRESS)

    def advance(self, count: int = 1, detail: str = "") -> None:
        """Log that `count` more units are done; `detail` replaces the line's usual words."""
        self._done += count
        now = time.monotonic()
        if (check := IN_TIME.get()) is not None:
            check(self._title)
        is_line = now >= self._next_line or (self._news and self._done == self._total)
        if is_line:
            self._next_line = now + BETWEEN_LINES
        elif now < self._next_record and not detail and self._done != self._total:
            return
        self._next_record = now + _BETWEEN_RECORDS
        self._log(logging.INFO if is_line else PROGRESS, detail)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Log that the work has ended, finished or not."""
        self._log(PROGRESS, ended=True)

    def _log(self, level: int, detail: str = "", *, ended: bool = False) -> None:
        if not self._silent and _logger.isEnabledFor(level):
            event = Event(id(self), self._title, self._done, self._total, detail, ended)
            _logger.log(level, "%s", event, extra={"progress": event})


def is_first_process() -> bool:
    """Whether this is the only process, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0" or os.environ.get("WORLD_SIZE", "1") == "1"


def began() -> float:
    """When the command began, by `time.monotonic`: now, if it is called from Python."""
    entered = ENTERED.get()
    return time.monotonic() if entered is None else entered


def clock(seconds: float) -> str:
    """Hours, minutes and seconds: 1:02:03, or 2:03."""
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
