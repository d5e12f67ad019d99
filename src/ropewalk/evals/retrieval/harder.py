"""Retrieval harder than the passkey: several facts, several values, look-alikes, a chain; after RULER's families.

in   a model, a window (tokens), a number of trials
out  records: successes per family, and every trial with the place of its fact

A model that finds one passkey in a repeated filler may still fail to tell facts apart (PoSE's longer training kept the
passkey and lost topic retrieval). The families are those of RULER (Hsieh et al. 2024, arXiv 2404.06654, section 3); the
wording is ropewalk's own, and the haystack is prose of different sentences in a random order, so that facts do not stand
out as the only text that does not repeat.

    keys        eight things have a code each; the code of one is asked
    values      one thing has four codes; all are asked, in order
    lookalikes  sixteen lockers whose numbers differ in one digit have a code each; that of one is asked
    chain       a name is given a value, and four further names in turn the value of the one before; two other such
                chains are mixed in; the value of the last name is asked

A prompt is exactly `window` tokens. Facts stand between sentences, at places drawn at random; where one fact is asked, its
place is spread evenly from the far end to the near end over the trials. Codes are five digits. The verdict is that of
greedy decoding, read off one forward pass (forced.py): all digits of the answer must be right. Where several codes are
asked, the commas between them are given and not judged.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool

from ropewalk import records
from ropewalk.data.encode import TokenIds, encode
from ropewalk.distributed import ranks
from ropewalk.errors import UserError
from ropewalk.evals.intervals import share_interval
from ropewalk.evals.likelihood import check_window, prompt_window
from ropewalk.evals.loaded import LoadedModel, fingerprint, open_model
from ropewalk.evals.retrieval.facts import FAMILIES, Task
from ropewalk.evals.retrieval.forced import Prompt, passes_of, verdicts
from ropewalk.evals.retrieval.haystack import HEADER, SENTENCES
from ropewalk.evals.time_needed import announce
from ropewalk.evals.tokenize_parts import UNLIKE, after, common_length
from ropewalk.progress import Progress
from ropewalk.records.resume import recorded_rows
from ropewalk.sentences import counted
from ropewalk.settings.command import takes
from ropewalk.settings.measure import RetrievalSettings


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
        return [self._sentence(sentence) for sentence in SENTENCES]

    def _sentence(self, sentence: str) -> TokenIds:
        return after(self.tokenizer, ".", f" {sentence}")

    def question(self, question: str) -> TokenIds:
        """The question, on a line of its own, up to the token before the answer's first digit."""
        unlike = [after(self.tokenizer, ".", f"\n{question} {code}") for code in UNLIKE]
        return unlike[0][: common_length(unlike)]

    def least(self, task: Task) -> int:
        """The smallest window that holds the facts and the question, tokens."""
        facts = sum(len(self._sentence(fact)) for fact in task.facts)
        return len(self.header) + facts + len(self.question(task.question))

    def prompt(
        self, task: Task, random: np.random.Generator, share: float
    ) -> tuple[Prompt, Bool[np.ndarray, " _"], int]:
        """A prompt, which tokens of its answer are digits, and how far before its end the asked fact begins (tokens).

        Args:
            task: facts, question and answer.
            random: draws the prose and the places of facts.
            share: where in the prose the asked fact should stand, 0 (far end) to 1 (near end); the order of facts is kept.

        Raises:
            UserError: the window does not hold the facts and the question.
        """
        facts, question = [self._sentence(fact) for fact in task.facts], self.question(task.question)
        least = self.least(task)
        if least > self.window:
            raise UserError(
                f"these facts and their question take {least} tokens, and the window is {self.window}; ask for a larger --window"
            )
        prose_tokens = self.window - least
        prose = self._prose(random, prose_tokens)
        cuts = _places(len(facts), task.asked, share, prose_tokens, random)
        text, starts = interleave(prose, facts, cuts, prose_tokens)
        ids = np.concatenate([self.header, *text, question])
        answer = after(self.tokenizer, ".", f"\n{task.question} {task.answer}")[len(question) :]
        digits = np.array([any(letter.isdigit() for letter in self.tokenizer.decode([token])) for token in answer])
        return Prompt(ids, answer), digits, len(ids) - len(self.header) - starts[task.asked or 0]

    def _prose(self, random: np.random.Generator, tokens: int) -> list[TokenIds]:
        """Sentences in random order, each once before any is repeated, until they have as many tokens or more."""
        sentences, length = [], 0
        while length < tokens:
            for number in random.permutation(len(self.sentences)):
                if length >= tokens:
                    break
                sentences.append(self.sentences[number])
                length += len(self.sentences[number])
        return sentences


