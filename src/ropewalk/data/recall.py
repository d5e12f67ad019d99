"""The recall exercise: facts hidden in a window of text, asked for at its end.

in   a tokenizer, a flat array of ordinary tokens to hide facts in, a seed
out  rows of token ids of one length, each one exercise or several; or the same as documents for `train`

A model of three million parameters does not learn retrieval from Python source alone. Facts vary in form and wording, and so
does the text around them: source code, English-like sentences, and a few sentences or lines repeated over and over. The
passkey prompt that measures retrieval is never among them: `FORBIDDEN` lists its phrases, no exercise contains one, and
source files that quote it are left out of the corpus.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
from jaxtyping import Integer, UInt16
from tokenizers import Tokenizer

from ropewalk.data.documents import Document

#: Phrases of the passkey prompt (Mohtashami & Jaggi 2023, as quoted in Chen et al. 2023), in lower case.
FORBIDDEN = (
    "the grass is green",
    "the sky is blue",
    "the sun is yellow",
    "here we go",
    "there and back again",
    "pass key",
    "passkey is",
    "an important info hidden",
    "irrelevant text",
    "find it and memorize",
    "quiz you about",
)

NOUNS = """apple bridge river garden window table stone cloud tree horse engine letter book lamp door ship mountain field
road wheel box chair glass paper clock forest island house bird fish cat dog rain snow wind fire water sand grass sky sun
moon star leaf flower boat train car plane bottle cup plate knife spoon bell drum song story picture map coin ring rope
sail tower wall roof floor market school station village city harbour valley lake sea shore hill path gate fence barn
kitchen cellar attic office library museum theatre hospital library shop bread cheese milk honey salt sugar coffee tea
message report answer question number word line page list name place morning evening night day week month year""".split()
ADJECTIVES = """green blue yellow red white black brown grey orange purple pink golden silver dark bright old new small large
big little long short high low deep wide narrow thick thin heavy light soft hard warm cold hot cool dry wet clean dirty
quiet loud slow fast early late empty full open closed broken strange plain simple gentle rough smooth sharp round flat
sweet bitter fresh quick calm kind happy sad tired hidden important special secret""".split()
VERBS = """sleeps runs waits turns falls rises shines moves stops sings grows breaks burns floats rests opens closes
returns stands stays flies swims walks leaves arrives changes begins ends works helps""".split()
PLAIN_VERBS = """go come walk run read write look listen wait sing talk eat drink sleep play work build find keep lose buy
sell carry hold open close remember forget learn teach tell ask start finish""".split()
ADVERBS = (
    "slowly quickly often always never again there here today tonight soon later quietly alone together well".split()
)
PEOPLE = """Anna Ben Clara David Emma Felix Grace Henry Ida Jack Karl Laura Martin Nina Oscar Paula Quentin Rosa Simon Tina
Ugo Vera Walter Xenia Yusuf Zoe Alice Bob Carol Dan Eve Frank Maria Peter John Mary Tom Lucy Sam Kate""".split()
THINGS = """code number ticket room phone badge locker password token label colour address score price answer account
version port level size weight index offset limit total count price seat shelf page""".split()
KINDS = "secret door access order serial magic train lucky main spare first second last safe house bank ticket".split()
FORMS = [
    "The {a} {n} {v}.", "The {n} is {a}.", "The {n} of the {n2} is {a} and {a2}.", "{p} and {p2} {w} by the {n}.",
    "We {w} and they {w2} {d}.", "There is a {a} {n} in the {n2}.", "It was {a} in the {n}.", "They {w} there {d}.",
    "{p} will {w} the {n} {d}.", "Do not {w} the {n}.", "You {w} it, and I {w2} about the {n}.", "What a {a} {n} it is!",
    "Is the {n} {a}? It is {a2}.", "A {n} {v} {d}, then it {v2} again.", "Here the {n} {v}; I will {w} back to the {n2}.",
    "This is a lot of text about the {n}.", "{w} it and {w2} them.", "She said that the {n} was {a}.", "Go and {w} {d}.",
    "I have some {a} information for you.", "{d} we {w} inside the {a} {n}, and back.", "He did not see what was there.",
]  # fmt: skip
CODE_LINES = [
    "x = x + 1", "pass", "return None", "print('nothing here')", "# nothing to see", "i += 1", "result.append(item)",
    "self.count = 0", "if not line: continue", "for i in range(10): pass", "log.debug('still running')", "import os",
    "data = {}", "yield value", "raise ValueError(name)", "x, y = y, x", "assert True", "# TODO", "del cache[0]", "...",
]  # fmt: skip
HEADS = [
    "One fact is given below. It is asked for at the end.\n", "Read the text. Keep the number in mind.\n",
    "Somewhere in these lines there is a {a} fact.\n", "There are some facts inside the text that follows. Learn them.\n",
    "I will ask you about this at the end.\n", "# The values below are needed later.\n", "NOTES\n", "",
]  # fmt: skip
#: (how the fact is stated, how it is asked for); {k} is what it is about, {x} its value.
FACTS = [
    ("The {k} is {x}.\n", "What is the {k}? The {k} is {x}.\n"),
    ("The {k} is {x}. Keep it in mind.\n", "The {k} is {x}.\n"),
    ("The {k} is {x}. Do not forget: {x} is the {k}.\n", "What was the {k}? The {k} is {x}.\n"),
    ("The {k} is {x}. {x} is the {k}.\n", "Q: what is the {k}?\nA: the {k} is {x}.\n"),
    ("{x} is the {k}. Remember that the {k} is {x}.\n", "Which is the {k}? {x} is the {k}.\n"),
    ("Note: the {k} is {x}.\n", "Tell me the {k}. It is {x}.\n"),
    ("{k}: {x}\n", "{k}: {x}\n"),
    ("Remember this: {k} {x}.\n", "Question: {k}? Answer: {x}.\n"),
    ("Please write down {x}, the {k}.\n", "So the {k} is {x}.\n"),
    ("By the way, the {k} has been set to {x}.\n", "The {k} has been set to {x}.\n"),
]  # fmt: skip
CODE_FACTS = [
    ("{k} = {x}\n", "assert {k} == {x}\n"),
    ("{k} = {x}\n", "print({k})  # {x}\n"),
    ('"{k}": {x},\n', 'config["{k}"] == {x}\n'),
    ("# {k} is {x}\n", "# {k} is {x}\n"),
    ("def {k}(): return {x}\n", ">>> {k}()\n{x}\n"),
    ("self.{k} = {x}\n", "self.{k} = {x}\n"),
    ("set {k} to {x}\n", "get {k}: {x}\n"),
]


def _without_forbidden(draw: Callable[[], str]) -> str:
    while any(phrase in (text := draw()).lower() for phrase in FORBIDDEN):
        pass
    return text


def sentence(rng: random.Random) -> str:
    """One made-up English sentence."""
    pick = rng.choice
    return _without_forbidden(
        lambda: pick(FORMS).format(
            a=pick(ADJECTIVES), a2=pick(ADJECTIVES), n=pick(NOUNS), n2=pick(NOUNS), v=pick(VERBS), v2=pick(VERBS),
            w=pick(PLAIN_VERBS), w2=pick(PLAIN_VERBS), d=pick(ADVERBS), p=pick(PEOPLE), p2=pick(PEOPLE),
        )
    )  # fmt: skip


def fact(rng: random.Random) -> tuple[str, str]:
    """A fact and its question with the answer, as text."""

    def value() -> str:
        draw = rng.random()
        if draw < 0.75:
            digits = 5 if rng.random() < 0.5 else rng.randint(1, 9)
            return "".join(rng.choices("0123456789", k=digits))
        return rng.choice(PEOPLE) if draw < 0.85 else f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}"

    def about() -> str:
        thing = rng.choice(THINGS)
        shape = rng.random()
        if shape < 0.3:
            return f"{rng.choice(KINDS)} {thing}"
        if shape < 0.5:
            return f"{thing} of {rng.choice(PEOPLE)}"
        if shape < 0.7:
            return f"{thing} of the {rng.choice(NOUNS)}"
        return f"{rng.choice(NOUNS)} {thing}"

    if rng.random() < 0.7:
        stated, asked = rng.choice(FACTS)
        key = about()
    else:
        stated, asked = rng.choice(CODE_FACTS)
        key = rng.choice(["{}_{}", "{}{}"]).format(rng.choice(NOUNS), rng.choice(THINGS))
        key = key.upper() if rng.random() < 0.3 else key
    filled = value()
    texts = stated.format(k=key, x=filled), asked.format(k=key, x=filled)
    return texts if not any(phrase in "".join(texts).lower() for phrase in FORBIDDEN) else fact(rng)


def prose(rng: random.Random, characters: int) -> list[str]:
    """Sentences and facts, about `characters` long in all: plain English for training the tokenizer."""
    texts: list[str] = []
    while characters > 0:
        texts.append(" ".join(sentence(rng) for _ in range(8)) + "\n" + "".join(fact(rng)))
        characters -= len(texts[-1])
    return texts


class Exercises:
    """Draws exercises as token ids; `rows(count, length)` is what training reads.

    Args:
        tokenizer: the fast tokenizer underneath a transformers one.
        ordinary: token ids of text to hide facts in, (tokens,), of any integer type.
        seed: the same exercises for the same seed.
    """

    def __init__(self, tokenizer: Tokenizer, ordinary: Integer[np.ndarray, " tokens"], seed: int) -> None:
        self.tokenizer, self.ordinary, self.rng = tokenizer, ordinary, random.Random(seed)
        self.start = int(tokenizer.token_to_id("<s>") or 0)

    def tokens(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def haystack(self) -> Callable[[int], list[int]]:
        """A source of filler: called with a length, gives that many tokens."""
        rng, draw = self.rng, self.rng.random()
        if draw < 0.3:  # ordinary source

            def ordinary(length: int) -> list[int]:
                start = rng.randrange(len(self.ordinary) - length)
                return self.ordinary[start : start + length].tolist()

            return ordinary
        if draw < 0.45:  # sentences that do not repeat
            return lambda length: self.tokens(" ".join(sentence(rng) for _ in range(length // 4 + 1)))[:length]
        if draw < 0.85:
            unit = " ".join(sentence(rng) for _ in range(rng.randint(1, 7)))
        else:
            unit = "\n".join(rng.choice(CODE_LINES) for _ in range(rng.randint(1, 6)))
        if rng.choice([" ", "\n"]) == "\n":
            line = self.tokens(unit + "\n")
            return lambda length: (line * (length // len(line) + 1))[:length]
        # Text after a blank is tokenized differently from the start of a text, so the repeats differ from the first.
        first, twice = self.tokens(unit), self.tokens(unit + " " + unit)
        repeat = twice[len(first) :]
        return lambda length: (first + repeat * (length // max(1, len(repeat)) + 1))[:length]

    def exercise(self, length: int) -> list[int]:
        """One exercise of exactly `length` tokens: BOS, a heading, filler with facts in it, questions with answers."""
        rng = self.rng
        if rng.random() < 0.06:
            return self.echo(length)
        head = [self.start, *self.tokens(rng.choice(HEADS).format(a=rng.choice(ADJECTIVES)))]
        facts, questions, room = [], [], length - len(head)
        # Facts in proportion to the length: a model learns from the answers, so a long row needs more of them.
        for _ in range(rng.choice([1, 1, 1, 2, 3, 4, 6]) * max(1, length // 256)):
            stated, asked = (self.tokens(text) for text in fact(rng))
            if len(stated) + len(asked) + 8 > room:
                break
            facts.append(stated)
            questions.append(asked)
            room -= len(stated) + len(asked)
        newline = self.tokens("\n")
        rng.shuffle(questions)
        room -= len(newline) * (len(facts) + 1)
        filler = self.haystack()
        cuts = [0, *sorted(self.place(max(room, 0)) for _ in facts), max(room, 0)]
        row = head
        for i, stated in enumerate(facts):
            row += [*filler(cuts[i + 1] - cuts[i]), *newline, *stated]
        row += [*filler(cuts[-1] - cuts[-2]), *newline]
        for asked in questions:
            row += asked
        return row[:length] + newline * (length - len(row))

    def place(self, room: int) -> int:
        """Where a fact stands: anywhere or, in three of ten draws, close to the questions, where a uniform draw seldom falls."""
        near = self.rng.random() < 0.3
        return max(0, room - int(self.rng.expovariate(1 / 24))) if near else self.rng.randint(0, room)

    def echo(self, length: int) -> list[int]:
        """Ordinary or shuffled tokens, filler, and the same tokens again."""
        rng = self.rng
        size = rng.randint(8, length // 3)
        start = rng.randrange(len(self.ordinary) - size)
        first = self.ordinary[start : start + size].tolist()
        if rng.random() < 0.5:
            rng.shuffle(first)
        between = self.haystack()(length - 1 - 2 * size)
        return [self.start, *first, *between, *first][:length]

    def row(self, length: int) -> list[int]:
        """A row of `length` tokens: one exercise that fills it, or shorter ones back to back."""
        rng, row = self.rng, []
        while length - len(row) > 80:
            room = length - len(row)
            row += self.exercise(room if rng.random() < 0.7 else rng.randint(64, room))
        return row + self.haystack()(length - len(row))

    def rows(self, count: int, length: int) -> UInt16[np.ndarray, "count length"]:
        """`count` rows of `length` tokens."""
        return np.array([self.row(length) for _ in range(count)], dtype=np.uint16)


def documents(
    tokenizer: Tokenizer, ordinary: Integer[np.ndarray, " tokens"], *, count: int, window: int, seed: int = 0
) -> list[Document]:
    """Exercises as text, each exactly `window` tokens with BOS and EOS.

    Packing lays documents end to end and cuts every `window` tokens, so exercises that come first fill a block each and no
    question is cut off from its fact. A text that tokenizes to another length is drawn again.

    Args:
        tokenizer: the fast tokenizer underneath a transformers one.
        ordinary: token ids of text to hide facts in.
        count: how many.
        window: tokens.
        seed: the same exercises for the same seed.
    """
    exercises = Exercises(tokenizer, ordinary, seed)
    texts: list[Document] = []
    while len(texts) < count:
        text = tokenizer.decode(exercises.row(window - 1)[1:], skip_special_tokens=False)
        if len(tokenizer.encode(text, add_special_tokens=False).ids) == window - 2:
            texts.append(Document(f"recall exercise {len(texts) + 1}", text))
    return texts
