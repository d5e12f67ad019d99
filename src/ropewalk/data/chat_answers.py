"""A conversation as text, and where in it the assistant speaks.

in   a conversation; a tokenizer with a chat template, or none
out  `Written`: the text, the places of the answers, and what the text has not

Where a template marks each answer (`{% generation %}`), these are its author's words. Others are asked for the conversation and for its beginnings.
Where a beginning is one of the whole text, an answer lies between two of them; where it is none (earlier turns are written otherwise once others
follow, or the template takes no such beginning), the answer is searched.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

from ropewalk.data.conversations import Conversation, counts
from ropewalk.data.reading import HALF_PAIRS
from ropewalk.data.unwritten import Unwritten, unwritten

#: What an answer may hold beside its text.
_BESIDE = ("tool_calls", "reasoning_content", "thinking")
#: How a template's author marks what the assistant says, as transformers reads it.
_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
#: What no answer begins with.
_OTHER = "\ue000"


@dataclass(frozen=True)
class Written:
    """A conversation as text.

    Attributes:
        text: all of it.
        answers: where each answer begins and ends in it, in characters, with what ends the assistant's turn, and whether it counts.
        silent: how many answers hold nothing that is in the text; none of them counts.
        unwritten: what the conversation has and the text, in part at least, has not.
    """

    text: str
    answers: list[tuple[int, int, bool]]
    silent: int = 0
    unwritten: tuple[Unwritten, ...] = ()


def written_plainly(conversation: Conversation) -> Written:
    """A conversation for a model without a template: its turns with an empty line between, as `ropewalk chat` puts them to such a model."""
    text, answers, silent = "", list[tuple[int, int, bool]](), 0
    for message in conversation.messages:
        text += "\n\n" if text and not text.endswith("\n") else ""
        begins, text = len(text), text + message["content"]
        if message["role"] == "assistant":
            is_silent = not message["content"].strip()
            silent += is_silent
            answers.append((begins, len(text), counts(message) and not is_silent))
    missing = unwritten(conversation, lambda messages, tools: "\n\n".join(each["content"] for each in messages))
    return Written(HALF_PAIRS.sub("\ufffd", text), answers, silent, tuple(missing))


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
    return Written(text, answers, len(silent), tuple(unwritten(conversation, template.apply)))


class _NotFound(ValueError):
    """An answer is not found in a text."""

    def __init__(self) -> None:
        super().__init__("an answer is not found in what it makes of the conversation; --loss all needs none")


class _Template:
    """A chat template on one conversation.

    Attributes:
        whole: what it makes of all turns.
        answers: which turns are the assistant's.
        asks: whether it may write something where the assistant is to speak.
    """

    def __init__(self, tokenizer: Any, conversation: Conversation) -> None:
        self._tokenizer, self.messages, self._tools = tokenizer, conversation.messages, conversation.tools
        self.whole = self.apply(self.messages, self._tools)
        self.answers = [place for place, message in enumerate(self.messages) if message["role"] == "assistant"]
        self._source: str = tokenizer.get_chat_template(tools=self._tools)
        self.asks = "add_generation_prompt" in self._source

    def apply(self, messages: list[dict[str, Any]], tools: list[Any] | None, **options: Any) -> str:
        """What it makes of these turns. Raises Exception, whatever it wants."""
        return self._tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, **options)

    def marked(self) -> list[tuple[int, int]]:
        """What its author marks as the assistant's; empty where the answers are not marked one by one."""
        if not _MARK.search(self._source):
            return []
        from transformers.utils.chat_template_utils import render_jinja_template

        rendered: Any = render_jinja_template(  # annotated as a string, and a pair
            [self.messages],
            tools=self._tools,
            chat_template=self._source,
            return_assistant_tokens_mask=True,
            **self._tokenizer.special_tokens_map,
        )
        (text,), (marks,) = rendered
        return marks if text == self.whole and len(marks) == len(self.answers) else []

    def first(self, count: int, *, asks: bool = False) -> str | None:
        """What it makes of the first turns; None where it takes no such beginning: no turn at all, or the system's alone."""
        return self._tried(self.messages[:count], add_generation_prompt=asks)

    def begins(self, place: int) -> int | None:
        """Where an answer begins in the whole text: behind what asks for it or, in a template that never asks, behind its turn's header; None if unknown."""
        before = self.first(place, asks=self.asks)
        known = len(before) if before is not None and self.whole.startswith(before) else None
        if self.asks or (other := self._with(place, _OTHER)) is None:
            return known
        header = len(os.path.commonprefix([self.whole, other]))
        # A space alone is no header: the answer begins with it.
        return header if known is None or self.whole[known:header].strip() else known

    def is_silent(self, place: int) -> bool:
        """Whether an answer is written as an empty one: of what it holds beside its text, or of its thoughts, nothing is there."""
        return not _said(self.messages[place]) and self.whole == self._with(place, "")

    def _with(self, place: int, content: str) -> str | None:
        """What it makes of the turns where one has this text, and nothing beside it."""
        return self._tried([*self.messages[:place], self._saying(place, content), *self.messages[place + 1 :]])

    def _saying(self, place: int, content: str) -> dict[str, Any]:
        return {**{key: value for key, value in self.messages[place].items() if key not in _BESIDE}, "content": content}

    def span(self, place: int) -> tuple[int, int] | None:
        """What another text in an answer's place, and no calls beside it, would change in the whole; None where it would change later turns too."""
        other = self._with(place, _OTHER)
        if other is None or _OTHER not in other:
            return None
        begins = len(os.path.commonprefix([self.whole, other]))
        behind = len(os.path.commonprefix([self.whole[begins:][::-1], other[begins:][::-1]]))
        tail = other[: len(other) - behind].partition(_OTHER)[2]
        later = self.messages[place + 1]["content"].strip() if place + 1 < len(self.messages) else ""
        return None if later and later in tail else (begins, len(self.whole) - behind)

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
        after = self._tried([*self.messages[:place], self._saying(place, _OTHER)])
        if after is None and self.messages[-1]["role"] == "assistant":
            after = self._with(len(self.messages) - 1, _OTHER)
        if after is None or _OTHER not in after:
            raise _NotFound
        return after.rpartition(_OTHER)[2]

    def _tried(self, messages: list[dict[str, Any]], **options: Any) -> str | None:
        try:
            return self.apply(messages, self._tools, **options)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 - a program of somebody's; it takes the whole conversation
            return None


