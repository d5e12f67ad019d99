"""What a page's command lines are, what one would call, without calling it, and what one says."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

from ropewalk import cli
from ropewalk.cli import parse

_OURS = re.compile(r"(?:[A-Z_]+=\S+ )*(?:torchrun .*-m |(?:\S*/)?python3? -m )?(?:\S*/)?ropewalk (.+)")


def parsed(arguments: list[str]) -> dict[str, Any]:
    """The command and its options; SystemExit if they would be refused."""
    command, options = parse(arguments)
    return {"command": command, **vars(options)}


def lines_of_code(text: str, *, fenced: bool = True) -> Iterator[str]:
    """The lines of a page's code blocks, a line that ends in a backslash joined with the next; `fenced` False: of indented blocks alone."""
    inside, blank = False, True
    code: list[str] = []
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            inside = not inside
        elif inside:
            code += [line.strip().removeprefix("$ ")] * fenced
        elif line.startswith("    ") and (blank or code and code[-1]):
            code.append(line.strip().removeprefix("$ "))
        elif line.strip():
            code.append("")
        blank = not line.strip() or (blank and line.startswith("    "))
    yield from filter(None, "\n".join(code).replace("\\\n", " ").splitlines())


def arguments_of(line: str) -> list[str] | None:
    """The arguments of a line that is `ropewalk …`, or `torchrun … -m ropewalk …`; None of another, or where three dots say that something is left out."""
    match = _OURS.match(line)
    return shlex.split(match[1], comments=True) if match and "…" not in line else None


def commands(text: str) -> list[list[str]]:
    """The arguments of every command of ours in a page's code blocks."""
    return [arguments for line in lines_of_code(text) if (arguments := arguments_of(line))]


def said(capsys, *words: str) -> tuple[int, str]:
    """Exit status, and all that was printed on one line."""
    status = 0
    try:
        cli.main(list(words))
    except SystemExit as end:
        status = int(end.code or 0)
    printed = capsys.readouterr()
    return status, " ".join((printed.out + printed.err).split())
