"""Passkey retrieval: how far from the end of the prompt a five-digit key can stand and still be retrieved.

in   a model, a window (tokens), a number of depths and of trials
out  records: successes per depth, and k_max with its interval

**The prompt** is exactly `window` tokens: a header, filler, a line that states the key twice, filler again, a question that
the key completes. k is the distance in tokens from the first digit of the key's first mention to the end of the prompt.
Depths are k = window / 32, 2 window / 32, …, window. A k that the header (at the far end) or the question (at the near end)
leaves no room for is moved to the nearest one that fits; the record holds the key's actual distance (`placed`). Filler is
cut at a token boundary to make the length exact, as the published code cuts it at a character.

**The verdict** is that of greedy decoding: all five digits exact. It is read off one forward pass (forced.py). The prompt
ends where the key's first digit is the next token: after the blank if the tokenizer gives the blank a token of its own (LLaMA),
before it if blank and digit are one token (GPT-2). The answer is the tokens that the tokenizer makes of the key: fewer than
five where a token holds several digits.

**k_max** is the largest k such that every k' <= k succeeds in at least 20 % of the trials; 0 if the nearest one fails
(Chen et al. 2023, arXiv 2306.15595, section 3.3, after Mohtashami & Jaggi 2023, arXiv 2305.16300). The paper leaves the matching
rule and the prompt's length open; the above is ropewalk's choice.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ropewalk import records
from ropewalk.data.encode import TokenIds, encode
from ropewalk.distributed import ranks
from ropewalk.errors import UserError
from ropewalk.evals.compile import faster
from ropewalk.evals.intervals import share_interval
from ropewalk.evals.likelihood import check_window, prompt_window
from ropewalk.evals.loaded import LoadedModel, fingerprint, open_model
from ropewalk.evals.perplexity.time_needed import OfWhat
from ropewalk.evals.reach import enough_trials, reach_interval
from ropewalk.evals.retrieval.forced import Prompt, passes_of, verdicts
from ropewalk.evals.time_needed import announce, reckoned
from ropewalk.evals.tokenize_parts import UNLIKE, after, common_length
from ropewalk.progress import Progress
from ropewalk.records import paper
from ropewalk.records.resume import recorded_rows
from ropewalk.records.retrieval import k_max
from ropewalk.sentences import counted
from ropewalk.settings.command import takes
from ropewalk.settings.measure import PasskeySettings

_logger = logging.getLogger(__name__)
# The wording is part of the protocol: Mohtashami & Jaggi 2023, arXiv 2305.16300, as used by Chen et al. 2023, figure 3.
HEADER = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. "
    "I will quiz you about the important information there."
)
FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
KEY_LINE = "The pass key is {key}. Remember it. {key} is the pass key."
QUESTION = "What is the pass key? The pass key is"


@dataclasses.dataclass(frozen=True)
class Protocol:
    """The passkey test as token ids, for one tokenizer and one window."""

    tokenizer: Any
    window: int

    @cached_property
    def header(self) -> TokenIds:
        return encode(self.tokenizer, HEADER + "\n")

    @cached_property
    def filler(self) -> TokenIds:
        """The filler repeated to at least a window's length."""
        repeats = self.window // len(after(self.tokenizer, "\n", FILLER)) + 2
        return after(self.tokenizer, "\n", " ".join([FILLER] * repeats))

    @cached_property
    def prefix(self) -> TokenIds:
        """Header and filler alone: each prompt has a prefix in common with it, up to where its key stands."""
        return np.concatenate([self.header, self.filler])[: self.window]

    def key_line(self, key: str) -> TokenIds:
        line = after(self.tokenizer, "\n", KEY_LINE.format(key=key) + "\n")
        return np.concatenate([self._newline, line])

    def answer(self, key: str) -> TokenIds:
        """The key's tokens after the question."""
        return self._question_and_key(key)[self._before_answer :]

    @cached_property
    def question(self) -> TokenIds:
        """The question up to the token before the key's first digit."""
        return np.concatenate([self._newline, self._question_and_key(UNLIKE[0])[: self._before_answer]])

    @property
    def ends_after_blank(self) -> bool:
        """Whether the prompt's last token is the blank before the key, rather than the key's first token including it."""
        return self._before_answer > len(after(self.tokenizer, "\n", QUESTION))

    @cached_property
    def _newline(self) -> TokenIds:
        return after(self.tokenizer, "a", "\n")

    def _question_and_key(self, key: str) -> TokenIds:
        return after(self.tokenizer, "\n", f"{QUESTION} {key}")

    @cached_property
    def _before_answer(self) -> int:
        return common_length([self._question_and_key(key) for key in UNLIKE])

    @cached_property
    def _before_key(self) -> int:
        return common_length([self.key_line(key) for key in UNLIKE])

    def prompt(self, key: str, k: int) -> tuple[Prompt, int]:
        """The prompt with `key` at distance k from its end or at the nearest that fits, and the key's actual distance.

        Raises:
            UserError: the window is too small for header, key line and question.
        """
        line = self.key_line(key)
        filler_tokens = self.window - len(self.header) - len(line) - len(self.question)
        if filler_tokens < 0:
            least = self.window - filler_tokens
            raise UserError(
                f"a passkey prompt of this tokenizer takes at least {least} tokens, and the window is {self.window}; "
                f"ask for a --window of {least} or more"
            )
        before = min(max(self.window - k - len(self.header) - self._before_key, 0), filler_tokens)
        parts = [self.header, self.filler[:before], line, self.filler[: filler_tokens - before], self.question]
        placed = self.window - len(self.header) - before - self._before_key
        return Prompt(np.concatenate(parts), self.answer(key)), placed


