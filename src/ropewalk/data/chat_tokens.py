"""Conversations as token ids: what of each is an answer, and where it may be cut.

in   conversations, a tokenizer with or without a chat template
out  token ids, and a mark for each: SCORED where the loss looks, MAY_CUT on the last token of an answer
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ropewalk.data.chat_template import Written, written, written_plainly
from ropewalk.data.conversations import Conversation
from ropewalk.data.encode import TokenIds, any_of, check_ids, control_tokens, on_all_cores, prefix_ids

SCORED, MAY_CUT = 1, 2
Marks = UInt8[np.ndarray, " _"]
#: A plane of Unicode that nothing is assigned in: a control token spelled by somebody goes through the template in its letters.
_PLANE = 0xF0000
#: Conversations that one process writes.
_TOGETHER = 64
#: Tokens and where they begin and end in a text, in characters.
_Placed = tuple[list[int], list[tuple[int, int]]]


def encode_conversations(
    tokenizer: Any, conversations: Sequence[Conversation], *, loss: str = "answers", control: bool = False
) -> list[tuple[TokenIds, Marks]]:
    """Token ids and marks of each.

    With a chat template, what that makes of it; without, the turns with an empty line between, what the tokenizer puts in front of a text
    before the first, EOS after each answer.

    Args:
        loss: "answers" scores what the assistant says and what ends its turn; "all" every token.
        control: as `encode` has it; otherwise a control token spelled in a turn is text, and ends nobody's turn.

    Raises:
        UserError: what `written` raises; a token that the model has no embedding for.
    """
    templated = bool(getattr(tokenizer, "chat_template", None))
    cover = _Cover([] if control else control_tokens(tokenizer))
    encoded: list[tuple[TokenIds, Marks]] = []
    unwritten: set[str] = set()
    for first in range(0, len(conversations), _TOGETHER):
        some = [cover.over(each) for each in conversations[first : first + _TOGETHER]]
        texts = written(tokenizer, some) if templated else list(map(written_plainly, some))
        unwritten.update(*(text.unwritten for text in texts))
        placed = _placed(tokenizer, texts, cover, control=templated or control)
        for text, (ids, places) in zip(texts, placed, strict=True):
            marks = _marks(np.array(places, dtype=np.int64).reshape(-1, 2), text, all_of_it=loss == "all")
            row = np.array(ids, dtype=np.int64)
            encoded.append((row, marks) if templated else _ended(tokenizer, row, marks))
    _say_unwritten(unwritten, templated=templated)
    for ids, _ in encoded:
        check_ids(tokenizer, ids)
    return encoded


def _say_unwritten(kinds: set[str], *, templated: bool) -> None:
    """Many templates know no `tool_calls`: a turn that holds nothing else is then an empty one."""
    of_whom = {"tool_calls": "turns", "tools": "conversations"}
    why = "the tokenizer's chat template writes nothing of them" if templated else "the tokenizer has no chat template"
    for kind in sorted(kinds):
        warnings.warn(f"the {kind} of some {of_whom[kind]} are left out, since {why}", stacklevel=3)


class _Cover:
    """Control tokens that somebody spelled, in other letters while the template looks at them; as long as they were."""

    def __init__(self, control: Sequence[str]) -> None:
        self._covered = {token: "".join(chr(_PLANE + ord(letter)) for letter in token) for token in control}
        self._shown = {covered: token for token, covered in self._covered.items()}
        self._spelled, self._hidden = any_of(self._covered), any_of(self._shown)

    def over(self, conversation: Conversation) -> Conversation:
        return Conversation(conversation.name, self._cover(conversation.messages), self._cover(conversation.tools))

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
