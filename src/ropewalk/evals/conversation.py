"""Talking to a model: what was made, tried by a person; plain transformers.

in   a model, a text to read first, questions
out  answers, streamed as they are written; keys and values of what was read stay in memory from one question to the next
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.data.chat_template import prompt_of
from ropewalk.data.documents import read_documents
from ropewalk.data.encode import TokenIds, encode
from ropewalk.errors import UserError, told
from ropewalk.evals.answering import Heard, Memory
from ropewalk.evals.likelihood import check_window, position_limit
from ropewalk.evals.loaded import LoadedModel, open_model
from ropewalk.evals.tokenize_parts import after
from ropewalk.settings.chat import ChatSettings, GenerateSettings, Writing
from ropewalk.settings.command import takes
from ropewalk.settings.downstream import Decoding
from ropewalk.settings.inputs import refuse_missing_files

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reply:
    """What a model wrote.

    Attributes:
        text: without the token that ended it.
        prompt_tokens: what it had read by then, all earlier questions and answers included.
        new_tokens: of the text.
        window: tokens that the model is meant for; what is read or written past it is extrapolation.
        finished: the model itself ended the text.
        note: what a reader of the text should know of its end; empty where nothing is to be said.
    """

    text: str
    prompt_tokens: int
    new_tokens: int
    window: int
    finished: bool
    note: str = ""


@takes(ChatSettings)
def chat(settings: ChatSettings) -> list[Reply]:
    """Ask a model questions, each with all before it in view.

    Returns:
        The replies, in order.

    Raises:
        UserError: no question, or a prompt that the model cannot read.
    """
    questions = [settings.question] if isinstance(settings.question, str) else settings.question
    if not questions:
        raise UserError("chat answers questions, but there is none; give question=…")
    conversation = Conversation.about(settings)
    return [conversation.ask(question, settings.hear) for question in questions]


@takes(GenerateSettings)
def generate(settings: GenerateSettings) -> Reply:
    """Continue a text as it stands.

    Returns:
        What the model wrote after it.

    Raises:
        UserError: no text, or one that the model cannot read.
    """
    text = _read(settings.prompt, "prompt") if settings.text is None else settings.text
    return Conversation(*_opened(settings)).go_on(text, settings.hear)


@dataclass(eq=False)
class Conversation:
    """A model and what was said so far.

    Attributes:
        loaded: the model, its tokenizer, its window.
        new_tokens: the most of one answer.
        decoding: how tokens are chosen.
        first: what is read in front of the first question.
    """

    loaded: LoadedModel
    new_tokens: int
    decoding: Decoding
    first: str = ""
    _messages: list[dict[str, str]] = field(default_factory=list)
    _ids: TokenIds = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    _memory: Memory = field(default_factory=Memory)

    @classmethod
    def about(cls, settings: ChatSettings) -> Conversation:
        """A conversation that begins with the files of `settings`.

        Raises:
            UserError: a file that is not there or is no text; what `open_model` raises.
        """
        first = _read(settings.file, "file") + "\n\n" if settings.file else ""
        conversation = cls(*_opened(settings), first)
        if not conversation.has_template:
            _logger.info(
                "the tokenizer of %s has no chat template: the model continues the text as it stands",
                conversation.loaded.info.name,
            )
        return conversation

    @property
    def has_template(self) -> bool:
        """Whether the tokenizer says how a question is put to the model."""
        return bool(getattr(self.loaded.tokenizer, "chat_template", None))

    def ask(self, question: str, hear: Callable[[str], object] | None = None) -> Reply:
        """Put a question and hear the answer. If the user interrupts it, what was written by then counts as the answer.

        Args:
            question: in the user's words.
            hear: called with each piece of the answer as it is written.

        Raises:
            UserError: the chat template refuses the conversation; too long for a table of positions; NaN.
        """
        if not self.has_template:
            return self.go_on(f"\n\n{question}" if len(self._ids) else self.first + question, hear)
        first = "" if self._messages else self.first
        self._messages.append({"role": "user", "content": first + question})
        heard = Heard(self.loaded.tokenizer, hear)
        try:
            return self._reply(self._from_template(), heard)
        finally:
            self._messages.append({"role": "assistant", "content": heard.text})

    def go_on(self, text: str, hear: Callable[[str], object] | None = None) -> Reply:
        """Continue what was said so far and a text after it, as they stand; the arguments are those of `ask`."""
        tokenizer = self.loaded.tokenizer
        heard = Heard(tokenizer, hear)
        try:
            # The user's own words, control tokens among them.
            ids = after(tokenizer, "a", text, control=True) if len(self._ids) else encode(tokenizer, text, control=True)
        except (UnicodeEncodeError, TypeError):
            raise UserError(f"a prompt is text that UTF-8 can write, got {text[:40]!r}; mend it") from None
        ids = np.concatenate([self._ids, ids])
        try:
            return self._reply(ids, heard)
        finally:
            self._ids = np.concatenate([ids, np.asarray(heard.ids, dtype=np.int64)])

    def _from_template(self) -> TokenIds:
        text = prompt_of(self.loaded.tokenizer, self._messages)
        with told(
            "what the chat template makes of the question is no text that the tokenizer takes",
            "mend the template",
            Exception,
        ):
            # It writes the special tokens itself.
            ids = self.loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
        return np.asarray(ids, dtype=np.int64)

    def _reply(self, ids: TokenIds, heard: Heard) -> Reply:
        model, window = self.loaded.model, self.loaded.info.window
        if not len(ids):
            raise UserError("a model continues at least one token, but the prompt is empty; give it some text")
        room = self._room(len(ids))
        written = self._memory.write(
            model, ids, heard, new_tokens=room, decoding=self.decoding, ends=_ends(self.loaded.tokenizer, model)
        )
        heard.end()
        heard.ids = heard.ids[: len(written.ids)]  # without the token that ended it
        new = len(written.ids)
        notes = []
        if len(ids) <= window < len(ids) + new:
            notes.append(f"the text is {len(ids) + new} tokens by now, past the model's window of {window}")
        if not written.finished:
            end = "--max-new-tokens asks for more" if room == self.new_tokens else "its table of positions ends here"
            notes.append(f"cut after {new} tokens; {end}")
        return Reply(heard.text, len(ids), new, window, written.finished, "\n".join(notes))

    def _room(self, prompt: int) -> int:
        """How many tokens may be written after so many; says how the prompt fits the window.

        Raises:
            UserError: a table of positions is too short for it.
        """
        window = self.loaded.info.window
        if prompt > window:
            _logger.warning(
                "the prompt has %d tokens, more than the model's window of %d: extrapolation", prompt, window
            )
        else:
            _logger.info("the prompt has %d tokens of the model's window of %d", prompt, window)
        check_window(self.loaded.model, prompt + 1)
        table = position_limit(self.loaded.model)
        return self.new_tokens if table is None else min(self.new_tokens, table - prompt)


def _opened(settings: Writing) -> tuple[LoadedModel, int, Decoding]:
    loaded = open_model(
        settings.model, tokenizer=settings.tokenizer, dtype=settings.dtype, device=settings.device, **settings.opening
    )
    return loaded, settings.max_new_tokens, settings.decoding


def _read(files: Any, option: str) -> str:
    """The text of files that lie here, as it stands."""
    listed = [files] if isinstance(files, str | Path) else list(files)
    refuse_missing_files(option, listed)
    for path in listed:
        if Path(path).is_dir():
            raise UserError(f"--{option} names a file, but {path} is a directory; name one that lies in it")
    return "\n\n".join(_text(path) for path in listed)


def _text(path: Any) -> str:
    """Of a file, or of the pipe that this process reads from."""
    if str(path) == "/dev/stdin":
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(encoding="utf-8", errors="strict")
        with told("a prompt is UTF-8 text, and what standard input brings is none", "convert it"):
            text = sys.stdin.read()
        if not text:
            raise UserError("a prompt is UTF-8 text, and standard input brings nothing; give it some text")
        return text
    return "\n\n".join(document.text for document in read_documents(path))


def _ends(tokenizer: Any, model: Any) -> list[int]:
    """Every token that ends a text or a turn: the tokenizer's, the config's, and the generation config's."""
    holders = (
        tokenizer,
        model.config.get_text_config(),
        model.generation_config,
    )  # Qwen3-VL's text config has no such key
    named = [getattr(holder, "eos_token_id", None) for holder in holders]
    listed = (entry if isinstance(entry, list | tuple) else [entry] for entry in named if entry is not None)
    with told("eos_token_id of a config or generation config is a token or several", "mend it, or fetch it again"):
        return sorted({int(token) for entry in listed for token in entry})
