"""`run.yaml`: the options of one command as a file, written by every run beside its records and read by `--config`.

in   settings; or a file
out  a file whose keys are the command's options and whose values are as they are typed, paths absolute; or the words of a command line

One file is one command: where another one with other options writes to the same place, its file is called NAME-2.yaml and so on. A training
that is resumed is one run, and has one file.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro
import yaml

from ropewalk.checkpoint import half_written, marks
from ropewalk.checkpoint.files import disk_errors, write_whole
from ropewalk.errors import UserError, read_text, told
from ropewalk.progress import is_first_process
from ropewalk.settings import values
from ropewalk.settings.command import Settings, fields, option_name
from ropewalk.settings.scaling import FACTORS
from ropewalk.version import __version__

RUN_FILE = "run.yaml"
#: That, and those of further commands, as names and patterns of a mark (checkpoint/marks.py).
NAMES = (RUN_FILE, "run-[0-9]*.yaml")
#: About one start of a command and not about what it makes.
_OF_THE_MOMENT = frozenset(("overwrite", "yes", "resume", "dry_run", "json", "quiet", "verbose", "config"))
_NAMES_OF_FILES = (values.PATH, values.PATHS, values.MODEL, values.MODEL_OR_LOADED, values.TEXTS, FACTORS)
_UNTIL = re.compile(r"run-until-(\d+)\.yaml")
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
    """One option of a command line. field: of the settings. positional: its words stand without its name. is_flag: it has no words. names_files: of paths.

    choices: its words, where they are among a few.
    """

    name: str
    field: str
    positional: bool
    is_flag: bool
    names_files: bool
    choices: tuple[str, ...] = ()

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
    options = (_option(field.name, list(parts_of(hints[field.name]))) for field in fields(settings))
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
        choices=tuple(str(word) for part in parts if get_origin(part) is Literal for word in get_args(part)),
    )


def parts_of(hint: Any) -> Iterator[Any]:
    """A type, all types that it is made of, and what stands beside them."""
    yield hint
    if get_origin(hint) is Annotated:
        yield from hint.__metadata__
    for part in get_args(hint):
        yield from parts_of(part)


def command_of(settings: Settings) -> str:
    """The command that these are the settings of."""
    return re.sub("(?<=[a-z])(?=[A-Z])", " ", type(settings).__name__.removesuffix("Settings")).lower()


def write(settings: Settings, directory: Path, *, instead: bool = False, head: str = "") -> None:
    """`run.yaml` in a directory that a command writes, whose mark lists it from then on; what somebody else called so stays.

    instead: in the place of one that ropewalk wrote, and not beside it. head: the first line, if it is another than how to repeat the command.
    """
    text = _text(settings, head)
    if text is None or not is_first_process():
        return
    place = directory / RUN_FILE if instead else _place(directory / RUN_FILE, text)
    holds = marks.marked(directory)
    if holds is not None and not marks.is_listed(place.name, holds):
        if place.exists() and place.stat().st_size:
            return
        marks.mark(directory, [*holds, place.name])
    _put(text, place)


def write_training(settings: Settings, directory: Path, *, chosen: str = "", changed_at: int | None = None) -> None:
    """`run.yaml` of a training, in the place of the one before: it says the whole run.

    chosen: what this device chose of what was left open, in words.
    changed_at: the step from which a resumed run goes on with other settings that move the weights. The file of what was before is kept as
    run-until-STEP.yaml, and the first line has one command for each part.
    """
    if changed_at is not None and is_first_process():
        _keep_until(directory, changed_at)
    steps = sorted(int(found[1]) for path in directory.iterdir() if (found := _UNTIL.fullmatch(path.name)))
    parts = [
        f"--config {shlex.quote(f'{directory.name}/run-until-{step}.yaml')} --steps {step} --save-every {step}"
        for step in steps
    ]
    resumed = ["--out NEW", *["--out NEW --resume --allow-changes"] * len(steps)] if steps else [""]
    commands = [
        f"ropewalk train {part} {out}".rstrip()
        for part, out in zip([*parts, "--config THIS FILE"], resumed, strict=True)
    ]
    write(settings, directory, instead=True, head=f"{chosen and f'{chosen}; '}again: {', then '.join(commands)}")


def _keep_until(directory: Path, step: int) -> None:
    old, kept = directory / RUN_FILE, directory / f"run-until-{step}.yaml"
    if not old.is_file() or kept.exists():  # another start from this very step, of which nothing was saved
        return
    if (holds := marks.marked(directory)) is not None:
        marks.mark(directory, [*holds, kept.name])
    os.replace(old, kept)


def write_file(settings: Settings, place: Path) -> None:
    """These settings as a file, beside those of other settings that lie there; none where a value was given that only Python has."""
    if is_first_process() and (text := _text(settings)) is not None:
        _put(text, _place(place, text))


def _text(settings: Settings, head: str = "") -> str | None:
    """The whole file; None if a value was given that only Python has."""
    command = command_of(settings)
    try:
        content = dict(_typed(settings))
    except _OnlyInPython:
        return None
    listed = yaml.safe_dump({"command": command, **content}, sort_keys=False, allow_unicode=True, width=1000)
    return f"{_WRITTEN} {__version__}; {head or f'again: ropewalk {command} --config THIS FILE'}\n{listed}"


def _place(place: Path, text: str) -> Path:
    """NAME.yaml, or NAME-2.yaml and so on: the file of these options, or the first name that is free; several processes may look at once."""
    others = (place.with_name(f"{place.stem}-{number}{place.suffix}") for number in itertools.count(2))
    for each in itertools.chain([place], others):
        with disk_errors(place):
            try:
                each.open("x").close()
            except FileExistsError:
                is_same = each.is_file() and _options(read_text(each, errors="replace")) == _options(text)
            else:
                is_same = True
        if is_same:
            return each
    raise AssertionError("there is no last number")


def _options(text: str) -> str:
    """A file without the line that names the version."""
    return text.partition("\n")[2] if text.startswith(_WRITTEN) else ""


def _put(text: str, place: Path) -> None:
    """Write the file, unless somebody else's lies there."""
    if not place.exists() or not (there := read_text(place, errors="replace")) or there.startswith(_WRITTEN):
        write_whole(place, text)


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
        path = half_written.known_as(os.path.abspath(value))
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
