"""Sliding windows over a token sequence: what the model sees, and which of it counts.

in   a length, a window W and a stride S, in tokens
out  `SlidingWindow` triples (start, stop, first_scored) in order; the worked example is under `sliding`

A window is a length; where one lies in a document is a `SlidingWindow`.
"""

from __future__ import annotations

from typing import NamedTuple

from ropewalk.errors import UserError
from ropewalk.records.slide import default_stride


class SlidingWindow(NamedTuple):
    """One forward pass: the model sees tokens start .. stop - 1 and is scored on tokens first_scored .. stop - 1."""

    start: int
    stop: int
    first_scored: int

    @property
    def length(self) -> int:
        """Tokens seen."""
        return self.stop - self.start

    @property
    def scored(self) -> int:
        """Tokens scored."""
        return self.stop - self.first_scored


def check(window: int, stride: int) -> None:
    """Refuse a window and a stride that cannot be measured with.

    Raises:
        UserError: the window is below 2 tokens (one to see, one to predict), or the stride is not in 1 .. window.
    """
    if window < 2:
        raise UserError(f"a window needs at least 2 tokens, one to see and one to predict, got {window}")
    if not 1 <= stride <= window:
        raise UserError(
            f"the stride must lie between 1 and the window ({window} tokens), got {stride}: "
            f"{'0 never moves' if stride < 1 else 'a longer one leaves tokens unscored'}; ask for --stride "
            f"{default_stride([window])}, say"
        )


def sliding(length: int, window: int, stride: int, prefix: int = 1) -> list[SlidingWindow]:
    """The windows that score each token of a sequence once, except its very first (nothing comes before it) and what else the tokenizer put in front.

    The first window scores all it can. Each further one moves by `stride` and scores only its new tokens, so a token
    past the first window is predicted from at least window - stride tokens (Press et al. 2021, arXiv 2012.15840,
    section 2; Chen et al. 2023, arXiv 2306.15595, section 3.2). The last one moves by `stride` too and stops where the
    text stops: it is shorter, its tokens' context is not. At stride = window the windows are disjoint, and the first token
    of each has nothing before it in sight: it is not scored either.

    Eleven tokens, window 6, stride 2 (`.` seen, `#` seen and scored):

        token    0 1 2 3 4 5 6 7 8 9 10
        (0, 6, 1)    . # # # # #
        (2, 8, 6)        . . . . # #
        (4, 10, 8)           . . . . # #
        (6, 11, 10)              . . . . #

    Args:
        length: tokens in the sequence, BOS included if it has one.
        window: tokens the model sees at once, W.
        stride: tokens the window moves by, S; at most W.
        prefix: tokens in front of the text, which are seen and never scored; the first token is not in any case.

    Returns:
        Windows in order, each of which scores something. Empty for fewer than two tokens; a single shorter one where the sequence is below the window.

    Raises:
        UserError: see `check`.
    """
    check(window, stride)
    start, stop = 0, min(window, length)
    first_scored = max(1, prefix)
    windows = [SlidingWindow(0, stop, first_scored)] if first_scored < stop else []
    while stop < length:
        start, scored_to = start + stride, stop
        stop = min(start + window, length)
        first_scored = max(scored_to, start + 1, prefix)
        if first_scored < stop:
            windows.append(SlidingWindow(start, stop, first_scored))
    return windows
