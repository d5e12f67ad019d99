"""The terminal: results go to stdout, once, whatever the number of processes.

in   sentences and tables
out  stdout of the first process; the others that torchrun started stay silent
"""

from __future__ import annotations

from rich.console import Console

from ropewalk.progress import is_first_process


def console() -> Console:
    """Where tables are drawn."""
    return Console(quiet=not is_first_process())


def say(sentence: str) -> None:
    """One line of a command's result, as it is: neither wrapped nor coloured."""
    if is_first_process():
        print(sentence)
