"""Retrieval that does not saturate: several facts, several values, look-alikes, a chain; after RULER's families.

in   a model, a window (tokens), a number of trials
out  records: successes per family, and every trial with the place of its fact

A model that finds one passkey in a repeated filler may still fail to tell facts apart (PoSE's longer training kept the
passkey and lost topic retrieval). The families are those of RULER (Hsieh et al. 2024, arXiv 2404.06654, section 3); the
wording is our own, and the haystack is prose of unlike sentences in a random order, so that facts do not stand out as
the only text that is new.

    keys        eight things have a code each; the code of one is asked
    values      one thing has four codes; all are asked, in order
    lookalikes  sixteen lockers whose numbers differ in one digit have a code each; that of one is asked
    chain       a name is given a value, four further names in turn that of the one before, among two such chains
                of other values; the value of the last name is asked

A prompt is exactly `window` tokens. Facts stand between sentences, at places drawn at random; where one fact is asked, its
place is spread evenly from the far end to the near end over the trials. Codes are five digits. The verdict is read off
one forward pass (forced.py): all digits of the answer must be what greedy decoding gives. Where several codes are asked,
the commas between them are given and not judged.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool

from ropewalk import records
from ropewalk.data.encode import TokenIds, encode
from ropewalk.distributed import ranks
from ropewalk.errors import UserError
from ropewalk.evals.intervals import wilson
from ropewalk.evals.likelihood import check_window
from ropewalk.evals.loaded import LoadedModel, fingerprint, open_model
from ropewalk.evals.recorded import recorded_rows
from ropewalk.evals.retrieval.facts import FAMILIES, Task
from ropewalk.evals.retrieval.forced import Prompt, verdicts
from ropewalk.evals.retrieval.haystack import HEADER, SENTENCES
from ropewalk.evals.tokenize_parts import UNLIKE, after, common_length
from ropewalk.progress import Progress


@dataclasses.dataclass(frozen=True)
class Haystack:
    """Prompts of one tokenizer and one window."""

    tokenizer: Any
    window: int

    @cached_property
    def header(self) -> TokenIds:
        return encode(self.tokenizer, HEADER)

    @cached_property
    def sentences(self) -> list[TokenIds]:
        return [self._sentence(one) for one in SENTENCES]

    def _sentence(self, sentence: str) -> TokenIds:
        return after(self.tokenizer, ".", f" {sentence}")

    def question(self, question: str) -> TokenIds:
        """The question, on a line of its own, up to the token before the answer's first digit."""
        unlike = [after(self.tokenizer, ".", f"\n{question} {code}") for code in UNLIKE]
        return unlike[0][: common_length(unlike)]

    def least(self, task: Task) -> int:
        """The smallest window that holds the facts and the question, tokens."""
        facts = sum(len(self._sentence(one)) for one in task.facts)
        return len(self.header) + facts + len(self.question(task.question))

    def prompt(
        self, task: Task, random: np.random.Generator, share: float
    ) -> tuple[Prompt, Bool[np.ndarray, " m"], int]:
        """A prompt, which tokens of its answer are digits, and how far before its end the asked fact begins (tokens).

        Args:
            task: what is told and asked.
            random: draws the prose and the places of facts.
            share: where in the prose the asked fact ought to stand, 0 (far end) to 1 (near end); the order of facts holds.

        Raises:
            UserError: the window does not hold the facts and the question.
        """
        facts, question = [self._sentence(one) for one in task.facts], self.question(task.question)
        room = self.window - self.least(task)
        if room < 0:
            raise UserError(
                f"these facts and their question take {self.window - room} tokens, and the window is {self.window}; "
                f"ask for a larger --window"
            )
        prose = self._prose(random, room)
        ends = np.cumsum([0, *map(len, prose)])
        cuts = _places(len(facts), task.asked, share, room, random)
        parts, begins, told, length = [self.header], [], 0, len(self.header)
        for at, sentence in enumerate([*prose, None]):
            while told < len(facts) and (sentence is None or cuts[told] <= ends[at] or ends[at + 1] > room):
                parts.append(facts[told])
                begins.append(length)
                length += len(facts[told])
                told += 1
            if sentence is not None:
                kept = sentence[: max(0, room - int(ends[at]))]
                parts.append(kept)
                length += len(kept)
        ids = np.concatenate([*parts, question])
        whole = after(self.tokenizer, ".", f"\n{task.question} {task.answer}")
        answer = whole[len(question) :]
        digits = np.array([any(letter.isdigit() for letter in self.tokenizer.decode([one])) for one in answer])
        return Prompt(ids, answer), digits, len(ids) - begins[task.asked or 0]

    def _prose(self, random: np.random.Generator, room: int) -> list[TokenIds]:
        """Sentences in random order, all of them before any comes again, until there is room for no more."""
        found, length = [], 0
        while length < room:
            for at in random.permutation(len(self.sentences)):
                if length >= room:
                    break
                found.append(self.sentences[at])
                length += len(self.sentences[at])
        return found


