"""What a command reads: nothing that it writes may replace any of it."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from ropewalk.errors import UserError

#: Fields that name what is written.
_WRITTEN = ("out", "trained", "tables", "figures")


def inputs_of(settings: Any) -> list[str]:
    """Every path that a settings object names, but for what it writes: models, data, bases, adapters, record files, whatever has a field."""
    values = (getattr(settings, field.name) for field in dataclasses.fields(settings) if field.name not in _WRITTEN)
    listed = [value for each in values for value in (each if isinstance(each, list | tuple) else [each])]
    paths = [os.fspath(value) for value in listed if isinstance(value, str | os.PathLike)]
    return [path for path in paths if path and os.path.lexists(path)]


def refuse_missing_files(option: str, paths: Any) -> None:
    """Raises UserError for the first path of an option, which has one, several or none, at which nothing lies."""
    for path in [] if paths is None else [paths] if isinstance(paths, str | os.PathLike) else paths:
        if not os.path.exists(path):  # pathlib stops at a name that is too long, as a text would be
            way_out = "check the path" + ", or give the text itself as --text" * (option == "prompt")
            raise UserError(f"--{option} names a file, but {str(path)[:80]!r} does not exist; {way_out}")
