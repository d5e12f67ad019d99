"""What a user may say of a model's windows, for every command that opens one.

in   `--current-window`, `--original-window`
out  `WindowOptions`, whose `answers` go to `Checkpoint.open`
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from ropewalk.settings.command import Settings
from ropewalk.settings.values import Tokens


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
