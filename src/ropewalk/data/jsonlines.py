"""JSON-lines files of items to measure on: benchmark questions, document/summary pairs.

in   a path, plain or compressed (.xz, .gz, .zst), and the fields every line must have, each with what it may hold
out  a dictionary of these fields a line, or an error that names the line

A measurement on half a file is worse than none, so a bad line stops it. Records, which ropewalk writes itself, are read
leniently instead (`records.read` skips bad lines and counts them).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ropewalk.data.compression import damage_named, open_bytes
from ropewalk.data.reading import HALF_PAIRS
from ropewalk.data.rows import broken, joined_lines, json_kind, not_lines
from ropewalk.errors import UserError, refuse_irregular, told

SUFFIXES = (".jsonl.xz", ".jsonl.gz", ".jsonl.zst", ".jsonl")


#: Field → what makes its value one that can be used; raises ValueError with what it is to be.
Fields = Mapping[str, Callable[[Any], Any]]


def text(value: Any) -> str:
    """A text that is not empty, half a surrogate pair read as U+FFFD; several, as a list of sentences, are its lines."""
    value = joined_lines(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text that is not empty")
    return HALF_PAIRS.sub("\ufffd", value)


def one_of(*values: Any) -> Callable[[Any], Any]:
    """One of these values, of the same type: "1" is not 1, and true is neither."""

    def check(value: Any) -> Any:
        if not any(type(value) is type(each) and value == each for each in values):
            plural = {"a number": "the numbers ", "a text": "the texts "}.get(json_kind(values[0]), "")
            raise ValueError(f"one of {plural}{', '.join(map(json.dumps, values))}")
        return value

    return check


def read(path: str | Path, fields: Fields, optional: Fields | None = None) -> Iterator[dict[str, Any]]:
    """Every line of a file as a dictionary of `fields`, and of those of `optional` that it has; what else a line has is left out.

    Raises:
        UserError: no such file, a damaged archive, a line without such fields (the error gives its number).
    """
    path = Path(path)
    refuse_irregular(path, "items are read from JSON-lines files")
    if not path.is_file():
        raise UserError(f"{path} does not exist; give a JSON-lines file ({', '.join(SUFFIXES)})")
    with damage_named(path), open_bytes(path) as file:
        for number, line in enumerate(file, 1):
            if number == 1 and (reason := not_lines(line, file, "put each item on a line of its own")):
                raise UserError(f"{path} {reason}")
            if line.strip():
                yield _checked(line, fields, optional or {}, f"line {number} of {path}")


def _checked(line: bytes, fields: Fields, optional: Fields, place: str) -> dict[str, Any]:
    with told(f"{place} is not a JSON object with the fields {', '.join(fields)}", "mend or drop it"):
        item = _object(line)
        if not isinstance(item, dict):
            raise ValueError(f"it is {json_kind(item)}")
        if missing := [field for field in fields if field not in item]:
            raise ValueError(f"no {missing[0]}")
    checked = {}
    for field, check in {**fields, **{name: check for name, check in optional.items() if name in item}}.items():
        try:
            checked[field] = check(item[field])
        except ValueError as error:
            raise UserError(f"in {place} {field} is {error}, got {_shown(item[field])}; mend or drop it") from None
    return checked


def _object(line: bytes) -> Any:
    try:
        return json.loads(line.decode().rstrip())
    except json.JSONDecodeError as error:
        raise ValueError(f"it {broken(error)}") from None


def _shown(value: Any) -> str:
    """A value as the file has it, and what it is where that is easily overlooked: a number between quotes is a text."""
    kind = {"a text": "the text ", "a number": "the number "}.get(json_kind(value), "")
    return f"{kind}{json.dumps(value, ensure_ascii=False):.80}"


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