def _places(facts: int, asked: int | None, share: float, room: int, random: np.random.Generator) -> list[float]:
    """Places of the facts in the prose, ascending; that of the asked one is given, the others are random about it."""
    if asked is None:
        return sorted(random.uniform(0, room, size=facts))
    place = share * room
    before, behind = random.uniform(0, place, size=asked), random.uniform(place, room, size=facts - asked - 1)
    return [*sorted(before), place, *sorted(behind)]


def retrieval(
    model: Any,
    *,
    window: int | None = None,
    families: Sequence[str] = tuple(FAMILIES),
    trials: int = 32,
    seed: int = 0,
    batch_tokens: int | None = None,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    tokenizer: Any = None,
    out: str | Path | None = None,
) -> list[records.Retrieval]:
    """Measure the families of this module.

    Args:
        model: a name (`hemp`, directory, hub id) or a transformers model (then with its tokenizer).
        window: tokens of every prompt; the model's own window if not given.
        families: some of `FAMILIES`.
        trials: prompts a family, each with fresh facts, prose and places.
        seed: of all of it; the same prompts for the same seed, trials, window and tokenizer.
        batch_tokens: tokens of one forward pass.
        dtype, device: as in `model.load`.
        out: record file to append to; a family it already holds of the same weights and settings is not measured again.

    Returns:
        One row a family; the same on every rank.

    Raises:
        UserError: an unknown family, no trials, a window too small for the facts or too large for the model.
    """
    unknown = [family for family in families if family not in FAMILIES]
    if unknown or not families:
        raise UserError(
            f"a family is one of {', '.join(FAMILIES)}, got {', '.join(unknown) or 'none'}; choose some of them"
        )
    if trials < 1:
        raise UserError(f"retrieval needs at least one trial, got {trials}; 32 tell 50 % from 70 %")
    loaded = open_model(model, tokenizer=tokenizer, dtype=dtype, device=device)
    window = loaded.info.window if window is None else window
    check_window(loaded.model, window)
    run = ranks.same(loaded.run(seed=seed, window=window, trials=trials, weights=fingerprint(loaded.model)))
    _check_room(loaded.tokenizer, families, window, trials, seed)
    done = {row.family: row for row in recorded_rows(out, run, records.Retrieval)}
    recorder, rows = records.Recorder(out, run), []
    for family in families:
        if family in done:
            rows.append(done[family])
            continue
        rows.append(measure(loaded, family, window, trials, seed, batch_tokens))
        if ranks.rank() == 0:
            recorder.add(rows[-1])
    return rows


def least_windows(tokenizer: Any, trials: int, seed: int, families: Sequence[str] = tuple(FAMILIES)) -> dict[str, int]:
    """Family → the smallest window that holds each of these trials' facts and question, tokens."""
    haystack = Haystack(tokenizer, 0)
    return {
        family: max(haystack.least(FAMILIES[family](_random(seed, family, trial))) for trial in range(trials))
        for family in families
    }


def _check_room(tokenizer: Any, families: Sequence[str], window: int, trials: int, seed: int) -> None:
    """Refuse before the first prompt is read: half a measurement would look like a whole one."""
    least = least_windows(tokenizer, trials, seed, families)
    if max(least.values()) > window:
        needs = ", ".join(f"{family} {tokens}" for family, tokens in least.items())
        raise UserError(
            f"retrieval prompts of this tokenizer take at least so many tokens: {needs}, and the window is {window}; "
            "ask for a larger --window, or for those --families that fit"
        )


def _random(seed: int, family: str, trial: int) -> np.random.Generator:
    return np.random.default_rng([seed, list(FAMILIES).index(family), trial])


def prompts_of(
    tokenizer: Any, family: str, window: int, trials: int, seed: int
) -> list[tuple[Prompt, Bool[np.ndarray, " m"], int]]:
    """All prompts of a family; each of its own random numbers, so that more trials only add some."""
    haystack = Haystack(tokenizer, window)
    found = []
    for trial in range(trials):
        random = _random(seed, family, trial)
        # The golden ratio's multiples fill 0 .. 1 evenly however many there are.
        share = (0.5 + trial * 0.6180339887498949) % 1.0
        found.append(haystack.prompt(FAMILIES[family](random), random, share))
    return found


def measure(
    loaded: LoadedModel, family: str, window: int, trials: int, seed: int = 0, batch_tokens: int | None = None
) -> records.Retrieval:
    """One family's row."""
    started = time.perf_counter()
    made = prompts_of(loaded.tokenizer, family, window, trials, seed)
    mine = range(ranks.rank(), trials, ranks.size())
    with Progress(f"retrieval, {family}, window {window}", len(mine)) as advance:
        prompts = [made[at][0] for at in mine]
        judged = verdicts(loaded.model, prompts, batch_tokens=batch_tokens, advance=advance)
    right = ranks.gathered({at: bool(one[made[at][1]].all()) for at, one in zip(mine, judged, strict=True)})
    successes = sum(right.values())
    low, high = wilson(successes, trials)
    return records.Retrieval(
        window=window,
        family=family,
        trials=trials,
        successes=successes,
        low=low,
        high=high,
        seconds=time.perf_counter() - started,
        per_trial=[{"placed": made[at][2], "right": right[at]} for at in range(trials)],
    )
