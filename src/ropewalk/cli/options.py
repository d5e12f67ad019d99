"""A command's options as tyro reads them: made of its settings, and refused in sentences.

in   a command and the words that stand after its name
out  its options, unchecked
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro

from ropewalk.cli.commands import Command
from ropewalk.errors import UserError
from ropewalk.settings.command import fields
from ropewalk.settings.written_numbers import read_or_not, tokens, typed

#: A name or a word as tyro lists it, further in than a sentence.
_LISTED = re.compile(r"^(?:│ |  ) {4}(\S.*?) *[│|]?$", re.MULTILINE)
#: The options that take a number of tokens which somebody may put behind nothing.
_WINDOWS = ("window", "windows")


def asks_for_help(words: Sequence[str]) -> bool:
    """Whether --help is among them."""
    return bool({"-h", "--help"} & {*words})


def read(name: str, settings: type, words: Sequence[str], registry: Any) -> Any:
    """The options as tyro reads them; what it would refuse in a drawn box is a sentence like every other."""
    prog = f"ropewalk {name}"
    if registry is None or asks_for_help(words):
        return tyro.cli(settings, prog=prog, args=words, registry=registry)
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            options, left = tyro.cli(settings, prog=prog, args=words, registry=registry, return_unknown_args=True)
    except SystemExit:
        sentence = _in_a_sentence(box.getvalue(), prog, lambda strays: _no_place(strays, settings, words))
        raise UserError(f"{sentence}; `{prog} --help` explains the options") from None
    if left:
        raise UserError(f"{prog} {_no_place(left, settings, words)}; `{prog} --help` lists the options, or take it out")
    return options


def _no_place(strays: Sequence[str], settings: type, words: Sequence[str]) -> str:
    """Of words that follow no option: that they do not belong there, and which option may be meant where their form tells and it was not given."""
    given = {word.partition("=")[0].removeprefix("--") for word in words}
    absent = {field.name for field in fields(settings)} - given
    meant = ""
    if "gpus" in absent and _are_chips(strays):
        meant = f" (did you mean --gpus {shlex.join(strays)}?)"
    elif numbers := [word for word in strays if isinstance(read_or_not(tokens, word), int)]:
        meant = next((f" (did you mean --{name} {' '.join(numbers)}?)" for name in _WINDOWS if name in absent), "")
    return f"has no place for {shlex.join(strays)}, which follows no option that takes it{meant}"


def _are_chips(words: Sequence[str]) -> bool:
    """Whether they are so many of a chip; a number alone may be of anything."""
    from ropewalk.planner.chip_names import parse  # not for --help

    with contextlib.suppress(UserError):
        return not " ".join(words).isdigit() and bool(parse(" ".join(words)))
    return False


def _in_a_sentence(box: str, prog: str, no_place: Callable[[Sequence[str]], str]) -> str:
    """What tyro drew, on one line: which options are missing, or whose value, and `no_place` of words beside; anything else in its own words."""
    box = box.partition("For full helptext")[0]  # a frame of signs, or of none where the terminal has only ASCII
    missing, _, beside = box.partition("Unrecognized options:")
    if "Missing from" in box and (names := _LISTED.findall(missing)):
        strays = _LISTED.findall(beside)
        return f"{prog} needs {', '.join(names)}" + (f", and {no_place(strays)}" if strays else "")
    if "Missing argument" in box and (option := re.search(r"'(--\S+)'", box)):
        return f"{option[1]} takes a value, and none follows it"
    lines = [line.strip("╭╮╰╯│─| ") for line in box.splitlines()[1:]]  # the first is its title, which says the same
    return " ".join(" ".join(line for line in lines if line.strip("-")).split()).rstrip(".")


def options_of(command: Command) -> type:
    """What tyro reads: the settings' fields in the order of `fields`, unchecked, and those of the terminal."""
    name, unchecked = command.settings.__name__, {"__post_init__": _unchecked}
    options: Any = dataclasses.make_dataclass(
        name, [], bases=command.classes, frozen=True, kw_only=True, namespace=unchecked
    )
    options.__doc__ = command.settings.__doc__
    options.__dataclass_fields__ = {field.name: field for field in fields(options)}
    options.__annotations__ = dict(_plainly(get_type_hints(options, include_extras=True)))
    return options


def _plainly(hints: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Types of options that may be left out, as --help names them: INT and not {None}|INT, and no default where there is none."""
    for name, hint in hints.items():
        markers = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
        kinds = set(get_args(get_args(hint)[0] if markers else hint))
        if type(None) not in kinds:
            continue
        is_named = any(getattr(each, "metavar", None) for each in markers)
        word = None if is_named else _word_of((kinds - {type(None)}).pop())
        yield name, Annotated[hint, tyro.conf.arg(metavar=word, help_behavior_hint="")]


def _unchecked(self: Any) -> None:
    """Of an option that may be named several times and was not, tyro makes an empty list."""
    for name in [name for name, value in vars(self).items() if value == []]:
        hint = get_type_hints(type(self), include_extras=True)[name]
        if tyro.conf.UseAppendAction in getattr(hint, "__metadata__", ()):
            object.__setattr__(self, name, None)


AS_TYPED = tyro.constructors.ConstructorRegistry()


@AS_TYPED.primitive_rule
def _as_typed(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    """Of several words that are known, and for a number, any word is read: the settings refuse what is none, and name the nearest."""
    if info.type in (int, float):
        return typed(_word_of(info.type) or "", info.type, (int, info.type))
    if get_origin(info.type) is not Literal:
        return None
    known = {str(each): each for each in get_args(info.type)}
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=_word_of(info.type) or "",
        instance_from_str=lambda words: known.get(words[0], words[0]),
        is_instance=lambda value: value in known.values(),
        str_from_instance=lambda value: [str(value)],
    )


def _word_of(kind: Any) -> str | None:
    """What --help calls a value of this type; None is what tyro calls it."""
    if get_origin(kind) is Annotated:
        return _word_of(get_args(kind)[0])
    if get_origin(kind) is Literal:
        return f"{{{','.join(map(str, get_args(kind)))}}}"
    if get_origin(kind) is Sequence:
        return f"{_word_of(get_args(kind)[0])}..."
    return {int: "INT", float: "FLOAT", str: "STR"}.get(kind)