def interleave(
    prose: Sequence[TokenIds], facts: Sequence[TokenIds], cuts: Sequence[float], prose_tokens: int
) -> tuple[list[TokenIds], list[int]]:
    """The first `prose_tokens` of the prose with the facts between its sentences, and where each fact starts.

    A fact goes before the first sentence that begins at its cut or later, and before the last one at the latest.
    """
    ends = np.cumsum([0, *map(len, prose)])
    text, starts, length = [], [], 0
    for number, sentence in enumerate([*prose, None]):
        while len(starts) < len(facts) and (
            sentence is None or cuts[len(starts)] <= ends[number] or ends[number + 1] > prose_tokens
        ):
            fact = facts[len(starts)]
            text.append(fact)
            starts.append(length)
            length += len(fact)
        if sentence is not None:
            text.append(sentence[: max(0, prose_tokens - int(ends[number]))])
            length += len(text[-1])
    return text, starts


def _places(facts: int, asked: int | None, share: float, tokens: int, random: np.random.Generator) -> list[float]:
    """Places of the facts in so many tokens of prose, ascending: the asked one at `share` of it, the others at random."""
    if asked is None:
        return sorted(random.uniform(0, tokens, size=facts))
    place = share * tokens
    before, behind = random.uniform(0, place, size=asked), random.uniform(place, tokens, size=facts - asked - 1)
    return [*sorted(before), place, *sorted(behind)]


@takes(RetrievalSettings)
def retrieval(settings: RetrievalSettings) -> records.Rows[records.Retrieval]:
    """Measure harder retrieval; the families head this module.

    Returns:
        One row a family; the same on every rank.

    Raises:
        UserError: an unknown family, no trials, a window too small for the facts or too large for the model.
    """
    loaded = open_model(settings.model, tokenizer=settings.tokenizer, **settings.loading, **settings.opening)
    return records.Rows(measure(loaded, settings))


def measure(loaded: LoadedModel, settings: RetrievalSettings) -> list[records.Retrieval]:
    """`retrieval` of a model that is loaded already."""
    families, trials, seed = settings.families or tuple(FAMILIES), settings.trials, settings.seed
    window = settings.window or prompt_window(loaded.model, loaded.info.window)
    check_window(loaded.model, window)
    run = ranks.same(loaded.run(seed=seed, window=window, trials=trials, weights=fingerprint(loaded)))
    _check_prompts_fit(loaded.tokenizer, families, window, trials, seed)
    recorded = {row.family: row for row in recorded_rows(settings.out, run, records.Retrieval)}
    recorder, rows = records.Recorder(settings.out, run), []
    for family in families:
        if family in recorded:
            rows.append(recorded[family])
            continue
        row = measure_family(loaded, family, window, trials, seed, settings.batch_tokens)
        rows.append(dataclasses.replace(row, extrapolation=loaded.extrapolates(window)))
        if ranks.rank() == 0:
            recorder.add(rows[-1])
    return rows


def least_windows(tokenizer: Any, trials: int, seed: int, families: Sequence[str] = tuple(FAMILIES)) -> dict[str, int]:
    """By family, the smallest window that holds the facts and the question of each of these trials, tokens."""
    haystack = Haystack(tokenizer, 0)
    return {
        family: max(haystack.least(FAMILIES[family](_random(seed, family, trial))) for trial in range(trials))
        for family in families
    }


def _check_prompts_fit(tokenizer: Any, families: Sequence[str], window: int, trials: int, seed: int) -> None:
    """Refuse before the first family is measured: half a measurement would look like a whole one."""
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
) -> list[tuple[Prompt, Bool[np.ndarray, " _"], int]]:
    """All prompts of a family, as `Haystack.prompt` returns them; each has its own seed, so that more trials only add some."""
    haystack = Haystack(tokenizer, window)
    prompts = []
    for trial in range(trials):
        random = _random(seed, family, trial)
        # Multiples of the golden ratio modulo 1 fill 0 .. 1 evenly, however many there are.
        share = (0.5 + trial * 0.6180339887498949) % 1.0
        prompts.append(haystack.prompt(FAMILIES[family](random), random, share))
    return prompts


def measure_family(
    loaded: LoadedModel, family: str, window: int, trials: int, seed: int = 0, batch_tokens: int | None = None
) -> records.Retrieval:
    """One family's row; the same on every rank."""
    started = time.perf_counter()
    prompts = prompts_of(loaded.tokenizer, family, window, trials, seed)
    local = range(ranks.rank(), trials, ranks.size())
    title, local_prompts = f"retrieval, {family}, window {window}", [prompts[trial][0] for trial in local]
    ways = "fewer --trials, some --families, or a smaller --window, take less"
    announce(title, loaded.model, counted(len(local), "prompt"), passes_of(loaded.model, local_prompts), ways)
    with Progress(title, len(local)) as advance:
        judged = verdicts(loaded.model, local_prompts, batch_tokens=batch_tokens, advance=advance)
    local_right = {}
    for trial, tokens_right in zip(local, judged, strict=True):
        digits = prompts[trial][1]
        local_right[trial] = bool(tokens_right[digits].all())
    right = ranks.gathered(local_right)
    successes = sum(right.values())
    low, high = share_interval(successes, trials)
    return records.Retrieval(
        window=window,
        family=family,
        trials=trials,
        successes=successes,
        low=low,
        high=high,
        seconds=time.perf_counter() - started,
        per_trial=[{"placed": prompts[trial][2], "right": right[trial]} for trial in range(trials)],
    )
