"""Conversations as token ids: what of each is an answer, and where it may be cut.

in   conversations, a tokenizer with or without a chat template
out  token ids, and a mark for each: SCORED where the loss looks, MAY_CUT on the last token of an answer
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ropewalk.data.chat_answers import Written, written_plainly
from ropewalk.data.chat_template import written
from ropewalk.data.conversations import Conversation
from ropewalk.data.encode import TokenIds, any_of, check_ids, control_tokens, on_all_cores, prefix_ids
from ropewalk.data.rows import refusal_of
from ropewalk.data.unwritten import Unwritten
from ropewalk.errors import UserError
from ropewalk.sentences import counted

SCORED, MAY_CUT = 1, 2
Marks = UInt8[np.ndarray, " _"]
#: A plane of Unicode that nothing is assigned in: a control token spelled by somebody goes through the template in its letters.
_PLANE = 0xF0000
#: Conversations that one process writes.
_TOGETHER = 64
#: Texts that are looked at after a refused one, for others.
_LOOKED_AT = 10**5
#: Tokens and where they begin and end in a text, in characters.
_Placed = tuple[list[int], list[tuple[int, int]]]


class Refused(UserError):
    """A template cannot be used for rows: those of the first file of which there are any, in one sentence.

    Attributes:
        rows: where each of them is, and the sentence that says why.
    """

    def __init__(self, rows: Sequence[tuple[str, UserError]]) -> None:
        file = _file_of(rows[0][0])
        self.rows = [row for row in rows if _file_of(row[0]) == file]
        (place, first), *others = self.rows
        super().__init__(
            str(refusal_of(first, (error for _, error in others), file if place.startswith("line ") else ""))
        )


def _file_of(place: str) -> str:
    return place.partition(" of ")[2]


@dataclass
class Gaps:
    """What conversations hold and their tokens do not, counted over many of them.

    Attributes:
        unwritten: of how many turns what is missing, and silent: as `Written` has them.
        mute: conversations in which no answer is scored.
    """

    unwritten: collections.Counter[Unwritten] = field(default_factory=collections.Counter)
    silent: int = 0
    mute: int = 0

    def add(self, text: Written) -> None:
        self.unwritten.update(text.unwritten)
        self.silent += text.silent
        self.mute += not any(is_scored for _, _, is_scored in text.answers)

    def tell(self, tokenizer: Any, loss: str) -> None:
        """Warn of them."""
        missing = [
            f"the {what} of {counted(count, whose, ',')}" for (what, whose), count in sorted(self.unwritten.items())
        ]
        if missing:
            why = (
                "tokenizer's chat template does not write them"
                if _has_template(tokenizer)
                else "tokenizer has no chat template"
            )
            warnings.warn(f"left out, since the {why}: {', '.join(missing)}", stacklevel=3)
        others = f"; conversations without another, left out: {self.mute:,}" * bool(self.mute)
        if self.silent and loss == "answers":
            warnings.warn(
                f"answers that hold nothing but what is left out are not scored: {self.silent:,}{others}",
                stacklevel=3,
            )


def encode_conversations(
    tokenizer: Any,
    conversations: Sequence[Conversation],
    *,
    loss: str = "answers",
    control: bool = False,
    gaps: Gaps | None = None,
) -> list[tuple[TokenIds, Marks]]:
    """Token ids and marks of each.

    With a chat template, what that makes of it; without, the turns with an empty line between, what the tokenizer puts in front of a text
    before the first, EOS after each answer.

    Args:
        loss: "answers" scores what the assistant says and what ends its turn; "all" every token.
        control: as `encode` has it; otherwise a control token spelled in a turn is text, and ends nobody's turn.
        gaps: where what is left out is counted, to be told by the caller; without, it is told here.

    Raises:
        Refused: conversations that the template cannot be used for.
        UserError: what `written` raises; a token that the model has no embedding for.
    """
    templated, missing = _has_template(tokenizer), Gaps() if gaps is None else gaps
    cover = _Cover([] if control else control_tokens(tokenizer))
    encoded: list[tuple[TokenIds, Marks]] = []
    refused: list[tuple[str, UserError]] = []
    for some in _some(conversations):
        made = _made(tokenizer, some, cover, loss)
        refused += _refused(some, made)
        texts = [] if refused else [text for text in made if isinstance(text, Written)]
        placed = _placed(tokenizer, texts, cover, control=templated or control)
        for text, (ids, places) in zip(texts, placed, strict=True):
            missing.add(text)
            marks = _marks(np.array(places, dtype=np.int64).reshape(-1, 2), text, all_of_it=loss == "all")
            row = np.array(ids, dtype=np.int64)
            encoded.append((row, marks) if templated else _ended(tokenizer, row, marks))
    if refused:
        raise Refused(refused)
    if gaps is None:
        missing.tell(tokenizer, loss)
    for ids, _ in encoded:
        check_ids(tokenizer, ids)
    return encoded


@contextlib.contextmanager
def refusing_all(tokenizer: Any, others: Iterator[Any], *, loss: str) -> Iterator[None]:
    """What is refused in this block is told together with what is refused of the texts that come after it, the next ones of a stream."""
    try:
        yield
    except Refused as first:
        rows, cover = first.rows, _Cover(control_tokens(tokenizer))
        talks = (each for each in itertools.islice(others, _LOOKED_AT) if isinstance(each, Conversation))
        for some in _some(talks):
            rows += _refused(some, _made(tokenizer, some, cover, loss))
        raise Refused(rows) from None


def _some(conversations: Iterable[Conversation]) -> Iterator[list[Conversation]]:
    each = iter(conversations)
    while some := list(itertools.islice(each, _TOGETHER)):
        yield some


def _has_template(tokenizer: Any) -> bool:
    return bool(getattr(tokenizer, "chat_template", None))


def _made(tokenizer: Any, some: list[Conversation], cover: _Cover, loss: str) -> Sequence[Written | UserError]:
    covered = [cover.over(each) for each in some]
    if not _has_template(tokenizer):
        return list(map(written_plainly, covered))
    return written(tokenizer, covered, search=loss == "answers")


def _refused(some: list[Conversation], made: Sequence[Written | UserError]) -> list[tuple[str, UserError]]:
    return [(talk.place, text) for talk, text in zip(some, made, strict=True) if isinstance(text, UserError)]


class _Cover:
    """Control tokens that somebody spelled, in other letters while the template looks at them; as long as they were."""

    def __init__(self, control: Sequence[str]) -> None:
        self._covered = {token: "".join(chr(_PLANE + ord(letter)) for letter in token) for token in control}
        self._shown = {covered: token for token, covered in self._covered.items()}
        self._spelled, self._hidden = any_of(self._covered), any_of(self._shown)

    def over(self, conversation: Conversation) -> Conversation:
        messages, tools = self._cover(conversation.messages), self._cover(conversation.tools)
        return replace(conversation, messages=messages, tools=tools)

    def _cover(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._spelled.sub(lambda found: self._covered[found[0]], value)
        if isinstance(value, list):
            return [self._cover(each) for each in value]
        return {key: self._cover(each) for key, each in value.items()} if isinstance(value, dict) else value

    def lies_on(self, text: str) -> bool:
        return self._hidden.search(text) is not None

    def off(self, text: str) -> str:
        return self._hidden.sub(lambda found: self._shown[found[0]], text)


def _placed(tokenizer: Any, texts: Sequence[Written], cover: _Cover, *, control: bool) -> Iterator[_Placed]:
    """The tokens of each text and their places; control: those that the template wrote are live."""
    whole = [tokenizer.is_fast and not cover.lies_on(text.text) for text in texts]
    at_once = [text.text for text, is_whole in zip(texts, whole, strict=True) if is_whole]
    with on_all_cores():
        ready = iter(_with_offsets(tokenizer, at_once, control=control) if at_once else [])
    for text, is_whole in zip(texts, whole, strict=True):
        yield next(ready) if is_whole else _piece_by_piece(tokenizer, text, cover, control=control)


def _with_offsets(tokenizer: Any, texts: list[str], *, control: bool) -> list[_Placed]:
    encoded = tokenizer(
        texts, add_special_tokens=False, split_special_tokens=not control, return_offsets_mapping=True, verbose=False
    )
    return list(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True))


def _piece_by_piece(tokenizer: Any, text: Written, cover: _Cover, *, control: bool) -> _Placed:
    """For a tokenizer that cannot say where its tokens stand, or a text in which not every control token is one."""
    live = any_of(control_tokens(tokenizer) if control else [])
    borders = {0, len(text.text), *(border for begins, ends, _ in text.answers for border in (begins, ends))}
    borders |= {border for found in live.finditer(text.text) for border in found.span()}
    ids: list[int] = []
    places: list[tuple[int, int]] = []
    ordered = sorted(borders)
    for begins, ends in zip(ordered, ordered[1:], strict=False):
        piece = text.text[begins:ends]
        if live.fullmatch(piece):
            some, within = [tokenizer.convert_tokens_to_ids(piece)], [(0, len(piece))]
        elif tokenizer.is_fast:
            ((some, within),) = _with_offsets(tokenizer, [cover.off(piece)], control=False)
        else:
            some = tokenizer(cover.off(piece), add_special_tokens=False, split_special_tokens=True)["input_ids"]
            within = [(0, len(piece))] * len(some)
        ids += some
        places += [(begins + a, begins + b) for a, b in within]
    return ids, places


def _marks(places: Any, text: Written, *, all_of_it: bool) -> Marks:
    """Of tokens at `places`, (tokens, 2)."""
    marks = np.full(len(places), SCORED if all_of_it else 0, dtype=np.uint8)
    for begins, ends, is_scored in text.answers:
        (inside,) = np.nonzero((places[:, 1] > begins) & (places[:, 0] < ends))
        marks[inside] |= SCORED * is_scored
        marks[inside[-1:]] |= MAY_CUT
    return marks


def _ended(tokenizer: Any, ids: TokenIds, marks: Marks) -> tuple[TokenIds, Marks]:
    """With what the tokenizer puts in front of a text, and EOS after each answer, which is its end, scored as it is."""
    if tokenizer.eos_token_id is not None:
        (ends,) = np.nonzero(marks & MAY_CUT)
        ids = np.insert(ids, ends + 1, tokenizer.eos_token_id)
        marks = np.insert(marks & ~np.uint8(MAY_CUT), ends + 1, marks[ends])
    head = prefix_ids(tokenizer)
    first = np.full(len(head), marks[0] & SCORED if len(marks) else 0, dtype=np.uint8)
    return np.concatenate([np.array(head, dtype=np.int64), ids]), np.concatenate([first, marks]).astype(np.uint8)
