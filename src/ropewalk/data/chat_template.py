"""A chat template is a program that came with a tokenizer: it is run in a process of its own, which may not run for ever nor fill the memory.

in   a tokenizer, conversations
out  the prompt as text; or whole conversations as text (chat_answers.py); or the sentence why there is none
"""

from __future__ import annotations

import dataclasses
import json
import os
import select
import signal
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from ropewalk.data.chat_answers import Written, rendered
from ropewalk.data.conversations import Conversation
from ropewalk.data.reading import HALF_PAIRS
from ropewalk.errors import UserError, reason

#: Far more than any template needs, and than a model reads: seconds, and seconds for each conversation; bytes of memory, bytes of text.
_SECONDS, _EACH, _MEMORY, _LONGEST = 10.0, 2.0, 1 << 30, 1 << 26
_TEXT, _FAULT = b"t", b"f"


def prompt_of(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    """What the template makes of a conversation that the assistant is to go on with.

    Raises:
        UserError: the template raises, does not end, takes too much memory, or makes no text.
    """
    return _asked(
        lambda: tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False),
        "mend it, or give the question as it should stand to `ropewalk generate`",
    )


def written(tokenizer: Any, conversations: Sequence[Conversation], *, search: bool = True) -> list[Written | UserError]:
    """What the template makes of whole conversations, in one process; of one that it raises for, the sentence that names its row.

    search: as `rendered` has it.

    Raises:
        UserError: the template does not end, takes too much memory, or makes no text; the row is named.
    """

    def render() -> str:
        return json.dumps([_tried(tokenizer, one, search) for one in conversations], ensure_ascii=False)

    whose = f" for {conversations[0].place or conversations[0].name}"
    try:
        made = json.loads(_asked(render, "mend it, or take that row out of the data", whose, len(conversations)))
    except UserError:
        if len(conversations) == 1:
            raise
        return [one for each in conversations for one in written(tokenizer, [each], search=search)]
    return [_told(one, each) for one, each in zip(made, conversations, strict=True)]


def _tried(tokenizer: Any, conversation: Conversation, search: bool) -> dict[str, Any] | str:
    """A `Written` as JSON has it, or why there is none."""
    try:
        return dataclasses.asdict(rendered(tokenizer, conversation, search=search))
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - a program of somebody's, which may raise anything
        return HALF_PAIRS.sub("\ufffd", reason(error))


def _told(made: dict[str, Any] | str, conversation: Conversation) -> Written | UserError:
    if isinstance(made, str):
        place = conversation.place or conversation.name
        return UserError(f"{place} cannot be used with the tokenizer's chat template ({made}); mend or drop it")
    answers = [(begins, ends, counts) for begins, ends, counts in made["answers"]]
    return Written(made["text"], answers, made["silent"], tuple((what, whose) for what, whose in made["unwritten"]))


def _asked(render: Callable[[], str], way_out: str, whose: str = "", count: int = 0) -> str:
    seconds = _SECONDS + _EACH * count
    kind, text = _apart(render, seconds) if hasattr(os, "fork") else _rendered(render)
    if kind != _TEXT:
        why = (
            text.decode() or f"it takes more than {seconds:.0f} s, {_MEMORY >> 30} GiB or {_LONGEST >> 20} MiB of text"
        )
        raise UserError(f"the tokenizer's chat template cannot be used{whose} ({why}); {way_out}")
    return text.decode("utf-8", "surrogatepass")


def _rendered(render: Callable[[], str]) -> tuple[bytes, bytes]:
    try:
        return _TEXT, render().encode("utf-8", "surrogatepass")
    except MemoryError:
        return _FAULT, b""
    except Exception as error:  # noqa: BLE001 - a program of somebody's, which may raise anything
        return _FAULT, reason(error).encode("utf-8", "backslashreplace")


def _apart(render: Callable[[], str], seconds: float) -> tuple[bytes, bytes]:
    """`_rendered` in a process forked from this one, which has the tokenizer and ends with its answer, or is ended."""
    answer, written = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: the child runs jinja alone
        child = os.fork()
    if not child:
        try:
            os.close(answer)
            _limit_memory()
            with os.fdopen(written, "wb") as pipe:
                for part in _rendered(render):
                    pipe.write(part)
        finally:
            os._exit(0)
    os.close(written)
    try:
        message = _read(answer, time.monotonic() + seconds)
    finally:
        os.close(answer)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return message[:1], message[1:]


def _read(pipe: int, until: float) -> bytes:
    """All of it; empty if it does not end in time, or is too long."""
    message = bytearray()
    while len(message) <= _LONGEST and select.select([pipe], [], [], max(0.0, until - time.monotonic()))[0]:
        if not (piece := os.read(pipe, 1 << 20)):
            return bytes(message)
        message += piece
    return b""


def _limit_memory() -> None:
    import resource
    from pathlib import Path

    try:
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:  # no Linux: its time is limited alone
        return
    resource.setrlimit(resource.RLIMIT_AS, (now + _MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
