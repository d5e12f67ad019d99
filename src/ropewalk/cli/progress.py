"""What the terminal sees of the log: sentences and progress bars on stderr, so that stdout holds results alone.

in   records of the logger "ropewalk" and its children
out  on a terminal, bars with sentences above them; elsewhere (a log file, a batch system) lines, one every ten seconds

    quiet    errors alone
    (none)   sentences and progress
    verbose  debugging messages too
"""

from __future__ import annotations

import logging
import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID
from rich.table import Column
from rich.text import Text

from ropewalk.progress import PROGRESS, Event, clock, is_first_process

#: Columns of a bar: the words need the rest of eighty.
_BAR = 16
#: Seconds over which the rate is taken that the time left follows from: on a CPU a single window takes minutes.
_RATE_OVER = 3600.0


class _Words(ProgressColumn):
    """The time left, and what an event says (which may be both), on one line: a narrow terminal cuts off its end."""

    def __init__(self) -> None:
        super().__init__(table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1))

    def render(self, task: Task) -> Text:
        event: Event = task.fields["event"]
        left = None if event.detail else task.time_remaining
        return Text(str(event) if left is None else f"{clock(left)} left  {event}", no_wrap=True, overflow="ellipsis")


class TerminalHandler(logging.Handler):
    """Draws progress and writes sentences. A bar lives from the first event of its work to the last."""

    def __init__(self) -> None:
        super().__init__()
        self._console = Console(stderr=True, highlight=False)
        self._bars: Progress | None = None
        self._tasks: dict[int, TaskID] = {}
        #: Whether an error was logged: what was asked for is then not all there, though the command went on.
        self.failed = False

    def emit(self, record: logging.LogRecord) -> None:
        self.failed |= record.levelno >= logging.ERROR
        event = getattr(record, "progress", None)
        if self._console.is_terminal and isinstance(event, Event):
            self._draw(event)
        elif record.levelno >= logging.INFO or event is None:
            self._write(record)

    def close(self) -> None:
        """Put the terminal and the logger back as they were, whatever ended the command."""
        self._stop()
        logger = logging.getLogger("ropewalk")
        logger.removeHandler(self)
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
        super().close()

    def _write(self, record: logging.LogRecord) -> None:
        sentence = self.format(record)
        if record.levelno >= logging.WARNING:
            sentence = f"ropewalk: {sentence}"
        if self._bars is not None:
            self._bars.console.print(sentence, markup=False, highlight=False, soft_wrap=True)
        else:
            print(sentence, file=sys.stderr, flush=True)

    def _draw(self, event: Event) -> None:
        if self._bars is None:
            self._bars = Progress(
                BarColumn(_BAR),
                _Words(),
                console=self._console,
                transient=True,
                refresh_per_second=2,
                expand=True,
                speed_estimate_period=_RATE_OVER,
            )
            self._bars.start()
        if event.work not in self._tasks:
            self._tasks[event.work] = self._bars.add_task("", total=event.total, completed=event.done, event=event)
        self._bars.update(self._tasks[event.work], completed=event.done, event=event)
        if event.ended:
            self._bars.remove_task(self._tasks.pop(event.work))
            if not self._tasks:
                self._stop()

    def _stop(self) -> None:
        if self._bars is not None:
            self._bars.stop()
        self._bars = None
        self._tasks.clear()


def log_to_terminal(*, quiet: bool = False, verbose: bool = False) -> TerminalHandler:
    """Show ropewalk's log on stderr, as the commands do; a second call replaces the first one's choice.

    In a notebook or a script this gives `ropewalk.train` its bar. The processes of torchrun but the first show errors alone.
    """
    logger = logging.getLogger("ropewalk")
    for handler in list(logger.handlers):
        if isinstance(handler, TerminalHandler):
            handler.close()
    handler = TerminalHandler()
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.ERROR if quiet or not is_first_process() else logging.DEBUG if verbose else PROGRESS)
    return handler
