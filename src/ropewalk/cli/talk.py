"""Commands that let a person talk to a model: chat, generate. Words go to stdout as they are written, everything else to stderr."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Iterator
from typing import Any

from ropewalk.settings.chat import ChatSettings, GenerateSettings
from ropewalk.settings.command import arguments

_logger = logging.getLogger(__name__)


def chat(options: Any) -> None:
    from ropewalk.evals.conversation import Conversation

    settings = ChatSettings(**arguments(ChatSettings, options))
    conversation = Conversation.about(settings)
    at_terminal = not settings.question and sys.stdin.isatty()
    for question in settings.question or (_typed() if at_terminal else _piped()):
        note = ""
        # An interrupted answer is over, the conversation is not; at the prompt Ctrl-C and Ctrl-D end it.
        with contextlib.suppress(*[KeyboardInterrupt] if at_terminal else []):
            note = conversation.ask(question, _print).note
        print(flush=True)
        _remark(note)


def generate(options: Any) -> None:
    from ropewalk.evals.conversation import generate

    reply = generate(**arguments(GenerateSettings, options) | {"hear": _print})
    print(flush=True)
    _remark(reply.note)


def _remark(note: str) -> None:
    """What is to be said of an answer, once its line has ended."""
    if note:
        _logger.info(note)


def _print(piece: str) -> None:
    print(piece, end="", flush=True)


def _typed() -> Iterator[str]:
    """What a person types, a line a question, until Ctrl-D."""
    with contextlib.suppress(ImportError):  # where there is none, lines are typed without an editor
        import readline  # noqa: F401
    prompt = "> " if sys.stdout.isatty() else ""
    while True:
        try:
            if question := input(prompt).strip():
                yield question
        except EOFError:
            print()
            return


def _piped() -> Iterator[str]:
    """The lines of stdin that are not empty; bytes that are not UTF-8 are replaced."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    return (line.strip() for line in sys.stdin if line.strip())