def depths_of(window: int, depths: int) -> list[int]:
    """Distances k, near to far, evenly spaced up to the window (the paper: 32)."""
    return [round(window * number / depths) for number in range(1, depths + 1)]


@takes(PasskeySettings)
def passkey(settings: PasskeySettings) -> tuple[records.Rows[records.Passkey], records.PasskeySummary]:
    """Measure passkey retrieval; the protocol heads this module.

    Returns:
        One row a depth, near to far, and the summary; the same on every rank.

    Raises:
        UserError: a window too small for the prompt or too large for the model; no depths or trials.
    """
    loaded = open_model(settings.model, tokenizer=settings.tokenizer, **settings.loading, **settings.opening)
    rows, summary = measure(loaded, settings)
    return records.Rows(rows), summary


def measure(loaded: LoadedModel, settings: PasskeySettings) -> tuple[list[records.Passkey], records.PasskeySummary]:
    """`passkey` of a model that is loaded already."""
    depths, trials, seed, out = settings.depths, settings.trials, settings.seed, settings.out
    window = settings.window or prompt_window(loaded.model, loaded.info.window)
    check_window(loaded.model, window)
    weights = fingerprint(loaded)
    asked = {"window": window, "depths": depths, "trials": trials, "weights": weights}
    asked |= {} if settings.budget is None else {"budget": settings.budget}  # as records without one have it
    run = ranks.same(loaded.run(seed=seed, **asked))
    recorded = recorded_rows(out, run, records.PasskeySummary)
    if recorded:
        return recorded_rows(out, run, records.Passkey)[-depths:], recorded[-1]
    started = time.perf_counter()
    rows = measure_depths(loaded, window, depths, trials, seed, settings.batch_tokens, minutes=settings.budget)
    if ranks.rank() == 0 and rows[0].trials < trials:
        _logger.warning(
            "passkey, window %d: %d of %d trials a depth were done within --budget %g; figures and intervals are of these",
            window, rows[0].trials, trials, settings.budget,
        )  # fmt: skip
    protocol = Protocol(loaded.tokenizer, window)
    summary = dataclasses.replace(
        summarise(rows, seconds=time.perf_counter() - started),
        after_blank=protocol.ends_after_blank,
        key_tokens=len(protocol.answer(UNLIKE[0])),
        extrapolation=loaded.extrapolates(window),
    )
    if ranks.rank() == 0:
        recorder = records.Recorder(out, run)
        for row in [*rows, summary]:
            recorder.add(row)
    return rows, summary


