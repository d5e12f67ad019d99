"""What a conversation holds, and a text that is made of it has not.

in   a conversation, and what writes conversations: a chat template, say
out  pairs of what is missing and of whose: ("text", "tool turn"), ("reasoning_content", "assistant turn"), ("tools", "conversation"), once for each turn
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from ropewalk.data.conversations import Conversation

#: Names of the texts that a turn may have beside its own. An id of a call, which links two turns, says nothing.
_BESIDE = ("name", "reasoning_content", "thinking")
#: What is missing, and of whose.
Unwritten = tuple[str, str]


def unwritten(
    conversation: Conversation, write: Callable[[list[dict[str, Any]], list[Any] | None], str]
) -> list[Unwritten]:
    """Each text is given another, which none has, and some of these do not come up: so it is seen whatever is trimmed, escaped or read by chance."""
    renamed = _Renamed(conversation)
    try:
        text = write(renamed.messages, renamed.tools).lower()
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - it wrote the conversation as it was: what refuses other texts reads them
        return []
    missing = dict.fromkeys(place for name, place in renamed.places.items() if name not in text)
    return [(what, whose) for what, whose, _ in missing]


class _Renamed:
    """A conversation with names in the place of all that it says.

    Attributes:
        messages, tools: as `Conversation` has them.
        places: by name: what has it, whose that is, and the number of the turn.
    """

    def __init__(self, conversation: Conversation) -> None:
        self.places: dict[str, tuple[str, str, int]] = {}
        self.messages = [self._turn(number, turn) for number, turn in enumerate(conversation.messages)]
        tools = conversation.tools or ()
        self.tools = [self._function(tool, ("tools", "conversation", 0)) for tool in tools] or None

    def _turn(self, number: int, turn: dict[str, Any]) -> dict[str, Any]:
        whose = f"{turn['role']} turn"
        beside = {key: self._text(turn[key], (key, whose, number)) for key in _BESIDE if isinstance(turn.get(key), str)}
        renamed = {**turn, **beside, "content": self._content(turn["content"], whose, number)}
        if calls := turn.get("tool_calls"):
            listed = calls if isinstance(calls, list) else [calls]
            renamed["tool_calls"] = [self._function(call, ("tool_calls", whose, number)) for call in listed]
        return renamed

    def _content(self, content: str, whose: str, number: int) -> str:
        """Thoughts, which many templates leave out of some turns, and what is said after them."""
        head, ends, said = content.rpartition("</think>")
        before, begins, thoughts = head.rpartition("<think>")
        thoughts = self._text(thoughts, ("thoughts", whose, number))
        return before + begins + thoughts + ends + self._text(said, ("text", whose, number))

    def _text(self, text: str, place: tuple[str, str, int]) -> str:
        return self._name(place) if text.strip() else text

    def _function(self, item: Any, place: tuple[str, str, int]) -> Any:
        name = self._name(place)
        if not isinstance(item, dict):
            return name
        function = item.get("function")
        renamed = {**function, "name": name} if isinstance(function, dict) else None
        return {**item, "function": renamed} if renamed else {**item, "name": name}

    def _name(self, place: tuple[str, str, int]) -> str:
        self.places[name := f"f{uuid.uuid4().hex}"] = place
        return name
