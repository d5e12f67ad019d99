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
import string

from ropewalk.data.recall import ADJECTIVES, ADVERBS, NOUNS, PEOPLE, VERBS
from ropewalk.evals.long_context import words
from ropewalk.evals.long_context.items import Frame, Item
from ropewalk.evals.long_context.source import Source

_FORMS = "poem letter story song note riddle speech report".split()
_TOPICS = list(dict.fromkeys(NOUNS))[:40]
_ORDINALS = "1st 2nd 3rd 4th 5th 6th 7th 8th".split()
#: Each is English with any of the words: nouns take "the", which goes with milk and the sea as with a door, and no verb but those in it needs an object.
_SENTENCES = [
    "The {n1} {v1} {d1}.",
    "The {n1} is {a1}, and the {n2} is {a2}.",
    "The {a1} {n1} {v1}, then it {v2} {d1}.",
    "The {n1} of the {n2} was {a1} and {a2}.",
    "{p1} and {p2} talk about the {a1} {n1}.",
    "{p1} found the {n1} near the {a1} {n2}.",
    "{p1} will look for the {n1} {d1}.",
    "{p1} said that the {n1} was {a1}.",
    "{p1} remembers the {a1} {n1} and forgets the {n2}.",
    "Is the {n1} {a1}? {p1} thinks that it is {a2}.",
    "Nobody saw the {a1} {n1} behind the {n2}.",
    "Here the {n1} {v1}, and there the {n2} {v2}.",
    "When the {n1} {v1}, {p1} thinks of the {a1} {n2}.",
    "Do not ask {p1} about the {a1} {n1} {d1}.",
]
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
    """Made-up sentences, all different, the same ones in every conversation."""
    drawn, different = random.Random(0), dict[str, None]()
    kinds = {"n": NOUNS, "a": ADJECTIVES, "p": PEOPLE, "v": VERBS, "d": ADVERBS}
    once_each = {kind: list(dict.fromkeys(words)) for kind, words in kinds.items()}
    while len(different) < 4096:
        form = drawn.choice(_SENTENCES)
        two_of_each = {
            f"{kind}{at}": word
            for kind, words in once_each.items()
            for at, word in enumerate(drawn.sample(words, 2), 1)
        }
        different[form.format(**two_of_each)] = None
    return list(different)


def _answer(drawn: random.Random) -> str:
    return " ".join(drawn.sample(_sentences(), 3))


def _turn(form: str, topic: str, answer: str) -> str:
    return f"User: Write a {form} about the {topic}.\nAssistant: {answer}\n"
