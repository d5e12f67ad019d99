"""What a command line would call, without calling it."""

from __future__ import annotations

from typing import Any

from ropewalk.cli import parse


def parsed(arguments: list[str]) -> dict[str, Any]:
    """The command and its options; SystemExit if they would be refused."""
    command, options = parse(arguments)
    return {"command": command, **vars(options)}
