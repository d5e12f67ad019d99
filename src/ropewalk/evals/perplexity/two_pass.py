"""The same tokens read twice: with the whole context and with a short one.

in   a model, windows of documents (`SlidingWindow`s that score tokens), and the two contexts
out  per window, the negative log-likelihood of each scored token under either context, in nats

Context gain and LongPPL (context_gain.py) are made of these. The whole context is that of perplexity's sliding window (measure.py). The
short one slides as well: a pass of `short` tokens scores its last `stride`, so that a token has between short - stride and short - 1
tokens before it, wherever it stands: what is gained is gained by context beyond short - stride tokens. Tokens before place `short` of a document would be read alike both times, and are not scored.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from ropewalk.data.encode import TokenIds
from ropewalk.data.sliding import SlidingWindow, sliding
from ropewalk.errors import UserError
from ropewalk.evals.likelihood import Pass, negative_log_likelihoods
from ropewalk.records.slide import default_stride

Nats = Float[np.ndarray, " scored"]


class Twice(NamedTuple):
    """What the scored tokens of one window cost, in nats each: in the whole context, and in the short one."""

    whole: Nats
    short: Nats

    @property
    def key(self) -> Bool[np.ndarray, " scored"]:
        """Which are key tokens, by LongPPL's rule (Fang et al. 2024, arXiv 2410.23771, eq. 7, alpha 2 and beta -2 as published).

        The long-short difference log p(whole) - log p(short) is above alpha, and log p(whole) above beta.
        """
        return (self.short - self.whole > 2) & (-self.whole > -2)


@dataclass(frozen=True)
class Contexts:
    """What a token is predicted from, in tokens.

    Attributes:
        window: the whole context.
        short: the short one.
        stride: by which both slide.
    """

    window: int
    short: int
    stride: int

    def __post_init__(self) -> None:
        if not 1 <= self.stride < self.short < self.window:
            raise UserError(
                "the stride must be shorter than the short context, and that shorter than the window, got "
                f"{self.stride}, {self.short} and {self.window} tokens; ask for another --stride, --short or --window"
            )

    @property
    def ranges(self) -> Int[np.ndarray, " ranges"]:
        """Where ranges of places in a document begin: short, 2 short, 4 short, … and the window, from where on the whole context slides."""
        doublings = [self.short << power for power in range(32) if self.short << power < self.window]
        return np.array([*doublings, self.window])

    def windows(self, length: int, prefix: int = 1) -> list[SlidingWindow]:
        """Perplexity's windows of a document that fills the first, scoring only what has more than the short context; prefix as in `sliding`."""
        return sliding(length, self.window, self.stride, max(self.short, prefix))

    def short_windows(self, place: SlidingWindow) -> list[SlidingWindow]:
        """The passes that score the same tokens in the short context."""
        return [
            SlidingWindow(start + self.stride - self.short, min(start + self.stride, place.stop), start)
            for start in range(place.first_scored, place.stop, self.stride)
        ]

    def passes(self, places: Sequence[SlidingWindow]) -> list[SlidingWindow]:
        """Every pass over these windows, in the whole context and in the short one."""
        return [each for place in places for each in (place, *self.short_windows(place))]

    def tokens_read(self, places: Sequence[SlidingWindow]) -> int:
        """By the passes over these windows, both times."""
        return sum(each.length for each in self.passes(places))

    def times_perplexity(self, lengths: Sequence[int]) -> float:
        """How many times the tokens that perplexity at the window alone reads of documents of these lengths, at its default stride."""
        ours = sum(self.tokens_read(self.windows(length)) for length in lengths)
        stride = default_stride([self.window])
        return ours / sum(place.length for length in lengths for place in sliding(length, self.window, stride))


def read_twice(
    model: Any,
    places: Sequence[tuple[TokenIds, SlidingWindow]],
    contexts: Contexts,
    batch_tokens: int | None = None,
) -> Iterator[Twice]:
    """Score windows in order, each given with the token ids of its document.

    model: a transformers causal language model.
    batch_tokens: tokens of one forward pass.
    """
    shorter = [[(ids, short) for short in contexts.short_windows(place)] for ids, place in places]
    whole = negative_log_likelihoods(model, list(itertools.starmap(_pass, places)), batch_tokens=batch_tokens)
    short_passes = [_pass(*each) for each in itertools.chain(*shorter)]
    short = negative_log_likelihoods(model, short_passes, batch_tokens=batch_tokens)
    for nll, passes in zip(whole, shorter, strict=True):
        yield Twice(nll, np.concatenate(list(itertools.islice(short, len(passes)))))


def _pass(ids: TokenIds, place: SlidingWindow) -> Pass:
    return Pass(ids[place.start : place.stop], place.scored)
