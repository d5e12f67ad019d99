"""Rows of preferences, none of whose answers may be taken as it stands: told by the names of their columns, and by what stands there.

in   a row of a file or a data set
out  `Preferences`: what makes it one, and the jq filter that makes of such rows what is read; None for any other row

    {"prompt": …, "chosen": …, "rejected": …}                             two answers, whatever their names are part of; `_WORDS`
    {"messages": …, "rejected": …}                                        the disliked answer alone, beside the liked one
    {"prompt": …, "completion": …, "label": false}                        an answer that was liked or not; `_VERDICTS`
    {"prompt": …, "response_0": …, "response_1": …, "better_id": 0}       answers that were compared
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ropewalk.data.conversations import PAIRS, SYSTEMS, TURNS, columns_of


@dataclass(frozen=True)
class Preferences:
    """What makes a row one of preferences. liked: the jq filter that makes a row of the liked answer; empty where none is known."""

    what: str
    liked: str = ""


#: Disliked → liked, as parts of the names of two columns. The longer ones come first: "preferred" is a part of "non_preferred".
_WORDS = {
    "rejected": ("chosen", "accepted", "selected", "preferred"),
    "dispreferred": ("preferred",),
    "non_preferred": ("preferred",),
    "nonpreferred": ("preferred",),
    "unpreferred": ("preferred",),
    "disliked": ("liked",),
    "loser": ("winner",),
    "losing": ("winning",),
    "lose": ("win",),
    "response_k": ("response_j",),
}
_DISLIKED = re.compile(rf"(?<![a-z])(?i:({'|'.join(_WORDS)}))(?![a-z])")
#: What else such a name says where no answer stands under it: `rejected_by`, `rejectedAt`.
_ASIDE = re.compile(r"(?<![a-z])(?i:at|by|on|for|is|was|why|reasons?|dates?|time|models?|ids?|sources?|scores?|ratings?|status|flag|comments?)(?![a-z])")  # fmt: skip
#: What a status says that stands under such a name as text (CSV has nothing else).
_STATUS = ("", "true", "false", "yes", "no", "0", "1", "none", "null", "n/a")
#: Whether one answer was liked, as true or false or as one of these words; under "rejected" the other way round.
_VERDICTS = ("label", "score", "chosen", "accepted", "preferred", "liked", "rejected")
_JUDGED = ("true", "false", "good", "bad", "liked", "disliked", "chosen", "accepted", "rejected", "desirable", "undesirable")  # fmt: skip
#: Several answers: in one column, or in columns that are numbered, beside one that says which is better.
_LISTS = ("responses", "completions", "answers", "outputs", "candidates")
_NUMBERED = re.compile(r"((?:.*_)?(?:answer|response|output|completion|summary|assistant|ref))_?([ab012])", re.IGNORECASE)  # fmt: skip
_COMPARED = re.compile("better|best|prefer|winner|chosen|label|scor|rank|rating|choice", re.IGNORECASE)


def tells_of_preferences(column: str) -> bool:
    """Whether a column's name may make a row one of preferences, so that what stands there is looked at."""
    return column in _VERDICTS or _word_in(column) is not None


def _word_in(column: str) -> re.Match[str] | None:
    """Where a column's name says that the answer under it is the disliked one."""
    return None if _ASIDE.search(column) else _DISLIKED.search(column)


def preferences_in(row: Mapping[str, Any], texts: Collection[str]) -> Preferences | None:
    """What makes a row one of preferences; None for any other row. texts: names of columns that are read as a text."""
    columns, has_text = columns_of(row), any(name in row for name in texts)
    alone = not columns and not has_text  # then a short text, "no", is no status but an answer
    disliked = [name for name in map(str, row) if _is_answer(row[name], short=alone) and _word_in(name)]
    if pair := next(((liked, name) for name in disliked if (liked := _liked(row, name, short=alone))), None):
        return _two(*pair, _with_answer(row, pair[0]))
    disliked = [name for name in disliked if row[name] is not None]
    beside = columns or tuple(name for name in texts if name in row)
    if disliked and beside:
        names = ", ".join(f'."{name}"' for name in disliked)
        return _two(beside[-1], disliked[0], f"del({names})")
    if "completion" in row or (columns and not has_text):
        return _judged(row, columns)
    return None if columns or has_text else _compared(row)


