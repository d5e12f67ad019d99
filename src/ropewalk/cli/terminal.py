"""The terminal: results go to stdout, once, whatever the number of processes.

in   sentences and tables
out  stdout of the first process; the others that torchrun started stay silent
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console

from ropewalk.progress import is_first_process

#: Signs a line: in fewer (COLUMNS=0, a terminal that knows no size) rich leaves figures out, or parts of them.
_NARROWEST = 60


def console() -> Console:
    """Where tables are drawn."""
    terminal = Console(quiet=not is_first_process())
    terminal.width = max(terminal.width, _NARROWEST)
    return terminal


def say(sentence: str) -> None:
    """One line of a command's result, as it is: neither wrapped nor coloured."""
    if is_first_process():
        print(sentence)


def tell(sentences: str) -> None:
    """Sentences of a result, which are long: wrapped at words on a terminal, each on one line in a pipe."""
    terminal = console()
    terminal.print(sentences, markup=False, highlight=False, soft_wrap=not terminal.is_terminal)


def say_rows(measured: Iterable[tuple[str, Any]]) -> None:
    """All rows that were measured as one list in JSON, each as a record file has it, with its model's name before it.

    measured: the name, and what its measurement returns: a row, a list of rows, or a list and its summary.
    """
    from ropewalk.records import to_line  # not for --help

    lines = [{"model": name} | json.loads(to_line(row)) for name, rows in measured for row in _flat(rows)]
    say(json.dumps(lines, indent=2))


def _flat(rows: Any) -> list[Any]:
    return [row for each in rows for row in _flat(each)] if isinstance(rows, list | tuple) else [rows]


def agreed(question: str) -> bool:
    """Whether somebody at a terminal says yes; no, where nobody could be asked."""
    if not (sys.stdin.isatty() and sys.stderr.isatty() and is_first_process()):
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
