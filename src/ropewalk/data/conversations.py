"""Conversations: rows of turns, in the spellings that published sets have.

in   a row of a file or a data set
out  `Conversation`: its messages as chat templates take them, `role` and `content`

    {"messages": [{"role": "user", "content": …}, …]}                      OpenAI, UltraChat; also under the other names of TURNS, and as JSON in a text
    {"conversations": [{"from": "human", "value": …}, …], "system": …}     ShareGPT
    {"instruction": …, "input": …, "output": …}                            Alpaca; also the other pairs of PAIRS
    {"document": …, "summary": …}                                          also the other pairs of SUMMARIES, asked for by the paper's prompt; texts, or lists of their lines
    {"prompt": [{"role": …}, …], "completion": [{"role": …}, …]}           both halves as messages
    {"data": ["a question", "its answer", …]}                              turns without names, the user's first
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ropewalk.data.rows import joined_lines, json_kind, line_ends
from ropewalk.errors import UserError

# The wording is part of the protocol: Chen et al. 2023, arXiv 2306.15595, section 3.5. Each part stands on its own line.
SUMMARY_HEAD = "Read the following article and then summarize it.\n"
SUMMARY_TAIL = "\nNow summarize the above article.\nSummary:\n"

TURNS = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat", "data")
#: What is asked, what it is asked of, and what is answered.
PAIRS = (
    ("instruction", "input", "output"),
    ("instruction", "context", "response"),
    ("instruction", "", "response"),
    ("prompt", "", "completion"),
    ("prompt", "", "response"),
    ("question", "context", "answer"),
    ("question", "", "answer"),
    ("question", "", "response"),
    ("query", "", "response"),
    ("input", "", "output"),
)
#: A document and its summary, as published sets call them.
SUMMARISED = ("document", "report", "article", "text", "content", "dialogue")
SUMMARIES = ("summary", "abstract", "highlights")
_ALL_PAIRS = (*PAIRS, *((document, "", summary) for document, summary in itertools.product(SUMMARISED, SUMMARIES)))
SYSTEMS = ("system", "system_prompt")
_ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bard", "bing", "model", "bot"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "observation", "function", "ipython", "function_response"), "tool"),
}
#: Columns that a conversation may be read from.
COLUMNS = tuple(
    dict.fromkeys([*TURNS, *(name for pair in _ALL_PAIRS for name in pair if name), *SYSTEMS, "history", "tools"])
)


#: Columns that belong to turns in another one.
BESIDE_TURNS = (*SYSTEMS, "tools")


@dataclass(frozen=True)
class Conversation:
    """Turns, and the name that messages and records call them by.

    Attributes:
        messages: each with `role` (system, user, assistant or tool) and `content`, and what else the row says of it.
        tools: descriptions of functions, for the templates that take them.
        place: the row that it was read from, `line 7 of chats.jsonl`; empty where it was read from none.
    """

    name: str
    messages: list[dict[str, Any]]
    tools: list[Any] | None = field(default=None)
    place: str = field(default="", compare=False)

    @property
    def text(self) -> str:
        """All that is said in it."""
        return "\n".join(str(message["content"]) for message in self.messages)


def is_conversation(row: Mapping[str, Any], named: str | None = None) -> bool:
    """Whether a row has the columns of one. named: the column that holds it."""
    if named is not None:
        return isinstance(row.get(named), list)
    return bool(columns_of(row))


def with_turns(row: Any) -> Any:
    """A row with its turns as a list, which files whose columns have one type hold as JSON of one."""
    if not isinstance(row, dict):
        return row
    texts = {name: row[name] for name in TURNS if isinstance(row.get(name), str) and row[name].lstrip().startswith("[")}
    parsed = {name: turns for name, text in texts.items() if (turns := _parsed(text)) is not None}
    return {**row, **parsed} if parsed else row


def _parsed(text: str) -> list[Any] | None:
    """The turns that a text is JSON of; None of any other text."""
    try:
        turns = json.loads(text)
    except (ValueError, RecursionError):
        return None
    has_roles = turns and all(isinstance(turn, dict) and turn.keys() & {"role", "from"} for turn in turns)
    return turns if has_roles else None


def columns_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns that a conversation in this row is read from; none where it holds none. A column that was not read counts by its name."""
    named = [name for name in TURNS if name in row and not isinstance(row[name], str) and not _is_summarised(row, name)]
    turns = next((name for name in named if row[name] is not None), None)
    if turns or (pair := _pair_in(row)) is None:
        return (turns,) if turns else tuple(named[:1])
    return tuple(name for name in pair if name in row)


def _is_summarised(row: Mapping[str, Any], name: str) -> bool:
    """Whether a list is of the lines of a text that stands beside its summary, and not of turns."""
    lines = row[name]
    has_summary = name in SUMMARISED and any(summary in row for summary in SUMMARIES)
    return has_summary and isinstance(lines, list) and all(isinstance(line, str) for line in lines)


def conversation_of(row: Mapping[str, Any], name: str, place: str, named: str | None = None) -> Conversation:
    """The conversation in a row for which `is_conversation`.

    Raises:
        UserError: a turn without a known role or without text; nothing that the assistant says.
    """
    try:
        messages = _messages(row, named)
        if not any(message["role"] == "assistant" and counts(message) for message in messages):
            raise _Wrong("nothing in it is the assistant's, or nothing that counts")
        return Conversation(name, messages, _tools(row), place)
    except _Wrong as error:
        raise UserError(f"{place} is no conversation that can be read ({error}); mend or drop it") from None


