"""What the rows of an ablation (row.py) have in common, and what each is of a model: its windows, how it is trained, what identifies it, what it takes.

in   `AblateSettings` and the model that all rows start from
out  of a row its recipe, its identity on record, and about how long it takes
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.data.select import name_of
from ropewalk.data.sliding import check
from ropewalk.errors import UserError
from ropewalk.planner.named import shape_of
from ropewalk.records.recipe import CONTROL, steps_of
from ropewalk.records.whole import windows_of
from ropewalk.rope.scaling import Abf, LongRope, Plain, Rope
from ropewalk.rope.vectors import clipped
from ropewalk.sentences import counted, joined
from ropewalk.settings.ablate import AblateSettings
from ropewalk.settings.command import arguments
from ropewalk.settings.mixture import sources_of
from ropewalk.settings.train import TrainSettings
from ropewalk.suite.digests import TEXTS, digests_of, words_of
from ropewalk.suite.row import DIRECT, NONE, Row, rows_of
from ropewalk.suite.speed import H100, Speed, of_chip, of_this_machine

#: A share of the asked tokens by which whole windows and steps may be off without a word.
_ROUNDED = 0.1
#: The other methods that `extend` has no word for, or no default: what they are of a model.
_DERIVED: dict[str, Callable[[Rope], dict[str, Any]]] = {
    "abf": lambda rope: {"method": "abf", "rope_theta": Abf.usual(rope)},
    "proportional": lambda rope: {"method": "proportional", "rotated_share": _turning(rope)},
    "p-rope": lambda rope: {"method": "factors", "factors": clipped(rope, soft=False)},
    "cope": lambda rope: {"method": "factors", "factors": clipped(rope, soft=True)},
}


def _turning(rope: Rope) -> float:
    """The share of pairs that complete a turn in the pretraining window."""
    return float(np.mean(rope.window * rope.inv_freq() >= 2 * math.pi))


@dataclass(frozen=True)
class Grid:
    """All rows of a command, and what they have in common."""

    settings: AblateSettings
    source: Checkpoint

    @property
    def window(self) -> int:
        """L, tokens: what the model reads before any row."""
        return self.source.positions.window

    @property
    def model_name(self) -> str:
        return Path(os.path.abspath(self.settings.model)).name  # of `.` too

    @cached_property
    def rows(self) -> list[Row]:
        return rows_of(self.settings)

    def new_window(self, row: Row) -> int:
        """L', tokens."""
        return round(self.window * row.factor)

    def windows(self, row: Row, reach: float | None = None) -> list[int]:
        """At which perplexity is measured, as far as documents of so many tokens reach; `test_tokens` if not given."""
        prompts, reach = self.prompt_windows(row), self.test_tokens if reach is None else reach
        return windows_of(self.settings.windows, self.window, self.new_window(row), prompts, reach)

    @property
    def unreached(self) -> str:
        """What is asked for and not measured, since it takes longer documents than --test-tokens leaves, in a sentence; nothing where all is.

        Raises:
            UserError: of a row nothing that reads documents is left.
        """
        beyond, nothing_left = dict[str, int](), False
        for takes in map(self._of_documents, self.rows):
            far = {name: tokens for name, tokens in takes.items() if tokens > self.test_tokens}
            nothing_left |= bool(far) and far == takes
            beyond |= far
        if not beyond:
            return ""
        said = f"documents cut to {self.test_tokens} tokens are too short for {joined(list(beyond))}"
        way_out = f"--test-tokens {max(beyond.values())}"
        if nothing_left:
            raise UserError(f"{said}, and a row would have none of it; give {way_out}, or leave it out of --measure")
        return f"{said}, which no row will have; {way_out} would do"

    def _of_documents(self, row: Row) -> dict[str, int]:
        """What is asked for of a row and read from --test, with the tokens that it takes of a document."""
        asks, new = self.settings.measure, self.new_window(row)
        windows = self.windows(row, math.inf) if "perplexity" in asks else []
        return {f"perplexity at {window}": window for window in windows} | {
            f"{name} at {new}": new for name in ("gain", "attention") if name in asks
        }

    def stride(self, window: int) -> int:
        """By which a window of the perplexity slides, tokens.

        Raises:
            UserError: the asked one is longer than this window.
        """
        check(window, stride := self.settings.stride or max(1, window // 2))
        return stride

    def prompt_windows(self, row: Row) -> list[int]:
        """At which keys and facts are hidden."""
        return sorted(set(self.settings.prompt_windows or (self.window, self.new_window(row))))

    @property
    def test_tokens(self) -> int:
        return self.settings.test_tokens or round(self.window * max(self.settings.factors))

    def recipe(self, row: Row, out: Path, searched: Callable[[], Any]) -> TrainSettings:
        """How a row is trained; of one that is not, what its rotation is.

        searched: the file of LongRoPE's factors, asked for where they are needed.
        """
        asked, rope = self.settings, self.source.rope.rope
        scaling: dict[str, Any] = {"method": row.method}
        if row.method in (NONE, DIRECT, CONTROL):
            scaling = {"method": Plain.method}
        elif row.method in _DERIVED:
            scaling = _DERIVED[row.method](rope)
        elif row.method == LongRope.method:
            scaling["factors"] = searched()
        scaling |= dict(row.parameters)
        window = self.own_window(row)
        batch, steps = self.steps(row)
        return TrainSettings(
            model=self.source,
            data=asked.data or asked.test,
            scores=asked.scores,
            keep=asked.keep,
            weigh=asked.weigh,
            longce=asked.longce if row.tokens else None,
            window=window,
            steps=steps,
            batch_size=batch,
            learning_rate=row.rate or None,
            warmup=asked.warmup,
            seed=row.seed,
            mode=asked.mode,
            save_every=0,
            device=None if asked.device is None else str(asked.device),
            out=out,
            **scaling,
        )

    def own_window(self, row: Row) -> int:
        """That of a row's model, tokens: the old one of the base and the control, else the new one."""
        return self.window if row.method in (NONE, CONTROL) else self.new_window(row)

    def read_at_once(self, row: Row) -> int:
        """Tokens that training reads at a time: a window."""
        return self.window if self.settings.mode == "pose" else self.own_window(row)

    def steps(self, row: Row) -> tuple[int, int]:
        """(windows a step, steps)."""
        return steps_of(row.tokens, self.settings.step_tokens, self.read_at_once(row))

    def rounded(self, row: Row) -> str:
        """How many tokens a row is trained on, where whole windows and steps are a tenth more or less than was asked for; else nothing.

        Raises:
            UserError: not one window was asked for.
        """
        (batch, steps), window = self.steps(row), self.read_at_once(row)
        if 0 < row.tokens < window:
            raise UserError(
                f"a step of training reads a window at least, of {row.name} {window} tokens, and asked for are {row.tokens}; give --tokens {window} or more"
            )
        tokens = batch * steps * window
        if not row.tokens or abs(tokens / row.tokens - 1) <= _ROUNDED:
            return ""
        return f"{row.name} is trained on {tokens} tokens: {counted(steps, 'step')} of {counted(batch, 'window')} of {window}"

    @cached_property
    def digests(self) -> dict[str, str]:
        """What the model and the texts of each setting hold; `suite/digests.py` defines it."""
        return digests_of(self.settings, self.source)

    def digests_for(self, row: Row) -> dict[str, str]:
        """Of what a row is made from: what is trained on alone is nothing to one that is not trained, but for LongRoPE's factors where it is all they are searched on."""
        searched = row.method == LongRope.method and self.settings.validation is None
        unread = () if row.tokens else ("scores",) if searched else ("data", "scores")
        return {name: digest for name, digest in self.digests.items() if name not in unread}

    def identity(self, row: Row) -> dict[str, Any]:
        """What a row's file must agree with, or it is another row's: all that was asked for; files by short names, and by `digests` of what they hold."""
        asked = arguments(AblateSettings, self.settings)
        axes = (
            "model",
            "out",
            "methods",
            "factors",
            "tokens",
            "seeds",
            "learning_rates",
            "dry_run",
            "chip",
            "minutes",
            "device",
        )
        common = {name: _named(name, value) for name, value in asked.items() if name not in axes}
        common["test_tokens"] = self.test_tokens
        common["weigh"] = common["weigh"] or None  # as rows have it that were made before it could be asked for
        if not row.tokens:
            common |= dict.fromkeys(("data", "scores", "keep", "weigh", "longce", "step_tokens", "warmup", "mode"))
        own = {"method": row.method, "parameters": dict(row.parameters), "factor": row.factor, "tokens": row.tokens}
        own |= {"learning_rate": row.rate, "seed": row.seed, "digests": self.digests_for(row)}
        return {"name": f"{self.model_name}/{row.name}", **own, **common}

    def places(self) -> set[str]:
        """Directories in which the folders of documents lie, and the rows': records name what is in them from there on."""
        asked = self.settings
        listed = [each for name in TEXTS for each in words_of(getattr(asked, name))]
        return {str(Path(each).parents[1]) for each in listed if len(Path(each).parts) > 2} | {str(asked.out)}

    def seconds(self, row: Row) -> float:
        """About how long a row takes at `speed`."""
        shape, new, speed = shape_of(self.source), self.new_window(row), self.speed
        window = self.window if row.method == CONTROL else new
        training = row.tokens * max(shape.flops(window) / speed.training, 1 / speed.tokens)
        measuring = sum(tokens * shape.flops(length) / 3 for tokens, length in self._passes(row)) / speed.measuring
        return speed.beside[bool(row.tokens)] + training + measuring

    @cached_property
    def speed(self) -> Speed:
        """Of what is estimated: the chip that was asked for, else this machine; one H100 where rows are run, whose first says how far that is off."""
        asked = self.settings
        if not asked.dry_run:
            return H100
        if asked.chip is not None:
            return of_chip(asked.chip)
        longest = max(map(self.new_window, self.rows), default=self.window)
        return of_this_machine(self.source, longest, asked.mode if longest > self.window else "full")

    def _passes(self, row: Row) -> Iterator[tuple[float, int]]:
        """(tokens, window) that measuring a row reads."""
        asked, text = self.settings, self.test_tokens
        for window in self.windows(row) if "perplexity" in asked.measure else ():
            passes = 1 + (text - window) / self.stride(window)
            yield (2 if asked.also else 1) * asked.documents * passes * window, window
        if "gain" in asked.measure:
            yield from ((asked.documents * text, text), (asked.documents * 2 * text, self.window))
        for window in self.prompt_windows(row):
            if "passkey" in asked.measure:
                yield asked.depths * asked.trials * window // 2, window
            if "retrieval" in asked.measure:
                yield 4 * asked.prompts * window, window


def _named(name: str, value: Any) -> Any:
    """A setting as records have it: files by their names, not by where they lie."""
    if value is not None and name in TEXTS:
        words = words_of(value)
        # Of many files the first three are named, as in the rows that measure them; of a mixture all, since weights and lengths stand between them.
        mixed = name == "data" and len(sources_of(value)) < len(words)
        return name_of(words, len(words)) if mixed else name_of(words)
    return _plain(value)


def _plain(value: Any) -> Any:
    """As JSON has it."""
    if isinstance(value, list | tuple):
        return list(value)
    return value if value is None or isinstance(value, int | float | str) else str(value)
