"""What a field of a settings class may hold: read off its type and the `Range` beside it, and checked before anything else.

in   a field's type and a value: from the command line, or anything at all from Python
out  the value as the field holds it (numpy's numbers become Python's), or a sentence

A number has a `Range` in its `Annotated` type (tests/settings/test_values.py holds that each has one), a word its `Literal`. What has no type
that could be looked at without importing torch (a model, a tokenizer) has a `Kind` there, which looks at what the object can do.
"""

from __future__ import annotations

import math
import numbers
import os
import re
import reprlib
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from ropewalk.errors import nearest
from ropewalk.settings.written_numbers import Unread, minutes, tokens, typed

#: Bytes of a path and of each of its parts, above which no file system of ours has room.
_LONGEST_PATH, _LONGEST_PART = 4095, 255


class Refused(Exception):
    """A value is not what its type says.

    why: where the value does not show it. way_out: where its kind knows a better one than its field.
    """

    def __init__(self, why: str = "", way_out: str = "") -> None:
        super().__init__(why)
        self.why, self.way_out = why, way_out


@dataclass(frozen=True)
class Range:
    """The numbers that a field may hold, from `least` to `most`; the ends belong to them unless `above` or `below` says otherwise."""

    least: float
    most: float
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        over = value > self.least if self.above else value >= self.least
        return over and (value < self.most if self.below else value <= self.most)

    def __str__(self) -> str:
        first = f"above {self.least:.10g}" if self.above else f"of at least {self.least:.10g}"
        return f"{first} and {'below' if self.below else 'at most'} {self.most:.10g}"


@dataclass(frozen=True)
class Kind:
    """What a field may hold, where its type alone does not say it.

    words: as a sentence has it ("a model"). take: the value as the field holds it; raises `Refused`.
    """

    words: str
    take: Callable[[Any], Any]


@dataclass(frozen=True, eq=False)
class Spellings:
    """Other words than a `Literal` has, without capitals and signs.

    taken: word → which it is without doubt. near: word → which may be meant, for the sentence that refuses it.
    """

    taken: Mapping[str, str]
    near: Mapping[str, str]

    def word(self, value: object, words: Iterable[Any]) -> Any:
        """Which of the words a value is; None if none."""
        if not isinstance(value, str):
            return next((word for word in words if word == value), None)
        typed = self.taken.get(_bare(value), value)
        return next((word for word in words if isinstance(word, str) and _bare(word) == _bare(typed)), None)


def _bare(word: str) -> str:
    """A word without capitals, blanks and the signs that stand between its parts."""
    return re.sub(r"[-_.\s]", "", word.lower())


_AS_THEY_ARE = Spellings({}, {})


