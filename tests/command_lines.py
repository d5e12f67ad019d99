"""What a command line would call, without calling it."""

from __future__ import annotations

import functools
from typing import Any

import tyro

from ropewalk.cli import COMMANDS


def parsed(arguments: list[str]) -> dict[str, Any]:
    """What the command would be called with; SystemExit if it would be refused."""
    called: dict[str, Any] = {}

    def stub(name: str) -> Any:
        @functools.wraps(COMMANDS[name])
        def call(*given: Any, **named: Any) -> None:
            called.update(command=name, given=given, **named)

        return call

    tyro.extras.subcommand_cli_from_dict({name: stub(name) for name in COMMANDS}, prog="ropewalk", args=arguments)
    return called
