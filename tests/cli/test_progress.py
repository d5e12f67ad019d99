"""What a user sees of the log: nothing in a library, lines in a log file, bars on a terminal."""

from __future__ import annotations

import io
import logging
import re
import subprocess
import sys

import pytest
from rich.console import Console

from ropewalk import progress, records
from ropewalk.cli.progress import TerminalHandler, log_to_terminal
from ropewalk.progress import Event, Progress, clock
from ropewalk.training.log import line


@pytest.fixture
def logger():
    """The package's logger, put back afterwards."""
    logger = logging.getLogger("ropewalk")
    before = list(logger.handlers), logger.propagate, logger.level
    yield logger
    logger.handlers[:], logger.propagate = before[:2]
    logger.setLevel(before[2])


def test_a_library_says_nothing_until_its_user_asks() -> None:
    work = "import logging, ropewalk\nfrom ropewalk.progress import Progress\n"
    work += "with Progress('counting', 2, news=True) as advance: advance(); advance()\n"
    work += "logging.getLogger('ropewalk.x').warning('a word')\n"
    silent = subprocess.run([sys.executable, "-c", work], capture_output=True, text=True)
    assert (silent.stdout, silent.stderr) == ("", "")
    asked = work.replace(
        "import Progress\n", "import Progress\nlogging.basicConfig(level='INFO', format='%(message)s')\n", 1
    )
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True)
    assert told.stderr.splitlines() == ["counting: 1 of 2", "counting: 2 of 2", "a word"]


def test_at_most_every_ten_seconds_an_advance_is_a_line(monkeypatch, caplog) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO, logger="ropewalk"), Progress("reading", 8) as advance:
        for _ in range(8):
            now[0] += 4
            advance(detail=f"at {now[0]:.0f}")
    assert caplog.messages == ["at 112", "at 124"]


def test_of_advances_that_follow_at_once_the_first_and_the_last_are_records(monkeypatch, caplog) -> None:
    """A record for each of many short documents took longer than reading them."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with caplog.at_level(progress.PROGRESS, logger="ropewalk"), Progress("reading", 2000) as advance:
        for number in range(2000):
            now[0] += 1.0 if number == 1000 else 1e-6
            advance()
    done = [record.progress.done for record in caplog.records]
    assert done == [0, 1, 1001, 2000, 2000]  # as it begins and as it ends, too


def test_of_many_processes_the_first_tells_its_progress(monkeypatch, caplog) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with caplog.at_level(progress.PROGRESS, logger="ropewalk"), Progress("reading", 2, news=True) as advance:
        advance(2)
    assert not caplog.messages


def test_a_terminal_has_bars_and_a_sentence_stands_above_them(logger) -> None:
    handler = log_to_terminal()
    screen = io.StringIO()
    handler._console = Console(file=screen, force_terminal=True, width=80)
    with Progress("outer", 4, done=1) as advance:
        with Progress("inner", 2) as advance_inner:
            advance_inner()
            logging.getLogger("ropewalk.x").info("a [bold] sentence")
        advance(2)
        handler._bars.refresh()
    assert handler._bars is None and not handler._tasks
    drawn = screen.getvalue()
    assert "a [bold] sentence" in drawn and "outer: 3 of 4" in drawn


def test_eighty_columns_keep_the_time_that_is_left(logger) -> None:
    """One line a bar, cut off at its end: the step and the time stay."""
    handler = log_to_terminal()
    screen = io.StringIO()
    handler._console = Console(file=screen, force_terminal=True, width=80, legacy_windows=False, color_system=None)
    step = records.Step(1000, 2.5, 2e-5, 0.5, 65536, 8605.0, 30.0, 0.605, 70 * 2**30, seconds_left=36000)
    with Progress("training", 2000, done=999) as advance:
        advance(detail=line(step, 2000))
        handler._bars.refresh()
    lines = [part for part in re.split(r"[\r\n]+|\x1b\[\S*?[A-Za-z]", screen.getvalue()) if "step" in part]
    assert lines and all("step 1000/2000  10:00:00 left  loss 2.5000" in part and len(part) <= 80 for part in lines)


@pytest.mark.parametrize(
    ("choice", "heard"),
    [({}, ["info", "ropewalk: warning", "ropewalk: error"]), ({"quiet": True}, ["ropewalk: error"])],
)
def test_quiet_leaves_errors_alone(choice, heard, logger, capsys) -> None:
    handler = log_to_terminal(**choice)
    assert isinstance(handler, TerminalHandler)
    for level in ("debug", "info", "warning", "error"):
        getattr(logging.getLogger("ropewalk.x"), level)(level)
    assert capsys.readouterr().err.splitlines() == heard


def test_verbose_tells_what_debugging_needs(logger, capsys) -> None:
    log_to_terminal(verbose=True)
    logging.getLogger("ropewalk.x").debug("a detail")
    assert capsys.readouterr().err == "a detail\n"


def test_an_event_reads_as_a_sentence() -> None:
    assert str(Event(1, "reading", 1200, None)) == "reading: 1,200"
    assert str(Event(1, "reading", 1, 2, "one of two")) == "one of two"
    assert [clock(3723), clock(123), clock(-1)] == ["1:02:03", "2:03", "0:00"]
