"""Questions about documents: RULER's qa_1 and qa_2 (section 3.4), of the user's questions and documents.

in   a source with questions, a random generator, a length in tokens
out  an item

qa_1 asks what one document answers (SQuAD), qa_2 what several do (HotpotQA). They stand among the documents of other questions, from the beginning
again where those are at an end; all of them are whole.
"""

from __future__ import annotations

import random

import numpy as np

from ropewalk.evals.long_context.items import Frame, Item
from ropewalk.evals.long_context.source import Question, Source, lengths

_ASK = (
    "Answer the question based on the given documents. Only give me the answer and do not output any other words.\n\n"
)
_TITLE = "Document {}:\n"


def one_document(source: Source, drawn: random.Random, tokens: int) -> Item:
    """RULER's qa_1."""
    return _reading(source, drawn, tokens, [asked for asked in source.asked if len(asked.documents) == 1])


def several_documents(source: Source, drawn: random.Random, tokens: int) -> Item:
    """RULER's qa_2."""
    return _reading(source, drawn, tokens, [asked for asked in source.asked if len(asked.documents) > 1])


def _reading(source: Source, drawn: random.Random, tokens: int, questions: list[Question]) -> Item:
    asked, room = drawn.choice(questions), 32
    frame = Frame(
        source.head(f"{_ASK}The following are given documents.\n\n"),
        source.part(f"{_ASK}Question: {asked.question} Answer:"),
        tokens,
        room,
    )
    answering = [source.bodies[text] for text in asked.documents]
    others = [body for text, body in source.bodies.items() if text not in asked.documents]
    drawn.shuffle(others)
    left = frame.left([*answering, *source.numbered(_TITLE, len(answering))])
    # Of the others as many as fit, each with its title.
    others *= left // max(1, sum(map(len, others))) + 1
    titles = source.numbered(_TITLE, len(answering) + len(others))
    ends = np.cumsum(lengths(others) + lengths(titles[len(answering) :]))
    fit = int(np.searchsorted(ends, left, side="right"))
    bodies = [*answering, *others[:fit]]
    drawn.shuffle(bodies)
    context = [part for pair in zip(titles, bodies, strict=False) for part in pair]
    return Item(frame.around([source.dots(frame.left(context)), *context]), asked.answers, room)