def measure_depths(
    loaded: LoadedModel,
    window: int,
    depths: int,
    trials: int,
    seed: int = 0,
    batch_tokens: int | None = None,
    *,
    minutes: float | None = None,
) -> list[records.Passkey]:
    """One row a depth, near to far; the same on every rank. minutes: where all trials take longer, each depth has as many as there is time for."""
    protocol = Protocol(loaded.tokenizer, window)
    keys = np.random.default_rng(seed).integers(10_000, 100_000, size=(depths, trials))
    distances = depths_of(window, depths)
    local = range(ranks.rank(), depths, ranks.size())
    placed_prompts = {at: [protocol.prompt(str(key), distances[at]) for key in keys[at]] for at in local}
    prompts = [prompt for at in local for prompt, _ in placed_prompts[at]]
    title, prefix = f"passkey, window {window}", protocol.prefix
    passes = passes_of(loaded.model, prompts, prefix)
    few = OfWhat(title, "fewer --depths, or a smaller --window", units="prompts")
    budget = None if minutes is None else _Budget(few, depths, trials, minutes)
    if budget is not None:
        seconds = ranks.same(reckoned(loaded.model, passes) / trials)
        budget.refuse_hopeless(seconds)
        few.tell_if_over(budget.fewest * seconds, budget.minutes, budget.fewest * depths)
    announce(
        title,
        loaded.model,
        counted(len(prompts), "prompt", ","),
        passes,
        "fewer --depths and --trials, or a smaller --window, take less",
    )
    right: dict[int, list[Any]] = {at: [] for at in local}
    with (
        Progress(title, len(prompts)) as advance,
        faster(loaded.model, passes=len(prompts) // 2, window=window),
    ):
        for asked in [slice(trials)] if budget is None else budget.rounds():
            batch = [prompt for at in local for prompt, _ in placed_prompts[at][asked]]
            judged = iter(verdicts(loaded.model, batch, prefix=prefix, batch_tokens=batch_tokens, advance=advance))
            for at in local:
                right[at] += [next(judged) for _ in placed_prompts[at][asked]]
    rows = {at: _row(window, distances[at], right[at], placed=placed_prompts[at][0][1]) for at in local}
    return [row for _, row in sorted(ranks.gathered(rows).items())]


def _row(window: int, k: int, right: Sequence[Any], *, placed: int) -> records.Passkey:
    """One depth's row. right: for each trial, which tokens of the answer were. placed: the key's actual distance, in tokens."""
    return records.Passkey(
        window=window,
        k=k,
        trials=len(right),
        successes=sum(bool(tokens.all()) for tokens in right),
        digits_right=sum(int(tokens.sum()) for tokens in right),
        placed=placed,
    )


@dataclass(frozen=True)
class _Budget:
    """Minutes for as many of the trials of each depth as they suffice for. few: what is said where they suffice for too few."""

    few: OfWhat
    depths: int
    trials: int
    minutes: float

    @property
    def fewest(self) -> int:
        """Trials of each depth: fewer may leave every k_max possible."""
        return min(enough_trials(self.depths), self.trials)

    def refuse_hopeless(self, seconds: float) -> None:
        """Raises UserError if the fewest trials take longer. seconds: of one trial of every depth, equal on every rank."""
        fewest, all_trials = (trials * self.depths for trials in (self.fewest, self.trials))
        self.few.refuse_hopeless(self.fewest * seconds, self.minutes, fewest, all_trials)

    def rounds(self) -> Iterator[slice]:
        """The trials of each depth that are asked at once: one after the other while there is time.

        Raises:
            UserError: the first shows that there is no time for the fewest.
        """
        started = time.perf_counter()
        for done in range(self.trials):
            yield slice(done, done + 1)
            seconds = ranks.same((time.perf_counter() - started) / (done + 1))
            if done == 0:
                self.refuse_hopeless(seconds)
            if done + 1 >= self.fewest and (done + 2) * seconds > 60 * self.minutes:
                return


def summarise(rows: Sequence[records.Passkey], seconds: float = 0.0) -> records.PasskeySummary:
    """k_max and its interval, and the accuracy over all prompts."""
    successes, trials = sum(row.successes for row in rows), sum(row.trials for row in rows)
    low, high = share_interval(successes, trials)
    near_to_far = sorted(rows, key=lambda row: row.k)
    columns = ([getattr(row, name) for row in near_to_far] for name in ("k", "successes", "trials"))
    k_low, k_high = reach_interval(*columns, threshold=paper.PASSKEY_THRESHOLD)
    reached = k_max([(row.k, row.successes / row.trials) for row in rows])
    return records.PasskeySummary(
        window=rows[0].window,
        k_max=reached,
        placed=next((row.placed for row in rows if row.k == reached), 0),
        depths=len(rows),
        trials=rows[0].trials,
        accuracy=successes / trials,
        seconds=seconds,
        low=low,
        high=high,
        k_low=k_low,
        k_high=k_high,
    )
