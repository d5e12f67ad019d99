"""A window that slides: what stands before the tokens it counts, and so what figures of two windows tell.

A window of W tokens that slides by S counts tokens with W - S to W - 1 others before them, fewer only where the document begins; at S = W one at
least, since the first token of a window has nothing before it and is not counted. If perplexity falls
from W to a longer window, context beyond W - S tokens is of use, whether or not that beyond W is: a model that ignores all but the last W - S
tokens has the same figure at both.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

#: The paper's stride, of windows of 2048 tokens and more (section 3.2), and which part of 2048 that is.
_PAPER, _PART = 256, 8


class Slide(NamedTuple):
    """A window, and the stride by which it slides, in tokens."""

    window: int
    stride: int

    @property
    def least(self) -> int:
        """How many tokens stand before each counted one at least, but where the document begins."""
        return max(1, self.window - self.stride)

    @property
    def is_coarse(self) -> bool:
        """Whether half of the window or less is sure to be seen: a longer one then has far more before each token, whatever the model makes of it."""
        return 2 * self.least <= self.window

    @property
    def finer(self) -> int:
        """A stride that tells, and still leaves few windows to read: a quarter, where the paper's is an eighth and less."""
        return max(1, self.window // 4)


def default_stride(windows: Iterable[int]) -> int:
    """An eighth of the shortest window, as in the paper's protocol, and at most the paper's 256 tokens."""
    return min(_PAPER, max(1, min(windows) // _PART))


def coarse_warning(slide: Slide) -> str:
    """What a user should know who asks for a stride that is coarse."""
    return (
        f"a stride should be less than half of the shortest context, which is {slide.window} tokens, got {slide.stride}: tokens are then counted with as few as "
        f"{slide.least} before them, and what a longer context is worth the figures do not tell; --stride {slide.finer} would"
    )
