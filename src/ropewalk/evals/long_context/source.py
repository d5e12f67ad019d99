"""What items are made of: parts of text as token ids, and what the user gave to make them of.

in   a tokenizer; documents for a haystack, questions with the documents that answer them, needles
out  a `Source`
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer

from ropewalk.data import jsonlines
from ropewalk.data.compression import damage_named, open_bytes
from ropewalk.data.documents import read_documents
from ropewalk.data.encode import TokenIds, encode, telling_spelled
from ropewalk.data.rows import line_ends
from ropewalk.errors import UserError, told
from ropewalk.evals.tokenize_parts import after_all

#: Words of a sentence at most: a text without full stops has no other places for a needle.
_SENTENCE = 60

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Question:
    """A question, every answer that is right, and the documents that answer it."""

    question: str
    answers: tuple[str, ...]
    documents: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Needle:
    """A sentence to hide, a question about it, and the texts that an answer must have."""

    needle: str
    question: str
    answers: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Parts of prompts for one tokenizer.

    Attributes:
        tokenizer: of the model.
        longest: tokens of the longest prompt that is made.
        data, questions, needle: what the user named; None where nothing was.
    """

    tokenizer: Any
    longest: int
    data: Any = None
    questions: Any = None
    needle: Any = None

    def head(self, text: str) -> TokenIds:
        """The first part of a prompt, with BOS where the tokenizer puts one."""
        return encode(self.tokenizer, text)

    def parts(self, texts: Sequence[str]) -> list[TokenIds]:
        """Later parts of a prompt, each as it is tokenized between others: after a full stop if it begins with white space, else on a new line.

        A text that ends in white space is tokenized with a letter after it: many tokenizers take several blanks or line ends together only
        where nothing follows. All texts begin and end alike.
        """
        if not texts:
            return []
        anchor, next_text = "." if texts[0][:1].isspace() else "\n", "x" * texts[0][-1:].isspace()
        parts = after_all(self.tokenizer, anchor, [text + next_text for text in texts])
        end = self._letter if next_text else np.empty(0, dtype=np.int64)
        return [
            part[: len(part) - len(end)] if (part[len(part) - len(end) :] == end).all() else self._alone(anchor, text)
            for part, text in zip(parts, texts, strict=True)
        ]

    def _alone(self, anchor: str, text: str) -> TokenIds:
        return after_all(self.tokenizer, anchor, [text])[0]

    @cached_property
    def _letter(self) -> TokenIds:
        return self._alone("\n", "x")

    def part(self, text: str) -> TokenIds:
        """One of them."""
        return self.parts([text])[0]

    def enough(self, draw: Callable[[], str], tokens: int) -> list[TokenIds]:
        """Parts that are drawn one after the other until they have so many tokens or more."""
        parts: list[TokenIds] = []
        length, count = 0, 16
        while length < tokens:
            more = self.parts([draw() for _ in range(count)])
            parts += more
            length += sum(map(len, more))
            count = (tokens - length) * len(parts) // length + 16
        return parts

    def dots(self, tokens: int) -> TokenIds:
        """A line of dots, which says nothing, of exactly so many tokens."""
        if not tokens:
            return np.empty(0, dtype=np.int64)
        dots, end = self.part(" ..."), self.part("\n")
        return np.concatenate([np.resize(dots, max(0, tokens - len(end))), end])[:tokens]

    def numbered(self, form: str, count: int) -> list[TokenIds]:
        """The parts `form` with 1, 2, … `count` in it: tokenized once."""
        have = self._numbered.setdefault(form, [])
        if len(have) < count:
            have.extend(self.parts([form.format(number) for number in range(len(have) + 1, count + 1)]))
        return have[:count]

    @cached_property
    def _numbered(self) -> dict[str, list[TokenIds]]:
        return {}

    @cached_property
    def sentences(self) -> list[TokenIds]:
        """The documents' sentences in their order, each after the blank before it: enough for the longest prompt, or all there are.

        Raises:
            UserError: documents that cannot be read.
        """
        found: list[TokenIds] = []
        length = 0
        for document in telling_spelled(self.tokenizer, read_documents(self.data)):
            sentences = [f" {sentence}" for sentence in _sentences(document.text)]
            parts = self.parts(sentences)
            found += parts
            length += sum(map(len, parts))
            if length >= self.longest:
                break
        return found

    def haystack(self, tokens: int, *, begun: bool = False) -> list[TokenIds]:
        """Sentences of so many tokens or more; from the beginning again where the documents are at an end, as RULER repeats its essays.

        begun: something stands before them on their line.
        """
        length = sum(map(len, self.sentences))
        sentences = self.sentences * (tokens // length + 2)
        return sentences if begun else [self._first, *sentences[1:]]

    @cached_property
    def _first(self) -> TokenIds:
        return self.on_new_line(self.sentences[0])

    def on_new_line(self, sentence: TokenIds) -> TokenIds:
        """A sentence that has a blank before it, without it at the beginning of a line."""
        return self._alone("\n", self.tokenizer.decode(sentence).lstrip())

    @cached_property
    def asked(self) -> list[Question]:
        """The questions of all files.

        Raises:
            UserError: a file that is none of the three kinds, or holds nothing.
        """
        files = [self.questions] if isinstance(self.questions, str | Path) else list(self.questions)
        return [question for path in files for question in _questions(Path(path))]

    @cached_property
    def bodies(self) -> dict[str, TokenIds]:
        """Every document of the questions, as it stands in a prompt.

        Raises:
            UserError: there is one alone, so that nothing could be taken for it.
        """
        each = (text for question in self.asked for text in question.documents)
        texts = list(telling_spelled(self.tokenizer, dict.fromkeys(each)))
        if len(texts) == max(len(question.documents) for question in self.asked):
            raise UserError(
                "questions are asked among the documents of others, and all of these have the same; give --questions about more documents"
            )
        return dict(zip(texts, self.parts([f"{text}\n\n" for text in texts]), strict=True))

    @cached_property
    def needles(self) -> list[Needle]:
        """The needles of all files.

        Raises:
            UserError: a line without needle, question and answer, or with an answer that is not in its needle and is not said to be `inferred`.
        """
        files = [self.needle] if isinstance(self.needle, str | Path) else list(self.needle)
        fields = {"needle": _text, "question": _text, "answer": _texts}
        optional = {"inferred": jsonlines.one_of(True, False)}
        rows = [_with_its_answer(row, path) for path in files for row in jsonlines.read(path, fields, optional)]
        if not rows:
            raise UserError(f"{files[0]} holds no needle; write lines of needle, question and answer into it")
        needles = [Needle(row["needle"], row["question"], row["answer"]) for row in rows]
        if self.data is not None:
            self._warn_of(needles)
        return needles

    def _warn_of(self, needles: Sequence[Needle]) -> None:
        """Warn of a needle that does not test what is found: the documents give the answer too."""
        haystack = _plain(self.tokenizer.decode(np.concatenate(self.sentences)))
        for needle, answer in ((each, answer) for each in needles for answer in each.answers):
            if _plain(answer) in haystack:
                _logger.warning(
                    "the answer %r to %r is in the documents too, so that it may be said by whoever never saw the needle; take one that is in the "
                    "needle alone",
                    answer,
                    needle.question,
                )


def _with_its_answer(row: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """A line of needles whose answers stand in its needle, or follow from it as it says itself."""
    lacks = [answer for answer in row["answer"] if _plain(answer) not in _plain(row["needle"])]
    if lacks and not row.get("inferred"):
        raise UserError(
            f"whoever finds a needle is to say its answer, which therefore stands in it, but in {path} {lacks[0]!r} (asked by {row['question']!r}) is not in "
            f'{row["needle"]!r}; mend the line, or add "inferred": true to it if the answer follows from the needle in other words'
        )
    return row


def _plain(text: str) -> str:
    """As texts are held against one another: white space is one blank each, as `_sentences` makes it, and case does not count."""
    return " ".join(text.split()).casefold()


def _sentences(text: str) -> Iterator[str]:
    """The sentences of a text, white space made one blank; long ones in pieces."""
    for sentence in re.split(r"(?<=[.!?])\s+", text.strip()):
        words = sentence.split()
        for start in range(0, len(words), _SENTENCE):
            yield " ".join(words[start : start + _SENTENCE])


def _text(value: Any) -> str:
    """With the line ends that documents have, whichever system the file is from."""
    return line_ends(jsonlines.text(value))


def _texts(value: Any) -> tuple[str, ...]:
    """One text or several."""
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(each, str) and each.strip() for each in values):
        raise ValueError("a text that is not empty, or a list of them")
    return tuple(line_ends(each.strip()) for each in values)


def _questions(path: Path) -> list[Question]:
    """Questions of a file: JSON lines of ropewalk's own, or the file of SQuAD or of HotpotQA as it is published."""
    if ".json" not in map(str.lower, path.suffixes[-2:]):  # the last may be that of a compression
        fields = {"question": _text, "answer": _texts, "context": _texts}
        questions = [Question(row["question"], row["answer"], row["context"]) for row in jsonlines.read(path, fields)]
    else:
        with told(f"{path} is not a file of SQuAD or HotpotQA", "give JSON lines of question, answer and context"):
            with damage_named(path), open_bytes(path) as file:
                whole = json.loads(file.read())
            questions = _squad(whole) if isinstance(whole, dict) else _hotpot(whole)
    if not questions:
        raise UserError(f"{path} holds no question; write lines of question, answer and context into it")
    return questions


def _squad(whole: dict[str, Any]) -> list[Question]:
    """SQuAD 2.0's dev-v2.0.json, the questions that have an answer."""
    return [
        Question(
            line_ends(asked["question"]),
            tuple(line_ends(answer["text"]) for answer in asked["answers"]),
            (line_ends(paragraph["context"]),),
        )
        for article in whole["data"]
        for paragraph in article["paragraphs"]
        for asked in paragraph["qas"]
        if not asked.get("is_impossible") and asked["answers"]
    ]


def _hotpot(whole: list[Any]) -> list[Question]:
    """HotpotQA's hotpot_dev_distractor_v1.json: ten documents a question, each a title and its sentences."""
    return [
        Question(
            line_ends(row["question"]),
            (line_ends(row["answer"]),),
            tuple(f"{title}\n{line_ends(''.join(lines))}" for title, lines in row["context"]),
        )
        for row in whole
    ]


def lengths(parts: Sequence[TokenIds]) -> Integer[np.ndarray, " parts"]:
    """Tokens of each."""
    return np.fromiter(map(len, parts), dtype=np.int64, count=len(parts))