def kind_of(hint: Any) -> Kind:
    """What a type says a value is; types in which `None` is one possibility take it, and do not speak of it."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        marks = {type(mark): mark for mark in reversed(parts[1:])}
        if Spellings in marks:
            return _word(get_args(parts[0]), marks[Spellings])
        return marks.get(Kind) or (_number(parts[0], marks[Range]) if Range in marks else kind_of(parts[0]))
    if origin in (Union, types.UnionType):
        kinds = [kind_of(part) for part in parts if part is not types.NoneType]
        return _one_of(kinds, optional=len(kinds) < len(parts))
    if origin is Literal:
        return _word(parts)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return several(kind_of(parts[0]), once=get_origin(parts[0]) is Literal)
    if origin is dict:
        return _instance_of(dict)
    plain = {bool: _FLAG, str: _TEXT, int: _number(int, _ANY), float: _number(float, _ANY), Any: _ANYTHING}
    return plain[hint] if hint in plain else _instance_of(hint)


def _instance_of(kind: type) -> Kind:
    return _if(f"a {kind.__name__}", lambda value: isinstance(value, kind))


def shown(value: Any) -> str:
    """A value as a sentence can quote it: short, on one line, whatever it is."""
    return " ".join(_REPR.repr(value).split())


def several(item: Kind, *, least: int = 1, once: bool = False) -> Kind:
    """A list, tuple or array of at least so many. once: what is named again adds nothing (a task would count twice)."""

    def take(value: Any) -> list[Any]:
        value = value.tolist() if hasattr(value, "tolist") else value
        if isinstance(value, str | bytes) or not isinstance(value, Sequence):
            raise Refused
        taken = [item.take(each) for each in value]
        if len(taken) < least:
            raise Refused
        return list(dict.fromkeys(taken)) if once else taken

    return Kind(f"a list of which each is {item.words}", take)


def _if(words: str, holds: Callable[[Any], bool]) -> Kind:
    """A value as it is, if that holds of it."""

    def take(value: Any) -> Any:
        if not holds(value):
            raise Refused
        return value

    return Kind(words, take)


def has(value: Any, *names: str) -> bool:
    """Whether a value is an object, and no class, that has all these attributes."""
    try:
        return not isinstance(value, type) and all(hasattr(value, name) for name in names)
    except Exception:  # noqa: BLE001 - a property of an unknown object may raise anything
        return False


def _take_path(value: Any) -> Any:
    """A path, or an object that stands for one and is kept as it is."""
    try:
        path = os.fsdecode(value)
        parts = [os.fsencode(part) for part in path.split("/")]
    except (TypeError, ValueError):
        raise Refused from None
    if not path.strip() or "\0" in path:
        raise Refused
    if sum(map(len, parts)) + len(parts) - 1 > _LONGEST_PATH or max(map(len, parts)) > _LONGEST_PART:
        raise Refused(f"a name of at most {_LONGEST_PART} bytes in a path of at most {_LONGEST_PATH}")
    return value if hasattr(type(value), "open") else str(path)  # a Path, a checkpoint; others have a name alone


def _number(kind: type, limits: Range) -> Kind:
    family = numbers.Integral if kind is int else numbers.Real  # numpy's numbers belong to them too

    def take(value: Any) -> float:
        if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):  # an array or a tensor of one number
            value = value.item()
        if isinstance(value, Unread):
            raise Refused(value.why)
        if isinstance(value, bool) or not isinstance(value, family):
            raise Refused
        try:
            taken = kind(value)
        except (OverflowError, ValueError):
            raise Refused from None
        if taken not in limits:
            raise Refused
        return taken

    return Kind(f"a {'whole' if kind is int else 'finite'} number {limits}", take)


def _one_of(kinds: list[Kind], words: str = "", *, optional: bool = False) -> Kind:
    def take(value: Any) -> Any:
        if optional and value is None:
            return None
        why = way_out = ""
        for kind in kinds:
            try:
                return kind.take(value)
            except Refused as refused:
                why, way_out = why or refused.why, way_out or refused.way_out
        raise Refused(why, way_out)

    return Kind(words or " or ".join(kind.words for kind in kinds), take)


def _word(words: tuple[Any, ...], spellings: Spellings = _AS_THEY_ARE) -> Kind:
    def take(value: Any) -> Any:
        known = isinstance(value, str | numbers.Integral) and not isinstance(value, bool)
        word = spellings.word(value, words) if known else None
        if word is None:
            typed = str(value).lower()
            raise Refused(way_out=nearest(spellings.near.get(_bare(typed), typed), words))
        return word

    return Kind(f"one of {', '.join(map(str, words))}", take)


def _take_flag(value: Any) -> bool:
    if type(value).__name__ not in ("bool", "bool_"):  # Python's own, and numpy's under both its names
        raise Refused
    return bool(value)


def _take_text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise Refused
    return str(value)


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80
_ANY = Range(-math.inf, math.inf, above=True, below=True)
_FLAG = Kind("True or False", _take_flag)
_TEXT = Kind("a text of at least one character", _take_text)
_ANYTHING = Kind("anything", lambda value: value)
_DOCUMENT = _if("", lambda value: all(isinstance(getattr(value, name, None), str) for name in ("name", "text")))
_LOADED = _if("a transformers model", lambda value: has(value, "config", "parameters", "forward"))

PATH = Kind("a path", _take_path)
PATHS = _one_of([PATH, several(PATH)], "a path or several")
MODEL = Kind("a model's name or directory", _take_path)
MODEL_OR_LOADED = _one_of([MODEL, _LOADED])
TEXTS = _one_of(
    [PATH, several(PATH), several(_DOCUMENT)],
    "one or several files, directories or data-set ids (in Python also a list of objects with a name and a text)",
)
TOKENIZER = _if("a tokenizer", lambda value: has(value, "eos_token_id", "encode", "decode"))
DTYPE = _if("a torch.dtype", lambda value: has(value, "is_floating_point", "itemsize"))
DEVICE = _if("a torch.device", lambda value: has(value, "type", "index"))
SENTENCES = several(_TEXT, least=0)
WORDS = _one_of([_TEXT, several(_TEXT)], "a text or several")
FUNCTION = _if("a function", lambda value: has(value, "__call__"))


_AS_WORDS = typed("TOKENS", tokens, int)
#: Tokens of a window, a prompt, a pass. No reader counts positions beyond 32 bits.
Tokens = Annotated[int, Range(1, 2**31 - 1), _AS_WORDS]
#: Tokens that are read in all; none is a choice too.
TokensInAll = Annotated[int, Range(0, 2**50), _AS_WORDS]
#: Things that are made, read or done one by one: more than any machine gets through.
Count = Annotated[int, Range(1, 10**7)]
#: As `Count`, where none is a choice too.
CountOrNone = Annotated[int, Range(0, 10**7)]
#: Prompts that are all in memory, and devices.
Prompts = Devices = Annotated[int, Range(1, 2**16)]
#: What every random generator takes.
Seed = Annotated[int, Range(0, 2**32 - 1)]
Share = Annotated[float, Range(0, 1, above=True)]
ShareOrNone = Share | None
Temperature = Annotated[float, Range(0, 100)]
LearningRate = Annotated[float, Range(0, 10, above=True)]
Minutes = Annotated[float, Range(0, 10**6, above=True), typed("MINUTES|1h", minutes, float | int)]
