"""Bad inputs, made from the settings themselves: each option of each command with what it cannot be, and each argument in Python.

A new option or command is covered by being declared: what its type and range rule out is tried. Only what must be given is listed here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from bench.fault_worker import EITHER, REFUSED, Case
from ropewalk.cli import COMMANDS
from ropewalk.settings.command import fields
from ropewalk.settings.load import LoadSettings
from ropewalk.settings.values import Range

#: What has to be given to any command, by field: words of the command line.
GIVEN: dict[str, tuple[str, ...]] = {
    "model": ("base",),
    "records": ("run/records.jsonl",),
    "adapter": ("adapter",),
    "data": ("--data", "data"),
    "window": ("--window", "128"),
    "out": ("--out", "new"),
    "reader": ("--for", "vllm"),
}
_JSONL = {"out": ("--out", "new.jsonl")}
#: Commands that need other words for it, or more to be quick.
MORE: dict[str, dict[str, tuple[str, ...]]] = {
    "perplexity": {"windows": ("--windows", "64"), "stride": ("--stride", "32")} | _JSONL,
    "gain": {"window": ("--window", "64"), "short": ("--short", "32"), "stride": ("--stride", "16"), "limit": ("--limit", "1")} | _JSONL,
    "train": {"steps": ("--steps", "2"), "batch_size": ("--batch-size", "1"), "threads": ("--threads", "1")},
    "merge": {"base": ("--base", "base")},
    "search": {"documents": ("--documents", "1"), "population": ("--population", "4"), "generations": ("--generations", "1"), "out": ("--out", "new.json")},
    "data score": {"data": ("data",), "model": ("--model", "base"), "window": ("--window", "64"), "short": ("--short", "32"), "limit": ("--limit", "2")} | _JSONL,
    "passkey": {"window": ("--window", "256"), "depths": ("--depths", "1"), "trials": ("--trials", "1")} | _JSONL,
    "retrieval": {"window": ("--window", "1024"), "trials": ("--trials", "1")} | _JSONL,
    "ruler": {"windows": ("--windows", "1024"), "tasks": ("--tasks", "niah_single_1"), "items": ("--items", "1"), "batch_tokens": ("--batch-tokens", "1024")} | _JSONL,
    "attention": {"window": ()} | _JSONL,
    "benchmarks": {"tasks": ("--tasks", "piqa"), "data": ("--data", "items"), "window": ()} | _JSONL,
    "summarize": {"model": ("run",), "data": ("--data", "pairs.jsonl"), "document_tokens": ("--document-tokens", "8"),
                  "summary_tokens": ("--summary-tokens", "4"), "window": ()} | _JSONL,
    "evaluate": {"budget": ("--budget", "0.02")},
    "ablate": {"test": ("--test", "data"), "data": (), "methods": ("--methods", "none"), "factors": ("--factors", "2"), "measure": ("--measure", "perplexity")},
    "generate": {"text": ("--text", "Once"), "max_new_tokens": ("--max-new-tokens", "2")},
    "chat": {"question": ("--question", "Who?"), "max_new_tokens": ("--max-new-tokens", "2")},
    "plan": {"gpus": ("--gpus", "8xH100")},
    "report": {"out": ("--out", "new.html")},
    "card": {"model": ("run",), "records": ("--records", "run/records.jsonl"), "out": ("--out", "new.md")},
    "push": {"repository": ("me/mine",), "dry_run": ("--dry-run",)},
}  # fmt: skip
#: Commands whose work takes minutes: only what is refused before it begins is tried.
LONG = ("demo",)

_LONGEST = "a" * 256
#: Where nothing can be read, and where nothing can be written.
NO_INPUT = (
    "",
    " ",
    "missing",
    "missing/",
    _LONGEST,
    "b/" * 2100,
    "loop",
    "pipe",
    "/dev/zero",
    "/dev/null",
    "\udcff",
    "~",
    "-",
)
NO_OUTPUT = ("", _LONGEST, "data", "data/d0.txt/x", "loop/x", "/dev/null/x", "/proc/x", "base", ".", "/")
#: Where a file is appended to or made.
NO_FILE = (
    "",
    _LONGEST,
    "data",
    "data/d0.txt/x",
    "loop",
    "pipe",
    "/dev/null/x",
    "/proc/x",
    "/dev/zero",
    "/dev/full",
    "base/config.json",
    "data/d0.txt",
)
_WORDS = ("bogus", "", "AUTOO", "None/")
_NO_NUMBER = ("nan", "x", "", "1e", "--", "0x10", "1,5", "½", "1 2")
#: Options that some other option makes idle.
_IDLE = {("export", "converter"), ("export", "gguf_type"), ("export", "base")}


def cases() -> Iterator[Case]:
    """Every command with each of its options in every way that is ruled out."""
    for name, command in COMMANDS.items():
        for turn, field in enumerate(fields(command.settings)):
            ruled_out = _ruled_out(command.settings, field.name, name)
            # What the sentence for a value is made by is the same for all commands: each option meets half of them.
            for value in ruled_out[(turn + len(name)) % 2 :: 2]:
                expected = EITHER if (name, field.name) in _IDLE else REFUSED
                yield Case("options", f"{name} {field.name} {value[:30]!r}", line(name, field.name, value), expected)
        for field in fields(command.settings):
            if field.name in GIVEN and field.default is not None and not isinstance(field.default, Path):
                yield Case("options", f"{name} without {field.name}", line(name, field.name, None), REFUSED)
        for wrong in (["--bogus"], ["--bogus=1"], ["a", "b", "c"], ["--quiet=maybe"]):
            yield Case("options", f"{name} {wrong[0]}", (*line(name), *wrong), REFUSED)
    for word in ("bogus", "", "--bogus", "extend extend", "-"):
        yield Case("options", f"no command {word!r}", (word,), REFUSED)


def line(command: str, changed: str = "", value: str | None = None) -> tuple[str, ...]:
    """A command line that would work, but for one option: another value, or left out (None)."""
    settings = COMMANDS[command].settings
    words: list[str] = []
    options = {name: given for name, given in GIVEN.items() if name in {field.name for field in fields(settings)}}
    for name, given in (options | MORE.get(command, {})).items():
        if name != changed:
            words += given
    if changed and value is not None:
        words += _option(settings, changed, value)
    return (*command.split(), *words)


#: Every command as it works, in the directory that fault_files.make_template makes.
LINES: dict[str, tuple[str, ...]] = {name: line(name) for name in COMMANDS if name not in LONG}
#: Those that write a place of their own, and those that read a model's config.
WRITES = {name: words for name, words in LINES.items() if "--out" in words}
APPENDS = tuple(name for name, words in LINES.items() if "new.jsonl" in words)
READS_CONFIG = {name: LINES[name] for name in ("extend", "perplexity", "plan", "theory")}


def out_of(words: tuple[str, ...]) -> str:
    """Where a command line writes."""
    return words[words.index("--out") + 1]


def into(command: str, place: str) -> tuple[str, ...]:
    """A command line that writes somewhere else."""
    return tuple(place if word == out_of(LINES[command]) else word for word in LINES[command])


def every(
    kind: str, faults: dict[str, Any], lines: dict[str, tuple[str, ...]], expected: str = REFUSED, **rest: Any
) -> Iterator[Case]:
    """A case for each fault of a table and each command line; a fault is what makes it, or that and how it must end."""
    for name, fault in faults.items():
        prepare, ends = fault if isinstance(fault, tuple) else (fault, expected)
        for command, words in lines.items():
            yield Case(kind, f"{command}: {name}", words, ends, prepare, **rest)


def _option(settings: type, name: str, value: str) -> list[str]:
    metadata = get_args(get_type_hints(settings, include_extras=True)[name])
    positional = any("Positional" in str(each) for each in metadata)
    if positional:
        return [value]
    renamed = next((each.name for each in metadata if getattr(each, "name", None)), None)
    return [f"--{renamed or name.replace('_', '-')}", value]


def _ruled_out(settings: type, name: str, command: str) -> list[str]:
    """Words that an option's type and range, or its part in a command, rule out."""
    hint = get_type_hints(settings, include_extras=True)[name]
    parts = list(_parts(hint))
    if "PythonOnly" in str(hint) or "Suppress" in str(hint) or bool in parts:
        return []
    words: list[str] = []
    for part in parts:
        if get_origin(part) is Literal:
            words += [word for word in _WORDS if word not in get_args(part)]
        elif get_origin(part) is Annotated and get_args(part)[0] in (int, float):
            limits = next(each for each in get_args(part)[1:] if isinstance(each, Range))
            words += _numbers(get_args(part)[0], limits, turn=len(command) + len(name))
    if words:
        return words
    if name in ("out", "trained"):
        return list(NO_OUTPUT if "new" in line(command) else NO_FILE)
    if name in (
        "model",
        "base",
        "data",
        "math",
        "benchmarks",
        "pairs",
        "train_pairs",
        "train",
        "adapter",
        "records",
        "file",
        "prompt",
        "converter",
        "factors",
        "test",
        "validation",
        "scores",
        "questions",
        "needle",
        "watch_data",
        "evaluator",
    ):
        return [word for word in NO_INPUT if word not in ("~", "-") or name in ("model", "data")]
    return ["", " "]


