"""Which of several turns was asked for: after OpenAI's MRCR (2025; "multi-round co-reference resolution").

in   a source, a random generator, a length in tokens
out  an item

A conversation has several answers to one and the same request, among answers to requests that are like it; the model is to write the second, say, of
them again, behind a code. Answers are made-up sentences.
"""

from __future__ import annotations

import dataclasses
import functools
import random
import re
import string

from ropewalk.data.recall import NOUNS, sentence
from ropewalk.evals.long_context import words
from ropewalk.evals.long_context.items import Frame, Item
from ropewalk.evals.long_context.source import Source

_FORMS = "poem letter story song note riddle speech report".split()
_TOPICS = list(dict.fromkeys(NOUNS))[:40]
_ORDINALS = "1st 2nd 3rd 4th 5th 6th 7th 8th".split()
#: Tokens that a response may have more than the answer has.
_SPARE = 16


@dataclasses.dataclass(frozen=True)
class Turns:
    """A conversation with `alike` answers to the request that is asked about."""

    alike: int

    def __call__(self, source: Source, drawn: random.Random, tokens: int) -> Item:
        form, topic = drawn.choice(_FORMS), drawn.choice(_TOPICS)
        answers = [_answer(drawn) for _ in range(self.alike)]
        asked, code = drawn.randrange(self.alike), words.letters(drawn, 10, string.ascii_letters + string.digits)
        answer = f"{code}{answers[asked]}"
        room = len(source.part(f" {answer}")) + _SPARE
        request = f"Prepend {code} to the {_ORDINALS[asked]} (1 indexed) {form} about the {topic}. Do not include any other text in your response."
        frame = Frame(
            source.head("Here is a conversation. At its end one of its answers is asked for again.\n\n"),
            source.part(f"\n\nUser: {request}\nAssistant:"),
            tokens,
            room,
        )

        def other() -> str:
            pair = drawn.choice(_FORMS), drawn.choice(_TOPICS)
            return _turn(*pair, _answer(drawn)) if pair != (form, topic) else other()

        facts = source.parts([_turn(form, topic, each) for each in answers])
        shares = [drawn.random() for _ in facts]
        ids = frame.hide_in_list(source, facts, shares, lambda left: source.enough(other, left))
        return Item(ids, (code, answers[asked]), room, f" {answer}")


@functools.cache
def _sentences() -> list[str]:
    """Made-up sentences, the same ones in every conversation."""
    drawn = random.Random(0)
    return [_ARTICLE.sub(r"\1n ", sentence(drawn)) for _ in range(4096)]


#: An "a" before a vowel. The sentences that hemp and the demo learn from stay as they were learnt.
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiou])")


def _answer(drawn: random.Random) -> str:
    return " ".join(drawn.sample(_sentences(), 3))


def _turn(form: str, topic: str, answer: str) -> str:
    return f"User: Write a {form} about the {topic}.\nAssistant: {answer}\n"