def _said(message: dict[str, Any]) -> str:
    """The text of an answer without its thoughts, which many templates drop."""
    return message["content"].rpartition("</think>")[2].strip()


def _answers(template: _Template, silent: set[int]) -> list[tuple[int, int, bool]]:
    """`Written.answers`; of the silent ones those whose place is known. Raises _NotFound."""
    if marks := template.marked():
        in_order = zip(template.answers, marks, strict=True)
        return [(*mark, counts(template.messages[place]) and place not in silent) for place, mark in in_order]
    answers, end = [], 0
    for place, message in enumerate(template.messages):
        if message["role"] != "assistant":
            content = message["content"].strip()
            end = max(end, template.whole.find(content, end) + len(content))
            continue
        known, after = template.begins(place), template.first(place + 1)
        if known is not None and after is not None and template.whole.startswith(after):
            begins, end = min(known, len(after)), len(after)
        elif place in silent:
            end = max(end, (template.span(place) or (0, 0))[1])  # behind its header
            continue
        else:
            begins, end = _searched(template, place, end, known)
        answers.append((begins, end, counts(message) and place not in silent))
    return answers


def _searched(template: _Template, place: int, start: int, known: int | None) -> tuple[int, int]:
    """Where an answer stands behind `start`, by what the template writes before and behind one. known: where it begins, if that is."""
    whole, answer, span = template.whole, _said(template.messages[place]), template.span(place)
    begins = _behind_header(template, place, start, span) if known is None else known
    answer_begins = whole.find(answer, begins)
    if answer_begins < 0 or not (answer or span):
        raise _NotFound
    end = max(answer_begins + len(answer), span[1] if span else 0)  # calls may follow what is said
    return begins, end + len(os.path.commonprefix([template.closing(place), whole[end:]]))


def _behind_header(template: _Template, place: int, start: int, span: tuple[int, int] | None) -> int:
    """Behind what asks for the answer or, where earlier turns are written without that (thoughts are asked for, and left out later), where its span begins."""
    opening = template.opening(place)
    opening_begins = template.whole.find(opening, start) if opening else -1
    behind_opening = opening_begins + len(opening)
    if opening_begins >= 0 and (span is None or behind_opening <= span[0]):
        return behind_opening
    if span is None:
        raise _NotFound
    return span[0]