def _numbers(kind: type, limits: Range, *, turn: int) -> list[str]:
    """Beyond the range, and no numbers at all: of these a third each turn."""
    beyond = [limits.least - 1, limits.most * 2 + 1] + [limits.least] * limits.above + [limits.most] * limits.below
    words = [f"{value:.0f}" if kind is int else repr(float(value)) for value in beyond] + list(
        _NO_NUMBER[turn % 3 :: 3]
    )
    return words + (["1.5", "1e3", "1e18", "9" * 30] if kind is int else ["inf", "-inf", "1e309", "1e300"])


def _parts(hint: Any) -> Iterator[Any]:
    yield hint
    for part in get_args(hint)[:1] if get_origin(hint) is Annotated else get_args(hint):
        yield from _parts(part)


#: Of no use to any argument, in Python.
NONSENSE = (
    object(),
    None,
    {},
    [],
    [None],
    [[]],
    math.nan,
    math.inf,
    -1.5,
    b"",
    "",
    " ",
    "a\0b",
    10**30,
    1j,
    len,
    int,
    {1: 2},
    True,
    "x" * 300,
)


def calls() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(function, argument, arguments) of every public function with every argument as nonsense; no model of that name exists.

    What is no nonsense for an argument (None where it is left out) ends at the missing model or file.
    """
    for name, settings in [
        *((name, command.settings) for name, command in COMMANDS.items()),
        ("load_model", LoadSettings),
    ]:
        known = {field.name for field in fields(settings)}
        needed = {"model": "./missing", "data": "./missing", "window": 128, "out": "new", "records": ["./missing"], "adapter": "./missing", "test": "./missing",
                  "reader": "vllm", "text": "Once"}  # fmt: skip
        given = {key: value for key, value in needed.items() if key in known}
        if name in ("theory", "demo", "chat"):
            given |= {"out": "base"} if "out" in known else {}
        for field in fields(settings):
            for value in NONSENSE:
                yield name.replace(" ", "_"), field.name, given | {field.name: value}
