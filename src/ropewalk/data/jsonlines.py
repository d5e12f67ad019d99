"""JSON-lines files of items to measure on: benchmark questions, document/summary pairs.

in   a path, plain or compressed (.xz, .gz, .zst), and the fields every line must have
out  one dictionary a line, or an error that names the line

A measurement on half a file is worse than none, so a bad line stops it. Records, which ropewalk writes itself, are read
leniently instead (`records.read` skips bad lines and counts them).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ropewalk.data.compression import damage_named, open_bytes
from ropewalk.errors import UserError

SUFFIXES = (".jsonl.xz", ".jsonl.gz", ".jsonl.zst", ".jsonl")


def read(path: str | Path, fields: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Every line of a file as a dictionary that has at least `fields`.

    Raises:
        UserError: no such file, a damaged archive, a line that is not such a dictionary (the error gives its number).
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist; give a JSON-lines file ({', '.join(SUFFIXES)})")
    number = 0
    try:
        with damage_named(path), open_bytes(path) as file:
            for line in file:
                number += 1
                if line.strip():
                    yield _checked(json.loads(line), fields)
    except UserError:
        raise
    except (ValueError, TypeError, KeyError) as error:  # a UnicodeDecodeError is a ValueError
        raise UserError(
            f"line {number} of {path} is not a JSON object with the fields {', '.join(fields)} ({error}); mend or drop it"
        ) from error


def _checked(item: Any, fields: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise TypeError(f"it is a {type(item).__name__}")
    missing = [field for field in fields if field not in item]
    if missing:
        raise KeyError(f"no {missing[0]}")
    return item


def find(directory: str | Path, name: str) -> Path:
    """The file `name` + one of SUFFIXES in a directory.

    Raises:
        UserError: none of them is there.
    """
    for suffix in SUFFIXES:
        if (path := Path(directory) / f"{name}{suffix}").is_file():
            return path
    raise UserError(
        f"{directory} has no {name}.jsonl (or .xz, .gz, .zst); put it there, or leave --data out to use the hub"
    )
