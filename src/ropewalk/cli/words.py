"""A command line: from its words to a command and its options.

in   the words that were typed, and the file that `--config` names (settings/run_file.py)
out  the command's name and its options, unchecked; or a sentence that names the nearest word
"""

from __future__ import annotations

import functools
import itertools
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NoReturn, get_args, get_origin, get_type_hints

import tyro

from ropewalk.cli import completion
from ropewalk.cli.commands import COMMANDS
from ropewalk.cli.options import AS_TYPED, asks_for_help, options_of, read
from ropewalk.errors import UserError, nearest
from ropewalk.settings.command import option_name
from ropewalk.settings.other_names import meant_option
from ropewalk.settings.values import Tokens, TokensInAll
from ropewalk.settings.written_numbers import is_likelier_thousands
from ropewalk.version import __version__

if TYPE_CHECKING:
    from ropewalk.settings.run_file import Option

_DESCRIPTION = "Give a RoPE language model a longer context window: extend, train, measure, report."
#: A word that names an option; other words with a dash before them are numbers or sentences.
_OPTION = re.compile(r"--?([A-Za-z][\w-]*)(?==|$)")
_MORE = "`ropewalk COMMAND --help` explains one; `ropewalk --version`; `ropewalk --config run.yaml` runs again what a run wrote."


