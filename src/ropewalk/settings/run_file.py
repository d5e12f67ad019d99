"""`run.yaml`: the options of one command as a file, written by every run beside its records and read by `--config`.

in   settings; or a file
out  a file whose keys are the command's options and whose values are as they are typed, paths absolute; or the words of a command line
"""

from __future__ import annotations

import collections
import dataclasses
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import tyro
import yaml

from ropewalk.checkpoint import guard
from ropewalk.checkpoint.files import write_whole
from ropewalk.errors import UserError, read_text, told
from ropewalk.progress import is_first_process
from ropewalk.settings import values
from ropewalk.settings.command import Settings, fields, option_name
from ropewalk.settings.scaling import FACTORS
from ropewalk.version import __version__

RUN_FILE = "run.yaml"
#: About one start of a command and not about what it makes.
_OF_THE_MOMENT = frozenset(("overwrite", "yes", "resume", "dry_run", "json", "quiet", "verbose", "config"))
_NAMES_OF_FILES = (values.PATH, values.PATHS, values.MODEL, values.MODEL_OR_LOADED, values.TEXTS, FACTORS)
_WRITTEN = "# Written by ropewalk"
_YES, _NO = ("true", "yes", "on"), ("false", "no", "off")


class _Loader(yaml.BaseLoader):
    """Every scalar is the word that it is: 1e-4 would be no number for YAML, and `off` a truth value. An option has one value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = collections.Counter(str(name.value) for name, _ in node.value)
        if twice := [name for name, times in names.items() if times > 1]:
            raise ValueError(f"it names {twice[0]} twice")
        return super().construct_mapping(node, deep)


class _OnlyInPython(Exception):
    """A value that no file can hold."""


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a command line. field: of the settings. positional: its words stand without its name. is_flag: it has no words. names_files: of paths."""

    name: str
    field: str
    positional: bool
    is_flag: bool
    names_files: bool

    def words(self, value: Any) -> list[str]:
        """What is typed for a value of a file."""
        if self.is_flag:
            if str(value).lower() not in (*_YES, *_NO):
                raise UserError(f"{self.name} is true or false, got {values.shown(value)}; leave it out for false")
            return [f"--{self.name}"] if str(value).lower() in _YES else []
        listed = value if isinstance(value, list) else [value]
        return listed if self.positional else [f"--{self.name}", *listed]


def options_of(settings: type) -> dict[str, Option]:
    """Option's name → the option, for all that a command line can say of these settings."""
    hints = get_type_hints(settings, include_extras=True)
    options = (_option(field.name, list(_parts(hints[field.name]))) for field in fields(settings))
    return {option.name: option for option in options if option is not None}


def _option(field: str, parts: list[Any]) -> Option | None:
    if tyro.conf.Suppress in parts or field == "config":
        return None
    named = next((name for part in parts if isinstance(name := getattr(part, "name", None), str)), None)
    return Option(
        named or option_name(field),
        field,
        positional=tyro.conf.Positional in parts,
        is_flag=bool in parts,
        names_files=any(part is each for part in parts for each in _NAMES_OF_FILES),
    )


def _parts(hint: Any) -> Iterator[Any]:
    """A type, all types that it is made of, and what stands beside them."""
    yield hint
    if get_origin(hint) is Annotated:
        yield from hint.__metadata__
    for part in get_args(hint):
        yield from _parts(part)


def command_of(settings: Settings) -> str:
    """The command that these are the settings of."""
    return re.sub("(?<=[a-z])(?=[A-Z])", " ", type(settings).__name__.removesuffix("Settings")).lower()


def write(settings: Settings, directory: Path) -> None:
    """`run.yaml` in a run's directory, whose mark lists it from then on; what somebody else called so stays."""
    holds, place = guard.marked(directory), directory / RUN_FILE
    if holds is not None and not guard.is_listed(RUN_FILE, holds):
        if place.exists():
            return
        guard.mark(directory, [*holds, RUN_FILE])
    write_file(settings, place)


def write_file(settings: Settings, place: Path) -> None:
    """These settings as a file; none where a value was given that only Python has, or where somebody else's file lies."""
    if not is_first_process() or (place.exists() and not read_text(place, errors="replace").startswith(_WRITTEN)):
        return
    command = command_of(settings)
    try:
        content = dict(_typed(settings))
    except _OnlyInPython:
        return
    listed = yaml.safe_dump({"command": command, **content}, sort_keys=False, allow_unicode=True, width=1000)
    write_whole(place, f"{_WRITTEN} {__version__}; again: ropewalk {command} --config THIS FILE\n{listed}")


def _typed(settings: Settings) -> Iterator[tuple[str, Any]]:
    """Option → value, of all that is not off or left open."""
    known = {option.field: option for option in options_of(type(settings)).values()}
    for field in fields(type(settings)):
        value = getattr(settings, field.name)
        if field.name in _OF_THE_MOMENT or value is None or value is False or value == []:
            continue
        if field.name not in known:
            raise _OnlyInPython
        yield known[field.name].name, _plain(value, names_files=known[field.name].names_files)


def _plain(value: Any, *, names_files: bool) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(each, names_files=names_files) for each in value]
    from ropewalk.checkpoint.checkpoint import Checkpoint  # not needed to read a file, and it takes as long as the rest

    if isinstance(value, Checkpoint):
        value = value.name
    if isinstance(value, os.PathLike) or (names_files and isinstance(value, str) and value != "hemp"):
        path = guard.known_as(os.path.abspath(value))
        return str(path) if isinstance(value, os.PathLike) or os.path.lexists(value) else str(value)
    if isinstance(value, str | int | float):
        return value
    raise _OnlyInPython


def read(file: str | Path) -> tuple[str | None, dict[str, Any]]:
    """The command of a file, if it names one, and its options: words and lists of words, as they would be typed.

    Raises:
        UserError: there is no such file, or it is not of that form.
    """
    what = f"--config is the run.yaml of a run, and {file} cannot be read as one"
    with told(what, "check it", (OSError, ValueError, RecursionError, yaml.YAMLError)):
        content = yaml.load(read_text(Path(file)), Loader=_Loader)
    if not isinstance(content, dict) or not all(isinstance(value, str | list) for value in content.values()):
        raise UserError(f"{what} (it holds no list of `option: value`); `ropewalk train` writes such a file into --out")
    if any(not isinstance(each, str) for value in content.values() if isinstance(value, list) for each in value):
        raise UserError(f"{what} (a value is a word or a list of words); mend it")
    command = content.pop("command", None)
    options = {option_name(str(name)): value for name, value in content.items() if value not in ("", "null", "~")}
    return command, options
