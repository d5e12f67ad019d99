"""What a model is asked to write: `ropewalk chat`, `ropewalk generate`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ropewalk.errors import UserError
from ropewalk.settings import values
from ropewalk.settings.downstream import Decoding
from ropewalk.settings.options import AnyModel, Loading, OpeningOptions, PythonOnly, Tokenizer
from ropewalk.settings.values import Count, Seed, Share, Temperature


def _several(metavar: str) -> Any:
    """A word each time the option is named, so that it never swallows the MODEL after it."""
    return tyro.conf.arg(constructor=list[str], metavar=metavar, help_behavior_hint="(default: none)")


if TYPE_CHECKING:
    Hear, Words, Names = Callable[[str], object], str | Sequence[str], str | Path | Sequence[str | Path]
else:
    Hear = Annotated[Any, values.FUNCTION]
    Words, Names = Annotated[Any, values.WORDS], Annotated[Any, values.PATHS]
Questions = Annotated[Words | None, tyro.conf.UseAppendAction, _several("QUESTION")]
Texts = Annotated[Names | None, tyro.conf.UseAppendAction, _several("FILE")]


@dataclass(frozen=True, kw_only=True)
class Writing(Loading, OpeningOptions):
    """A model that writes."""

    model: AnyModel = field(kw_only=False)
    """`hemp`, a local directory or a hub id; in Python also a transformers model, then with its tokenizer."""
    tokenizer: Annotated[Tokenizer | None, PythonOnly] = None
    """Of a model that is given as an object."""
    hear: Annotated[Hear | None, PythonOnly] = None
    """Called with each piece of the text as it is written."""
    max_new_tokens: Count = 512
    """The most tokens of one answer."""
    temperature: Temperature = 0.0
    """0 takes the likeliest token, above it tokens are drawn."""
    top_p: Share = 0.95
    """Share of the likeliest tokens drawn from."""
    seed: Seed = 0
    """Of the draws."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.decoding  # noqa: B018  # refuses what is out of range

    @property
    def decoding(self) -> Decoding:
        """How the next token is chosen."""
        return Decoding(self.temperature, self.top_p, self.seed)


@dataclass(frozen=True, kw_only=True)
class ChatSettings(Writing):
    """Talk to a model: questions from the terminal, from a pipe (one a line) or from --question; the answers are streamed.

    The tokenizer's chat template is used if it has one; without one the model continues the text as it stands.
    """

    file: Texts = None
    """Text that is put in front of the first question; may be given several times."""
    question: Questions = None
    """Asked in place of the terminal's; may be given several times."""


@dataclass(frozen=True, kw_only=True)
class GenerateSettings(Writing):
    """Continue a text, without any chat template; what is written is streamed."""

    prompt: Texts = None
    """The file that is continued; /dev/stdin for a pipe."""
    text: str | None = None
    """The text itself, in place of a file."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.prompt is None) == (self.text is None):
            raise UserError(
                "generate continues either a file (--prompt FILE) or a text (--text TEXT); give one of them"
            )