def parse(arguments: Sequence[str] | None = None) -> tuple[str, Any]:
    """The command that a command line names, and its options.

    The values are not checked yet: that is done where the command makes its settings of them.

    Raises:
        SystemExit: `--help`, `--version`, or options that do not exist or are missing, as tyro prints them.
        UserError: no such command; a --config that cannot be read, or names what is no option.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if completion.FLAG in words:
        with completion.printed_with_files():
            return _parse(words)
    return _parse(words)


def _parse(words: list[str]) -> tuple[str, Any]:
    if words[:1] == ["help"]:
        words = [*_with_command(words[1:])[:1], "--help"]
    words = _with_command(words)
    if words[:1] in (["--version"], ["-V"]):
        print(f"ropewalk {__version__}")
        raise SystemExit(0)
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        _refuse_unknown(words[0])
    words, file = _without_config(words)
    if file is not None:
        words = _with_options_of(file, words)
    words = list(_without_commas(words))
    for_shell = any(word.startswith("--tyro-") for word in words)  # which completes words by tyro's own list of them
    if words and words[0] in COMMANDS:
        name, settings = words[0], options_of(COMMANDS[words[0]])
        if not for_shell and not asks_for_help(words):
            words = [name, *_model_without_its_name(settings, words[1:])]
            _refuse_unknown_options(name, settings, words[1:])
        return name, read(name, settings, words[1:], None if for_shell else AS_TYPED)
    if not asks_for_help(words) and not for_shell:
        raise UserError(f"a command comes first: {', '.join(COMMANDS)}; `ropewalk --help` explains them")
    options: dict[str, Any] = {name: options_of(command) for name, command in COMMANDS.items()}
    if completion.FLAG in words:  # a shell completes one word
        options = {name.replace(" ", "-"): kind for name, kind in options.items()}
    description = f"{_DESCRIPTION}\n\n{_MORE}"
    values = tyro.extras.subcommand_cli_from_dict(options, prog="ropewalk", description=description, args=words)
    return next(name for name, kind in options.items() if type(values) is kind), values


def _with_command(words: list[str]) -> list[str]:
    """The words with a command of two (`data score`, or `data-score`, as a shell completes it) as one."""
    for count in (2, 1):
        name = " ".join(words[:count]).replace("-", " ")
        if name in COMMANDS:
            return [name, *words[count:]]
    of_two = [name for name in COMMANDS if words and name.startswith(f"{words[0]} ")]
    return [*of_two, *words[1:]] if len(of_two) == 1 and asks_for_help(words[1:2]) else words


def _refuse_unknown(word: str) -> NoReturn:
    of_two = [command for command in COMMANDS if command.startswith(f"{word} ")]
    meant = f"did you mean {of_two[0]}?" if of_two else nearest(word, COMMANDS, f"they are {', '.join(COMMANDS)}")
    raise UserError(f"there is no command {word!r}; {meant}")


def _model_without_its_name(settings: type, words: list[str]) -> list[str]:
    """The words with `--model NAME` as NAME before them, where a command takes it so; as it is typed in other tools, and as `theory` took it."""
    place = next((place for place, word in enumerate(words) if word.partition("=")[0] == "--model"), None)
    if place is None or "--" in words[:place]:
        return words
    from ropewalk.settings import run_file  # not for --help

    _, equals, model = words[place].partition("=")
    value = [model] if equals else words[place + 1 : place + 2]
    known = run_file.options_of(settings).get("model")
    if known is None or not known.positional or not value:
        return words
    return [*value, *words[:place], *words[place + (1 if equals else 2) :]]


def _refuse_unknown_options(command: str, settings: type, words: Sequence[str]) -> None:
    """Name what is meant by each word with a dash before it that is no option; what stands after `--` is none."""
    from ropewalk.settings import run_file  # not for --help

    known = run_file.options_of(settings)
    before = words[: words.index("--")] if "--" in words else words
    named = [match for match in map(_OPTION.match, before) if match]
    unknown = {match[0]: meant_option(match[1], known) for match in named if not _is_option(match[1], known)}
    sentences = [f"there is no {typed}; did you mean {_shown(known[name])}?" for typed, name in unknown.items() if name]
    if nameless := [typed for typed, name in unknown.items() if name is None]:
        sentences.append(f"there is no {', '.join(nameless)}; `ropewalk {command} --help` lists the options")
    if sentences:
        raise UserError(" ".join(sentences))


def _is_option(word: str, known: Mapping[str, Option]) -> bool:
    word = word.replace("_", "-")
    if word in known:
        return not known[word].positional
    return word.startswith("no-") and word[3:] in known and known[word[3:]].is_flag


def _shown(option: Option) -> str:
    """An option as it is typed."""
    if option.positional:
        return f"{option.name.upper()}, without a name before it"
    return f"--{option.name}" + (f" ({', '.join(option.choices)})" if option.choices else "")


def _without_config(words: list[str]) -> tuple[list[str], str | None]:
    """The words without `--config FILE`, and the file."""
    for place, word in enumerate(words):
        option, equals, file = word.partition("=")
        if option != "--config":
            continue
        if not equals and place + 1 == len(words):
            raise UserError("--config takes the run.yaml of a run, and nothing follows it; name one")
        left = [*words[:place], *words[place + (1 if equals else 2) :]]
        if _without_config(left)[1] is not None:
            raise UserError("--config names one file, and here are two; put the options of one into the other")
        return left, file or words[place + 1]
    return words, None


def _with_options_of(file: str, words: list[str]) -> list[str]:
    """A command line with the options of a file before those that were typed, which win."""
    from ropewalk.settings import run_file

    command, options = run_file.read(file)
    name = words[0] if words and words[0] in COMMANDS else command
    if name is None:
        raise UserError(
            f"{file} has no `command:`, and none was typed; put it before --config, as in `ropewalk plan --config {shlex.quote(file)}`"
        )
    if name not in COMMANDS:
        raise UserError(f"{file} says `command: {name}`, which is none; name one of {', '.join(COMMANDS)}")
    if command not in (None, name):
        raise UserError(f"{file} is the file of `ropewalk {command}`, and this is `ropewalk {name}`; use that command")
    typed = words[1:] if words[:1] == [name] else words
    known = run_file.options_of(options_of(COMMANDS[name]))
    for option in options:
        if option not in known:
            near = meant_option(option, known)
            way_out = f"did you mean {near}?" if near else "take it out"
            raise UserError(f"{file} names {option!r}, which is no option of `ropewalk {name}`; {way_out}")
    named = bool(typed) and not typed[0].startswith("-")  # the model, or whatever comes without an option's name
    given = {option: value for option, value in options.items() if not (named and known[option].positional)}
    return [name, *(word for option, value in given.items() for word in known[option].words(value)), *typed]


def _without_commas(words: Sequence[str]) -> Iterator[str]:
    """The words of a command line, those of a list of numbers or names taken apart where there is a comma: "--windows 2k,4k"."""
    lists, inside, option = _lists(), False, ""
    for word in _with_chips(words):
        if word.startswith("-") and not word[1:2].isdigit():
            option, equals, word_of_list = word.partition("=")
            inside = option.lstrip("-").replace("_", "-") in lists
            yield option if inside else word
            if not (inside and equals):
                continue
            word = word_of_list
        if inside and option.lstrip("-").replace("_", "-") in _lists_of_tokens() and is_likelier_thousands(word):
            raise UserError(
                f"{option} {word} is one number with a comma between thousands, or a list; write {word.replace(',', '')} or {word.replace(',', ' ')}"
            )
        yield from (part for part in word.split(",") if part) if inside and word else (word,)


def _with_chips(words: Sequence[str]) -> Iterator[str]:
    """The words of a command line, those of `--gpus 8 H100` as one."""
    rest = iter(words)
    for word in rest:
        yield word
        if word == "--gpus" and (count := next(rest, None)) is not None:
            # A number of four digits is a chip's name.
            chip = next(rest, None) if count.isdigit() and len(count) < 4 else None
            yield from ([f"{count} {chip}"] if chip and not chip.startswith("-") else filter(None, (count, chip)))


@functools.cache
def _lists() -> frozenset[str]:
    """Options that are a list of numbers or of names that are known, of any command."""
    hints = [(name, hint) for command in COMMANDS.values() for name, hint in get_type_hints(command.settings).items()]
    return frozenset(
        option_name(name) for name, hint in hints if any(_is_list(each) for each in (hint, *get_args(hint)))
    )


@functools.cache
def _lists_of_tokens() -> frozenset[str]:
    """Those of `_lists` that count tokens: seeds go by commas, and are no thousands."""
    from ropewalk.settings.run_file import parts_of  # not for --help

    hints = (get_type_hints(command.settings, include_extras=True).items() for command in COMMANDS.values())
    return (
        frozenset(
            option_name(name)
            for name, hint in itertools.chain.from_iterable(hints)
            if any(each in (Tokens, TokensInAll) for each in parts_of(hint))
        )
        & _lists()
    )


def _is_list(hint: Any) -> bool:
    items = get_args(hint)
    return get_origin(hint) is Sequence and (items[0] is int or get_origin(items[0]) is Literal)
