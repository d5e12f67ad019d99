"""Facts in a haystack: RULER's eight (Hsieh et al. 2024, arXiv 2404.06654, section 3.1), a look-up among pairs, one's own needle.

in   a source, a random generator, a length in tokens
out  an item

The wording of RULER's is part of its protocol (NVIDIA/RULER, scripts/data/synthetic); the key-value look-up is that of Liu et al. 2023 ("Lost in
the middle", arXiv 2307.03172).
"""

from __future__ import annotations

import dataclasses
import random
from typing import Literal

from ropewalk.data.encode import TokenIds
from ropewalk.evals.long_context import words
from ropewalk.evals.long_context.items import Frame, Item, whole
from ropewalk.evals.long_context.source import Source

_NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
_MANY = (
    "Some special magic {values} are hidden within the following text. Make sure to memorize it. "
    "I will quiz you about the {values} afterwards.\n",
    "What are all the special magic {values} for {query} mentioned in the provided text? "
    "The special magic {values} for {query} mentioned in the provided text are",
)
_ONE = (
    "A special magic {values} is hidden within the following text. Make sure to memorize it. "
    "I will quiz you about the {values} afterwards.\n",
    "What is the special magic {values} for {query} mentioned in the provided text? "
    "The special magic {values} for {query} mentioned in the provided text is",
)
_FACT = "One of the special magic {values} for {key} is: {value}."
#: Tokens that a response may have more than the answers to one's own needle.
_SPARE = 48
_DRAW = {"words": words.pair, "numbers": words.number, "uuids": words.key}
#: Places of facts among essays, as shares of them.
_DEPTHS = [round(100 * step / 39) / 100 for step in range(40)]


@dataclasses.dataclass(frozen=True)
class Needles:
    """RULER's needles in a haystack.

    Attributes:
        haystack: one sentence over and over, the user's documents, or facts of the same form.
        key, value: what a fact is about, and what it says.
        keys: how many are hidden.
        values: of each key.
        asked: how many of the keys are asked for.
    """

    haystack: Literal["noise", "essays", "needles"]
    key: Literal["words", "uuids"] = "words"
    value: Literal["numbers", "uuids"] = "numbers"
    keys: int = 1
    values: int = 1
    asked: int = 1
    room: int = 128

    def __call__(self, source: Source, drawn: random.Random, tokens: int) -> Item:
        hidden = [
            (_DRAW[self.key](drawn), [_DRAW[self.value](drawn) for _ in range(self.values)])
            for _ in range(max(self.keys, self.asked))
        ]
        facts = [self._fact(key, value) for key, values in hidden for value in values]
        drawn.shuffle(facts)
        queried = drawn.sample(hidden, self.asked)
        single = self.asked * self.values == 1
        head, tail = _ONE if single else _MANY
        named = {"values": self.value[:-1] if single else self.value, "query": _listed([key for key, _ in queried])}
        in_lines = self.haystack != "essays"
        frame = Frame(
            source.head(head.format(**named)),
            source.part("\n" + tail.format(**named)),
            tokens,
            self.room,
        )
        shares = [drawn.random() for _ in facts] if in_lines else drawn.sample(_DEPTHS, len(facts))
        parts = source.parts([f"{fact}\n" if in_lines else f" {fact}" for fact in facts])
        taken = {key for key, _ in hidden}

        def filling(left: int) -> list[TokenIds]:
            return self._filling(source, drawn, left, taken)

        if self.haystack == "needles":
            ids = frame.hide_in_list(source, parts, shares, filling)
        elif self.haystack == "essays":
            ids = frame.hide_in_documents(source, parts, shares)
        else:
            ids = frame.hide(parts, shares, filling)
        answers = tuple(value for _, values in queried for value in values)
        return Item(ids, answers, self.room, f" {answers[0]}" if single else "")

    def _fact(self, key: str, value: str) -> str:
        return _FACT.format(values=self.value, key=key, value=value)

    def _filling(self, source: Source, drawn: random.Random, tokens: int, taken: set[str]) -> list[TokenIds]:
        if self.haystack == "noise":
            return noise(source, tokens)

        def other() -> str:
            key = _DRAW[self.key](drawn)
            return other() if key in taken else self._fact(key, _DRAW[self.value](drawn)) + "\n"

        return source.enough(other, tokens)


def noise(source: Source, tokens: int) -> list[TokenIds]:
    """RULER's noise: one line over and over, of so many tokens or more."""
    line = source.part(f"{_NOISE}\n")
    return [line] * (tokens // len(line) + 1)


def _listed(names: list[str]) -> str:
    """RULER's list: "a", or "a, b, and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])}, and {names[-1]}"


def look_up(source: Source, drawn: random.Random, tokens: int) -> Item:
    """The value of one key of a JSON object, all of them UUIDs; the pair stands anywhere. The dots stand before the object."""

    def pair() -> str:
        return f'"{words.key(drawn)}": "{words.key(drawn)}"'

    key, value, room = words.key(drawn), words.key(drawn), 64
    frame = Frame(
        source.head("Extract the value corresponding to the specified key in the JSON object below.\n\nJSON data:\n"),
        source.part(f'}}\n\nKey: "{key}"\nCorresponding value:'),
        tokens,
        room,
    )
    opening, two = source.part("{\n"), [f'"{key}": "{value}"', pair()]
    asked, other = source.parts([f"{each},\n" for each in two])
    asked_last, other_last = source.parts([f"{each}\n" for each in two])  # without a comma, in which tokens may differ
    left = min(frame.left([opening, asked, other_last]), frame.left([opening, other, asked_last]))
    listed = [*whole(source.enough(lambda: f"{pair()},\n", left), left)]
    place = drawn.randrange(len(listed) + 2)
    end = [other, asked_last] if place > len(listed) else [other_last]
    listed = [*listed[:place], *([asked] if place <= len(listed) else []), *listed[place:], *end]
    ids = frame.around([source.dots(frame.left([opening, *listed])), opening, *listed])
    return Item(ids, (value,), room, f' "{value}')


def own(source: Source, drawn: random.Random, tokens: int) -> Item:
    """One of the user's needles in the user's documents, at a place anywhere in them."""
    needle = drawn.choice(source.needles)
    room = _SPARE + sum(map(len, source.parts([f" {answer}" for answer in needle.answers])))
    frame = Frame(
        source.head("Read the following text and answer the question after it.\n\n"),
        source.part(f"\n\nQuestion: {needle.question}\nAnswer:"),
        tokens,
        room,
    )
    ids = frame.hide_in_documents(source, [source.part(f" {needle.needle}")], [drawn.random()])
    return Item(ids, needle.answers, room, f" {needle.answers[0]}" if len(needle.answers) == 1 else "")