def _two(liked: str, disliked: str, by_jq: str) -> Preferences:
    return Preferences(f"two answers, of which one was preferred ({liked}, {disliked})", by_jq)


def _is_answer(value: Any, *, short: bool = False) -> bool:
    """Whether a column holds an answer, or was not read. short: also one that may be a status."""
    if isinstance(value, str):
        return short or value.strip().lower() not in _STATUS
    return value is None or (isinstance(value, list | dict) and bool(value))


def _liked(row: Mapping[str, Any], disliked: str, *, short: bool) -> str | None:
    """The column of the liked answer, whose name differs in the word alone."""
    if (found := _word_in(disliked)) is None:
        return None
    before, after = disliked[: found.start(1)], disliked[found.end(1) :]
    names = [f"{before}{word}{after}".lower() for word in _WORDS[found[1].lower()]]
    return next((name for name in map(str, row) if name.lower() in names and _is_answer(row[name], short=short)), None)


def _judged(row: Mapping[str, Any], columns: tuple[str, ...]) -> Preferences | None:
    """An answer that was liked or not."""
    for name in (name for name in _VERDICTS if name in row and name not in columns):
        if isinstance(row[name], bool) or str(row[name]).lower() in _JUDGED:
            of, test = columns[-1] if columns else "completion", f".{name} | not" if name == "rejected" else f".{name}"
            by_jq = f"select({test}) | del(.{name})" if isinstance(row[name], bool) else ""
            return Preferences(f"an answer that was liked or not ({of}, {name})", by_jq)
    return None


def _compared(row: Mapping[str, Any]) -> Preferences | None:
    """Answers of which another column says which is better, or each how good it is."""
    by = [name for name in map(str, row) if _COMPARED.search(name)]
    for name in (name for name in _LISTS if isinstance(row.get(name), list) and len(row[name]) > 1):
        scored = all(isinstance(each, dict) and any(map(_COMPARED.search, each)) for each in row[name])
        if scored or by:
            return Preferences(f"answers of which some were preferred ({', '.join([name, *by])})")
    numbered = [(found[1], name) for name in map(str, row) if (found := _NUMBERED.fullmatch(name))]
    alike = [name for stem, name in numbered if sum(stem == other for other, _ in numbered) > 1]
    if alike and (by := [name for name in by if name not in alike]):
        return Preferences(f"answers of which one was preferred ({', '.join([*alike, *by])})")
    return None


def _with_answer(row: Mapping[str, Any], liked: str) -> str:
    """The jq filter that makes of a row one of the liked answer and of what it answers."""
    answer, told = row[liked], f'."{liked}"'
    systems = "".join(f"{name}, " for name in SYSTEMS if name in row)
    if isinstance(answer, list) and not _is_assistants(answer[:1]):
        return f"{{{systems}messages: {told}}}"
    reply = {str: f'[{{role: "assistant", content: {told}}}]', dict: f"[{told}]"}.get(type(answer), told)
    if turns := next((name for name in TURNS if isinstance(row.get(name), list) and name != liked), None):
        before = f".{turns}[:-1]" if _is_assistants(row[turns][-1:]) else f".{turns}"
        return f"{{{systems}messages: ({before} + {reply})}}"
    asking = [pair for pair in PAIRS if pair[0] in row and (not pair[1] or pair[1] in row)]
    if not asking:
        return f"{{messages: {reply}}}" if not isinstance(answer, str) else f"{{text: {told}}}"
    asked, context, answered = asking[0]
    if type(row[asked]) is type(answer):
        kept = "".join(f"{name}, " for name in ("history", asked, context) if name and name in row)
        return f"{{{systems}{kept}{answered}: {told}}}"
    before = f".{asked}" if isinstance(row[asked], list) else f'[{{role: "user", content: .{asked}}}]'
    before = f".{asked}.messages" if isinstance(row[asked], dict) else before
    return f"{{{systems}messages: ({before} + {reply})}}"


def _is_assistants(turns: list[Any]) -> bool:
    """Whether these turns, one or none, are of the assistant."""
    return any(
        isinstance(turn, dict) and (turn.get("role") or turn.get("from")) in ("assistant", "gpt") for turn in turns
    )
