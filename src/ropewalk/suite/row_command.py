"""The command that makes one row of an ablation again, as its file has it.

in   a grid, one of its rows
out  a line for a shell, to be pasted where the paths are that were given

Models, documents and --out stand in it as they were given, whole and quoted, and an absolute path stays absolute: give relative ones where records are
to be published. The settings beside the command have short names instead (`data.select.name_of`).
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.settings.ablate import AblateSettings
from ropewalk.settings.command import fields
from ropewalk.settings.run_file import Option, options_of
from ropewalk.suite.digests import words_of
from ropewalk.suite.grid import Grid
from ropewalk.suite.row import Row

#: Of the start of a command on one machine, and not of what it makes.
_OF_THE_MOMENT = ("dry_run", "chip", "minutes", "device")


def command(grid: Grid, row: Row) -> str:
    """The command that runs this row alone."""
    own = {name: getattr(grid.settings, name) for name in known_options() if name not in _OF_THE_MOMENT}
    own |= {"methods": [_method(row)], "factors": [row.factor], "tokens": [row.tokens], "seeds": [row.seed]}
    own |= {"learning_rates": [row.rate] if row.tokens else None, "test_tokens": grid.test_tokens}
    defaults = {field.name: field.default for field in fields(AblateSettings)}
    words = ["ropewalk", "ablate"]
    for name, value in own.items():
        if value is not None and words_of(value) != words_of(defaults[name]):
            option = known_options()[name]
            words += option.words(value if option.is_flag else [_word(each) for each in words_of(value)])
    return shlex.join(words)


def known_options() -> dict[str, Option]:
    """Field → its option, the model first, what must be given next."""
    return {option.field: option for option in options_of(AblateSettings).values()}


def _method(row: Row) -> str:
    return ":".join([row.method, *(f"{name}={_word(value)}" for name, value in row.parameters)])


def _word(value: Any) -> str:
    """As it is typed; a float with all its digits."""
    if isinstance(value, Checkpoint):
        return value.name
    if isinstance(value, float):
        return short if float(short := f"{value:g}") == value else repr(value)
    return os.fspath(value) if isinstance(value, Path) else str(value).removeprefix("torch.")
