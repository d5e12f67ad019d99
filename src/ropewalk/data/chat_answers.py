"""A conversation as text, and where in it the assistant speaks.

in   a conversation; a tokenizer with a chat template, or none
out  `Written`: the text, the places of the answers, and what the text has not

A template is asked for the conversation and for its beginnings. Where a beginning is one of the whole text, an answer lies between two of them;
where it is none (earlier turns are written otherwise once others follow, or the template takes no such beginning), the answer is searched.
"""

from __future__ import annotations

import functools
import os
import uuid
from dataclasses import dataclass
from typing import Any

from ropewalk.data.conversations import Conversation, counts
from ropewalk.data.reading import HALF_PAIRS

#: What an answer may hold beside its text.
_BESIDE = ("tool_calls", "reasoning_content", "thinking")


@dataclass(frozen=True)
class Written:
    """A conversation as text.

    Attributes:
        text: all of it.
        answers: where each answer begins and ends in it, in characters, with what ends the assistant's turn, and whether it counts.
        silent: how many answers hold nothing that is in the text; none of them counts.
        unwritten: which of `tool_calls` and `tools` the conversation has and the text, in part at least, has not.
    """

    text: str
    answers: list[tuple[int, int, bool]]
    silent: int = 0
    unwritten: tuple[str, ...] = ()


def written_plainly(conversation: Conversation) -> Written:
    """A conversation for a model without a template: its turns with an empty line between, as `ropewalk chat` puts them to such a model."""
    text, answers, silent = "", [], 0
    for message in conversation.messages:
        text += "\n\n" if text and not text.endswith("\n") else ""
        begins, text = len(text), text + message["content"]
        if message["role"] == "assistant":
            is_silent = not message["content"].strip()
            silent += is_silent
            answers.append((begins, len(text), counts(message) and not is_silent))
    has_calls = any(message.get("tool_calls") for message in conversation.messages)
    unwritten = [kind for kind, has in (("tool_calls", has_calls), ("tools", conversation.tools)) if has]
    return Written(HALF_PAIRS.sub("\ufffd", text), answers, silent, tuple(unwritten))


def rendered(tokenizer: Any, conversation: Conversation, *, search: bool) -> Written:
    """What the tokenizer's chat template makes of a conversation.

    search: every answer is needed; otherwise a conversation in which one is not found is one piece, which is scored and cut as a whole.

    Raises:
        ValueError: an answer that is needed is not found.
        Exception: what the template raises.
    """
    template = _Template(tokenizer, conversation)
    silent = {place for place in template.answers if template.is_silent(place)}
    try:
        answers = _answers(template, silent)
    except _NotFound:
        if search:
            raise
        answers = [(0, len(template.whole), True)]
    text = HALF_PAIRS.sub("\ufffd", template.whole)
    return Written(text, answers, len(silent), tuple(_unwritten(tokenizer, conversation)))


class _NotFound(ValueError):
    """An answer is not found in a text."""

    def __init__(self) -> None:
        super().__init__("an answer is not found in what it makes of the conversation; --loss all needs none")


class _Template:
    """A chat template on one conversation.

    Attributes:
        whole: what it makes of all turns.
        answers: which turns are the assistant's.
    """

    def __init__(self, tokenizer: Any, conversation: Conversation) -> None:
        self._apply = functools.partial(tokenizer.apply_chat_template, tools=conversation.tools, tokenize=False)
        self.messages = conversation.messages
        self.whole: str = self._apply(self.messages)
        self.answers = [place for place, message in enumerate(self.messages) if message["role"] == "assistant"]

    def first(self, count: int, *, asks: bool = False) -> str | None:
        """What it makes of the first turns; None where it takes no such beginning: no turn at all, or the system's alone."""
        return self._tried(self.messages[:count], add_generation_prompt=asks)

    def is_silent(self, place: int) -> bool:
        """Whether an answer is written as an empty one: of what it holds beside its text, or of its thoughts, nothing is there."""
        message = self.messages[place]
        if _said(message):
            return False
        empty = {**{key: value for key, value in message.items() if key not in _BESIDE}, "content": ""}
        return self.whole == self._tried([*self.messages[:place], empty, *self.messages[place + 1 :]])

    def opening(self, place: int) -> str:
        """What it writes where the assistant is to speak: at this turn or, where it takes no such beginning, at another; empty for nothing."""
        for count in dict.fromkeys((place, place + 1, *range(1, len(self.messages) + 1))):
            before, asked = self.first(count), self.first(count, asks=True)
            if before is not None and asked is not None and asked.startswith(before) and asked != before:
                return asked.removeprefix(before)
        return ""

    def closing(self, place: int) -> str:
        """What it writes behind an answer that no turn follows: this one or, where it takes no such beginning, the last.

        Raises:
            _NotFound: the conversation does not end with an answer either.
        """
        after = self.first(place + 1)
        if after is None:
            if self.messages[-1]["role"] != "assistant" or not _said(self.messages[-1]):
                raise _NotFound
            place, after = -1, self.whole
        return after.rpartition(_said(self.messages[place]))[2]

    def _tried(self, messages: list[dict[str, Any]], **options: Any) -> str | None:
        try:
            return self._apply(messages, **options)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - a program of somebody's; it takes the whole conversation
            return None


def _said(message: dict[str, Any]) -> str:
    """The text of an answer without its thoughts, which many templates drop."""
    return message["content"].rpartition("</think>")[2].strip()


def _answers(template: _Template, silent: set[int]) -> list[tuple[int, int, bool]]:
    """`Written.answers`; of the silent ones those whose place is known. Raises _NotFound."""
    answers, end = [], 0
    for place, message in enumerate(template.messages):
        if message["role"] != "assistant":
            content = message["content"].strip()
            end = max(end, template.whole.find(content, end) + len(content))
            continue
        before, after = template.first(place, asks=True), template.first(place + 1)
        if before is not None and after is not None and after.startswith(before) and template.whole.startswith(after):
            begins, end = len(before), len(after)
        elif place in silent:
            continue
        else:
            begins, end = _searched(template, place, end)
        answers.append((begins, end, counts(message) and place not in silent))
    return answers


def _searched(template: _Template, place: int, start: int) -> tuple[int, int]:
    """Where an answer stands behind `start`, by what the template writes before and behind one."""
    whole, answer, opening = template.whole, _said(template.messages[place]), template.opening(place)
    opened = whole.find(opening, start)
    begins = opened + len(opening)
    answer_begins = whole.find(answer, begins)
    if not opening or opened < 0 or answer_begins < 0 or not answer:
        raise _NotFound
    end = answer_begins + len(answer)
    return begins, end + len(os.path.commonprefix([template.closing(place), whole[end:]]))


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
