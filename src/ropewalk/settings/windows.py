"""What a user may say of a model's windows, for every command that opens one.

in   `--current-window`, `--original-window`; a window that is too short for what is asked
out  `WindowOptions`, whose `answers` go to `Checkpoint.open`; a question whether a k is missing
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from ropewalk.settings.command import Settings
from ropewalk.settings.values import Tokens

#: How many times shorter than the model's own a window is, from where on its k was more likely forgotten.
_FAR = 64


def perhaps_thousands(asked: int, least: int) -> str:
    """Of a window below the `least` tokens, whether so many thousands (x 1024) were meant: nothing where these would be too few as well, or the number is itself as large as of thousands."""
    return f" (did you mean {asked}k?)" if 0 < asked < min(least, 1024) and least < 1024 * asked else ""


def forgotten_k(option: str, asked: int, own: int) -> str:
    """The same of a window that is allowed, and far shorter than the model's own; nothing of any other."""
    question = perhaps_thousands(asked, own) if _FAR * asked <= own else ""
    return question and f"{option} {asked} is {asked} tokens, and the model reads {own}{question}"


class WindowAnswers(TypedDict, total=False):
    """Tokens; None where nothing was said."""

    current_window: int | None
    original_window: int | None


@dataclass(frozen=True, kw_only=True)
class WindowOptions(Settings):
    """A model whose config leaves its windows open: which of them max_position_embeddings is, tools do not agree."""

    current_window: Tokens | None = None
    """Tokens that the model reads now, if its config leaves that open."""
    original_window: Tokens | None = None
    """Tokens that it was pretrained at, if its config leaves that open."""

    @property
    def answers(self) -> WindowAnswers:
        """Both, by the names that `Checkpoint.open` has for them."""
        return WindowAnswers(current_window=self.current_window, original_window=self.original_window)
