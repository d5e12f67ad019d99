"""A chat template is a program that came with a tokenizer: it is run in a process of its own, which may not run for ever nor fill the memory.

in   a tokenizer, conversations
out  the prompt as text; or whole conversations as text, and where in it the assistant speaks; or the sentence why there is none
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
import uuid
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ropewalk.data.conversations import Conversation, counts
from ropewalk.data.reading import HALF_PAIRS
from ropewalk.errors import UserError, reason

#: Far more than any template needs, and than a model reads: seconds, and seconds for each conversation; bytes of memory, bytes of text.
_SECONDS, _EACH, _MEMORY, _LONGEST = 10.0, 2.0, 1 << 30, 1 << 26
_TEXT, _FAULT = b"t", b"f"


@dataclass(frozen=True)
class Written:
    """A conversation as text.

    Attributes:
        text: all of it.
        answers: where each answer begins and ends in it, in characters, with what ends the assistant's turn, and whether it counts.
        unwritten: which of `tool_calls` and `tools` the conversation has and the text, in part at least, has not.
    """

    text: str
    answers: list[tuple[int, int, bool]]
    unwritten: tuple[str, ...] = ()


def prompt_of(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    """What the template makes of a conversation that the assistant is to go on with.

    Raises:
        UserError: the template raises, does not end, takes too much memory, or makes no text.
    """
    return _asked(
        lambda: tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False),
        "mend it, or give the question as it should stand to `ropewalk generate`",
    )


def written(tokenizer: Any, conversations: Sequence[Conversation]) -> list[Written]:
    """What the template makes of whole conversations; all of them in one process.

    Raises:
        UserError: as `prompt_of`; an answer cannot be told from the rest.
    """

    def render() -> str:
        each = [(*_written(tokenizer, one), _unwritten(tokenizer, one)) for one in conversations]
        return json.dumps(each, ensure_ascii=False)

    way_out = "mend it, or take what it refuses out of the data"
    return [
        Written(HALF_PAIRS.sub("\ufffd", text), [(a, b, c) for a, b, c in spans], tuple(unwritten))
        for text, spans, unwritten in json.loads(_asked(render, way_out, len(conversations)))
    ]


def written_plainly(conversation: Conversation) -> Written:
    """A conversation for a model without a template: its turns with an empty line between, as `ropewalk chat` puts them to such a model."""
    text, answers = "", []
    for message in conversation.messages:
        text += "\n\n" if text and not text.endswith("\n") else ""
        begins, text = len(text), text + message["content"]
        if message["role"] == "assistant":
            answers.append((begins, len(text), counts(message)))
    has_calls = any(message.get("tool_calls") for message in conversation.messages)
    unwritten = [kind for kind, has in (("tool_calls", has_calls), ("tools", conversation.tools)) if has]
    return Written(HALF_PAIRS.sub("\ufffd", text), answers, tuple(unwritten))


def _written(tokenizer: Any, conversation: Conversation) -> tuple[str, list[tuple[int, int, bool]]]:
    messages, tools = conversation.messages, conversation.tools

    def made(count: int, *, asks: bool = False) -> str:
        return tokenizer.apply_chat_template(messages[:count], tools=tools, add_generation_prompt=asks, tokenize=False)

    whole, spans, end = made(len(messages)), [], 0
    for place, message in enumerate(messages):
        content = message["content"].strip()
        if message["role"] != "assistant":
            end = max(end, whole.find(content, end) + len(content))
            continue
        before, after = made(place, asks=True), made(place + 1)
        if whole.startswith(before) and whole.startswith(after) and after.startswith(before):
            begins, end = len(before), len(after)
        else:
            begins, end = _searched(whole, end, before.removeprefix(made(place)), content, after, conversation.name)
        spans.append((begins, end, counts(message)))
    return whole, spans


def _unwritten(tokenizer: Any, conversation: Conversation) -> list[str]:
    """Of `tool_calls` and `tools` those that the template leaves out: each is given a name that no text has, and some name does not come up."""
    names: dict[str, list[str]] = {"tool_calls": [], "tools": []}

    def renamed(kind: str, item: Any) -> Any:
        names[kind].append(name := f"f{uuid.uuid4().hex}")
        if not isinstance(item, dict):
            return name
        function = item.get("function")
        return (
            {**item, "function": {**function, "name": name}} if isinstance(function, dict) else {**item, "name": name}
        )

    def with_calls_renamed(message: dict[str, Any]) -> dict[str, Any]:
        calls = message.get("tool_calls")
        if not calls:
            return message
        listed = calls if isinstance(calls, list) else [calls]
        return {**message, "tool_calls": [renamed("tool_calls", call) for call in listed]}

    messages = [with_calls_renamed(message) for message in conversation.messages]
    tools = [renamed("tools", tool) for tool in conversation.tools or ()] or None
    if not any(names.values()):
        return []
    try:
        text = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)
    except Exception:  # noqa: BLE001 - it wrote the conversation as it was: what refuses other names reads them
        return []
    return [kind for kind, some in names.items() if not all(name in text for name in some)]


def _searched(whole: str, start: int, opening: str, content: str, after: str, name: str) -> tuple[int, int]:
    """Where an answer stands in a conversation whose template writes a turn in another way once others follow (it drops its thoughts)."""
    answer = content.rpartition("</think>")[2].strip()
    opened = whole.find(opening, start)
    begins = opened + len(opening)
    answer_begins = whole.find(answer, begins)
    if not opening or opened < 0 or answer_begins < 0 or not answer:
        raise ValueError(
            f"an answer of {name} is not found in what it makes of the conversation; --loss all needs none"
        )
    closing, end = after.rpartition(answer)[2], answer_begins + len(answer)
    return begins, end + len(os.path.commonprefix([closing, whole[end:]]))


def _asked(render: Callable[[], str], way_out: str, count: int = 0) -> str:
    seconds = _SECONDS + _EACH * count
    kind, text = _apart(render, seconds) if hasattr(os, "fork") else _rendered(render)
    if kind != _TEXT:
        why = (
            text.decode() or f"it takes more than {seconds:.0f} s, {_MEMORY >> 30} GiB or {_LONGEST >> 20} MiB of text"
        )
        raise UserError(f"the tokenizer's chat template cannot be used ({why}); {way_out}")
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