def counts(message: Mapping[str, Any]) -> bool:
    """Whether the loss looks at an answer: not if the row says that it has no weight."""
    return not any(message.get(key) == 0 for key in _COUNTS)


class _Wrong(ValueError):
    """What is wrong with a row."""


def _messages(row: Mapping[str, Any], named: str | None) -> list[dict[str, Any]]:
    own = (name for name in columns_of(row) if name in TURNS and not _is_summarised(row, name))
    turns = next(own, None) if named is None else named
    if turns is not None and (named or not isinstance(row[turns], str)):
        return _system(row) + _turns(row.get(turns))
    if (pair := _pair_in(row)) is None:
        raise _Wrong("it has no turns")
    asked, context, answered = pair
    halves = row[asked], row[answered]
    if all(isinstance(half, list) and any(isinstance(turn, dict) for turn in half) for half in halves):
        return _turns(halves[0] + halves[1])
    if answered in SUMMARIES:
        question = f"{SUMMARY_HEAD}{_said(joined_lines(row[asked]))}{SUMMARY_TAIL}"
        answer = joined_lines(row[answered])
    else:
        given = row.get(context) if context else None
        question = _said(row[asked]) + (f"\n\n{_said(given)}" if given not in (None, "") else "")
        answer = row[answered]
    return _system(row) + _history(row) + _alternating([question, _said(answer)])


def _pair_in(row: Mapping[str, Any]) -> tuple[str, str, str] | None:
    return next((pair for pair in _ALL_PAIRS if pair[0] in row and pair[2] in row), None)


def _system(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    texts = [row[name] for name in SYSTEMS if isinstance(row.get(name), str) and row[name].strip()]
    return [{"role": "system", "content": line_ends(text)} for text in texts[:1]]


def _tools(row: Mapping[str, Any]) -> list[Any] | None:
    """Descriptions of functions, as a list or, where columns have one type, as JSON of one."""
    tools = row.get("tools") or []
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except ValueError:
            raise _Wrong("its tools are text that is no JSON") from None
    if not isinstance(tools, list):
        raise _Wrong(f"its tools are {json_kind(tools)}, and a list is read")
    return tools or None


def _history(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Earlier turns as pairs of question and answer, beside an instruction."""
    history = row.get("history") or []
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise _Wrong("its history is no list of pairs")
    return _alternating([_said(text) for pair in history for text in pair])


def _turns(turns: Any) -> list[dict[str, Any]]:
    if not isinstance(turns, list) or not turns:
        raise _Wrong("it has no turns")
    if all(isinstance(turn, str) for turn in turns):
        return _alternating([_said(turn) for turn in turns])
    return [_turn(turn) for turn in turns]


def _alternating(texts: list[str]) -> list[dict[str, Any]]:
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]


def _turn(turn: Any) -> dict[str, Any]:
    if not isinstance(turn, dict):
        raise _Wrong(f"a turn is {json_kind(turn)}")
    spoken = next((turn[key] for key in ("role", "from") if turn.get(key) is not None), None)
    role = _ROLES.get(spoken.lower()) if isinstance(spoken, str) else None
    if spoken is None:
        raise _Wrong("a turn has no role")
    if role is None:
        raise _Wrong(f"a turn has the role {spoken!r}, which is none of {', '.join(_ROLES)}")
    content = next((turn[key] for key in ("content", "value", "text") if turn.get(key) is not None), None)
    if content is None and turn.get("tool_calls"):
        content = ""
    if wrong := [f"{key} {turn[key]}" for key in _COUNTS if turn.get(key) not in (None, 0, 1)]:
        raise _Wrong(f"a turn has {wrong[0]}, and it is scored or not: 1 or 0")
    kept = {key: value for key, value in turn.items() if key in _KEPT and value is not None}
    return {
        **kept,
        "role": role,
        "content": _said(content, empty=role != "assistant" or bool(kept.keys() - {*_COUNTS})),
    }


#: Whether an answer is trained on: OpenAI's word, and Axolotl's.
_COUNTS = ("weight", "train")
#: What else a turn may say, which templates read.
_KEPT = ("name", "tool_calls", "tool_call_id", "reasoning_content", "thinking", *_COUNTS)


#: What a turn says of itself that no template is given and nobody misses.
_ASIDE = ("role", "from", "content", "value", "text", "id", "turn", "index", "timestamp", "created_at")


def unread(row: Mapping[str, Any], named: str | None = None) -> set[str]:
    """Keys of a conversation's turns that hold something and are not read, `reasoning` or `audio`, say. named: the column of turns."""
    columns = [row.get(name) for name in ([named] if named else columns_of(row))]
    turns = [turn for column in columns if isinstance(column, list) for turn in column if isinstance(turn, dict)]
    return {key for turn in turns for key, value in turn.items() if value and key not in (*_KEPT, *_ASIDE)}


def _said(content: Any, *, empty: bool = False) -> str:
    """A turn's text; parts of text are joined."""
    if isinstance(content, list) and content and all(isinstance(part, dict) for part in content):
        if others := [part.get("type") for part in content if not isinstance(part.get("text"), str)]:
            raise _Wrong(f"a turn holds {others[0]!r}, and text alone is read")
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise _Wrong(f"a turn's text is {json_kind(content)}")
    if not content.strip() and not empty:
        raise _Wrong("a turn is empty")
    return line_ends(content)
