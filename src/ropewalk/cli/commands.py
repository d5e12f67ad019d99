"""The commands: which settings each takes, and what it does with them. The settings' fields are its options.

make.py        extend, search, train, merge, export, report, demo
measure.py     perplexity, gain, passkey, retrieval, ruler, attention
downstream.py  benchmarks, summarize, evaluate, ablate
predict.py     theory, plan, doctor
talk.py        chat, generate
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

import tyro

from ropewalk.cli import downstream, make, measure, predict, talk
from ropewalk.settings.ablate import AblateSettings
from ropewalk.settings.chat import ChatSettings, GenerateSettings
from ropewalk.settings.command import fields, option_name
from ropewalk.settings.doctor import DoctorSettings
from ropewalk.settings.downstream import BenchmarksSettings, EvaluateSettings, SummarizeSettings
from ropewalk.settings.export import ExportSettings, MergeSettings
from ropewalk.settings.extend import ExtendSettings
from ropewalk.settings.measure import (
    AttentionSettings,
    GainSettings,
    PasskeySettings,
    PerplexitySettings,
    RetrievalSettings,
    RulerSettings,
)
from ropewalk.settings.options import Flag
from ropewalk.settings.pages import DemoSettings, ReportSettings, TheorySettings
from ropewalk.settings.plan import PlanSettings
from ropewalk.settings.search import SearchSettings
from ropewalk.settings.train import TrainSettings


@dataclass(frozen=True, kw_only=True)
class Terminal:
    """What every command can be told of the terminal."""

    quiet: Flag = False
    """Errors and the result alone."""
    verbose: Flag = False
    """Debugging messages too."""


@dataclass(frozen=True, kw_only=True)
class ByStep:
    """Commands that measure a model can measure each checkpoint of a run."""

    by_step: Flag = False
    """MODEL is the --out of a training run: measure what it began from and each of its checkpoints (tables 3 and 4)."""


@dataclass(frozen=True, kw_only=True)
class AsJson:
    """Commands whose result other programs read."""

    json: Flag = False
    """Print the result as JSON."""


@dataclass(frozen=True)
class Command:
    """One command.

    settings: its options. run: what is called with them and prints the result. more: options that only the command line has.
    """

    settings: type
    run: Callable[[Any], None]
    more: tuple[type, ...] = ()


COMMANDS: dict[str, Command] = {
    "demo": Command(DemoSettings, make.demo),
    "extend": Command(ExtendSettings, make.extend, (AsJson,)),
    "search": Command(SearchSettings, make.search),
    "train": Command(TrainSettings, make.train),
    "merge": Command(MergeSettings, make.merge),
    "export": Command(ExportSettings, make.export),
    "perplexity": Command(PerplexitySettings, measure.perplexity, (ByStep,)),
    "gain": Command(GainSettings, measure.gain, (ByStep,)),
    "passkey": Command(PasskeySettings, measure.passkey, (ByStep,)),
    "retrieval": Command(RetrievalSettings, measure.retrieval),
    "ruler": Command(RulerSettings, measure.ruler, (ByStep,)),
    "benchmarks": Command(BenchmarksSettings, downstream.benchmarks),
    "summarize": Command(SummarizeSettings, downstream.summarize),
    "evaluate": Command(EvaluateSettings, downstream.evaluate),
    "ablate": Command(AblateSettings, downstream.ablate),
    "attention": Command(AttentionSettings, measure.attention),
    "chat": Command(ChatSettings, talk.chat),
    "generate": Command(GenerateSettings, talk.generate),
    "theory": Command(TheorySettings, predict.theory, (AsJson,)),
    "plan": Command(PlanSettings, predict.plan),
    "doctor": Command(DoctorSettings, predict.doctor, (AsJson,)),
    "report": Command(ReportSettings, make.report),
}


def parse(arguments: Sequence[str] | None = None) -> tuple[str, Any]:
    """The command that a command line names, and its options; SystemExit for `--help` and for options that do not exist.

    The values are not checked yet: that is done where the command makes its settings of them.
    """
    options: dict[str, Any] = {name: _options(command) for name, command in COMMANDS.items()}
    values = tyro.extras.subcommand_cli_from_dict(
        options,
        prog="ropewalk",
        description="Give a RoPE language model a longer context window: extend, train, measure, report.",
        args=list(_without_commas(sys.argv[1:] if arguments is None else arguments)),
    )
    return next(name for name, kind in options.items() if type(values) is kind), values


def _without_commas(words: Sequence[str]) -> Iterator[str]:
    """The words of a command line, those of a list of numbers or names taken apart where there is a comma: "--windows 2k,4k"."""
    lists, inside = _lists(), False
    for word in words:
        if word.startswith("-") and not word[1:2].isdigit():
            option, equals, word_of_list = word.partition("=")
            inside = option.lstrip("-").replace("_", "-") in lists
            yield option if inside else word
            if not (inside and equals):
                continue
            word = word_of_list
        yield from (part for part in word.split(",") if part) if inside and word else (word,)


@functools.cache
def _lists() -> frozenset[str]:
    """Options that are a list of numbers or of names that are known, of any command."""
    hints = [(name, hint) for command in COMMANDS.values() for name, hint in get_type_hints(command.settings).items()]
    return frozenset(
        option_name(name) for name, hint in hints if any(_is_list(each) for each in (hint, *get_args(hint)))
    )


def _is_list(hint: Any) -> bool:
    items = get_args(hint)
    return get_origin(hint) is Sequence and (items[0] is int or get_origin(items[0]) is Literal)


def _options(command: Command) -> type:
    """What tyro reads: the settings' fields in the order of `fields`, unchecked, and those of the terminal."""
    bases = (command.settings, *command.more, Terminal)
    options: Any = dataclasses.make_dataclass(
        command.settings.__name__, [], bases=bases, frozen=True, kw_only=True, namespace={"__post_init__": _unchecked}
    )
    options.__doc__ = command.settings.__doc__
    options.__dataclass_fields__ = {field.name: field for field in fields(options)}
    return options


def _unchecked(self: object) -> None:
    pass
