"""A row of an ablation: its method, factor, budget, rate and seed, and its name.

in   `AblateSettings`
out  `Row`s, the most telling first: all methods before the next factor, all factors before the next budget
"""

from __future__ import annotations

import contextlib
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk.checkpoint import guard, marks
from ropewalk.errors import STRANGE_DATA, UserError, nearest
from ropewalk.records.recipe import CONTROL, NONE, row_name
from ropewalk.rope.scaling import EXTENDING
from ropewalk.sentences import joined
from ropewalk.settings.ablate import AblateSettings
from ropewalk.settings.scaling import ALIASES, SPELLINGS, parameter_names

#: Rows whose rotation is the base's.
DIRECT = "direct"
METHODS = (NONE, DIRECT, CONTROL, *(word for word in EXTENDING if word != "factors"), "p-rope", "cope")


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        method: a word of METHODS. parameters: of it, as given.
        factor: the new window over the base's; of `none` the largest that it is measured for.
        tokens: of training, 0 for none. rate, seed: of it; 0 where there is none.
    """

    method: str
    parameters: tuple[tuple[str, float], ...]
    factor: float
    tokens: int = 0
    rate: float = 0.0
    seed: int = 0

    @property
    def name(self) -> str:
        """As a file is called."""
        return row_name(self.method, dict(self.parameters), self.factor, self.tokens, self.rate, self.seed)


def rows_of(settings: AblateSettings) -> list[Row]:
    """The rows of a command, each once, in order.

    Raises:
        UserError: a method that does not exist; no row at all.
    """
    methods = [_method(word) for word in settings.methods]
    product = itertools.product(settings.seeds, settings.tokens, settings.learning_rates, settings.factors, methods)
    rows = [_row(method, settings, factor, tokens, rate, seed) for seed, tokens, rate, factor, method in product]
    if not any(rows):
        raise UserError(without_rows(settings) or "a grid has a row at least; leave no method, factor or budget out")
    return list(dict.fromkeys(row for row in rows if row is not None))


def without_rows(settings: AblateSettings) -> str:
    """Which methods have no row at all, and why; nothing where each has one."""
    words = [name for name, _ in map(_method, settings.methods) if name in (DIRECT, CONTROL)]
    if not words or any(settings.tokens):
        return ""
    are, them = ("is a training", "it") if len(words) == 1 else ("are trainings", "them")
    return f"{joined(words)} {are}, and at --tokens 0 there is no row of {them}; give --tokens above 0 and --data, or leave {them} out"


def _row(
    method: tuple[str, Any], settings: AblateSettings, factor: float, tokens: int, rate: float, seed: int
) -> Row | None:
    """None where a method has no such row: direct fine-tuning and its control are nothing untrained (`without_rows`)."""
    word, parameters = method
    if word == NONE:
        return Row(word, parameters, max(settings.factors))
    if tokens:
        return Row(word, parameters, factor, tokens, rate, seed)
    return None if word in (DIRECT, CONTROL) else Row(word, parameters, factor)


def _method(word: str) -> tuple[str, tuple[tuple[str, float], ...]]:
    """A word of --methods: the method, and its parameters.

    Raises:
        UserError: no such method or parameter.
    """
    name, _, rest = word.partition(":")
    method = SPELLINGS.word(name, (*METHODS, *ALIASES))
    if method is None:
        way_out = nearest(name.lower(), METHODS, "leave it out")
        raise UserError(f"a method is one of {', '.join(METHODS)}, got {name}; {way_out}")
    parameters = []
    for part in filter(None, rest.split(":")):
        key, _, number = part.partition("=")
        key, known = key.strip().replace("-", "_"), parameter_names()
        if key not in known:
            raise UserError(
                f"a method's parameter is one of {', '.join(known)}, got {word}; {nearest(key, known, 'leave it out')}"
            )
        try:
            parameters.append((key, float(number)))
        except ValueError:
            raise UserError(
                f"parameters stand behind a method as in yarn:beta_fast=16:beta_slow=2, got {word}; write it so, or leave them out"
            ) from None
    return ALIASES.get(method, method), tuple(parameters)


def asked_of(path: Path) -> dict[str, Any] | None:
    """What a row was asked for, as the first header says that its file has left; None of a file that has none."""
    with contextlib.suppress(OSError), path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            with contextlib.suppress(*STRANGE_DATA):
                row = json.loads(line)["settings"]["row"] if '"row"' in line else None
                if row and isinstance(row, dict):
                    return row
    return None


def refuse_other_files(out: Path) -> None:
    """Rows that were copied or cloned without the mark make a directory theirs too.

    Raises:
        UserError: the directory of the rows holds something else.
    """
    guard.refuse_unreadable(out.absolute())
    if not marks.is_free(out) and marks.marked(out) is None and not any(map(asked_of, out.glob("*.jsonl"))):
        raise UserError(f"rows lie in a directory of their own, and {out} holds other files; choose another --out")
