"""`--data` with weights and lengths: `books/ 0.6 code/*.py 0.3 short.jsonl 0.1@8k:short`.

in   the words after `--data`
out  `Group`s: sources that share a weight, a length, and whether they may be short
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk.errors import UserError
from ropewalk.settings.written_numbers import tokens

_WEIGHT = re.compile(r"(?P<weight>\d+\.?\d*|\.\d+)?(?:@(?P<length>[\d_]+[kKmM]?))?(?P<short>:short)?")
_JOINED = re.compile(r"(?P<source>.+?)(?P<closing>@[\d_]+[kKmM]?(:short)?|:short)")
#: Meant as a weight, though it is none: below 0, with an exponent, with a comma, in percent, no number.
_LIKE_A_WEIGHT = re.compile(r"([+-]?\d*[.,]?\d+([eE][+-]?\d+)?%?|[+-]?(nan|inf))(@.*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Group:
    """Sources that are read together.

    Attributes:
        sources: as `read_documents` takes them; documents, in Python.
        weight: its share of the windows, beside the other groups' weights; None for as much as its size.
        length: tokens after which positions begin again; None for the window.
        allow_short: its documents are packed though none is as long as its length.
    """

    sources: list[Any]
    weight: float | None = None
    length: int | None = None
    allow_short: bool = False

    def word(self, *, length: int | None = None, short: bool = False) -> str:
        """The word that closes it, with another length or with leave to be short; empty where it has none."""
        weight = "" if self.weight is None else f"{self.weight:g}"
        length = length or self.length
        return f"{weight}{f'@{length}' if length else ''}{':short' * short}"

    @property
    def name(self) -> str:
        """What messages and records call it."""
        names = [os.fspath(each) if isinstance(each, str | os.PathLike) else each.name for each in self.sources]
        return " ".join(map(str, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def sources_of(data: Any) -> list[Any]:
    """What is read of `--data`, weights and lengths left out; nothing where it is not given."""
    return [] if data is None else [source for group in groups_of(data) for source in group.sources]


def groups_of(data: Any) -> list[Group]:
    """The groups of `--data`: a word like 0.6, 0.6@8192, @8192 or 0.6@8192:short closes a group, all sources since the last such word.

    Raises:
        UserError: some groups have a weight and others none; a weight of nothing, or that is a file's name too.
    """
    words = [data] if isinstance(data, str | os.PathLike) else list(data)
    groups: list[Group] = []
    sources: list[Any] = []
    for word in words:
        closing = _closing(word) if sources else None
        if closing is None:
            _refuse_joined(word)
            sources.append(word)
        else:
            groups.append(Group(sources, *closing))
            sources = []
    if sources or not groups:
        groups.append(Group(sources))
    _refuse_some_without(groups)
    return groups


def _closing(word: Any) -> tuple[float | None, int | None, bool] | None:
    """Weight, length, and whether documents may be short, if a word is such."""
    match = _WEIGHT.fullmatch(word) if isinstance(word, str) else None
    if match is None or not word:
        if isinstance(word, str) and _LIKE_A_WEIGHT.fullmatch(word) and not Path(word).exists():
            raise UserError(
                f"the weight of a source is a number above 0 written like 0.3, got {word}; write it so, or leave that source out"
            )
        return None
    if Path(word).exists():
        raise UserError(
            f"{word} after a source is its weight, and a file of that name is here too; write ./{word} for the file"
        )
    weight = None if match["weight"] is None else float(match["weight"])
    length = None if match["length"] is None else tokens(match["length"])
    if weight == 0 or length == 0:
        raise UserError(f"a weight and a length are above 0, got {word}; leave that source out")
    return weight, length, match["short"] is not None


def _refuse_joined(word: Any) -> None:
    """Refuse a source with its length or its leave to be short in one word, where no file is called so."""
    match = _JOINED.fullmatch(word) if isinstance(word, str) else None
    if match and Path(match["source"]).exists() and not Path(word).exists():
        raise UserError(
            f"a weight and a length are a word of their own after their source, got {word}; write {shlex.quote(match['source'])} 1{match['closing']}"
        )


def _refuse_some_without(groups: Sequence[Group]) -> None:
    with_weight = [group for group in groups if group.weight is not None]
    if with_weight and len(with_weight) < len(groups):
        without = next(group for group in groups if group.weight is None)
        raise UserError(
            f"either every source of --data has a weight after it or none has, and {without.name} has none; give it one, as in "
            f"{with_weight[0].name} {with_weight[0].weight:g} {without.name} 0.1"
        )
