"""Conversations of three lengths from one set of turns: what the lab's tuned-* levels read.

    python lab/conversations.py models/smollm2-135m data/pairs/*.jsonl.xz --window 32k --out data/conversations

in   a model, for its tokenizer; the window W that it is extended to; rows of `document` and `summary`
out  OUT/MODEL-LENGTH.jsonl, rows of `messages`, at lengths W / 2, W and 2 W

A turn gives a document, cut so that it and its summary take W / 4 tokens, and asks for the summary. The three files have the same turns in the
same order: only how many make a conversation differs, 2, 4 and 8.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ropewalk import UserError
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.data.chat_tokens import encode_conversations
from ropewalk.data.conversations import SUMMARY_HEAD, SUMMARY_TAIL, Conversation
from ropewalk.data.encode import encode
from ropewalk.evals.downstream.pairs import pairs
from ropewalk.model.load import load_tokenizer
from ropewalk.settings.written_numbers import tokens

#: Tokens by which a document may grow when it is cut out of a text and read again.
_SLACK = 4


def turns(sources: list[Path], tokenizer: Any, length: int) -> Iterator[list[dict[str, str]]]:
    """A question and its answer, of at most `length` tokens and hardly fewer; of pairs whose documents are long enough."""
    for pair in pairs(sources):
        answer = beginning(pair.summary, tokenizer, length // 2)
        around = len(encode_conversations(tokenizer, [Conversation("", asked("", answer))])[0][0]) + _SLACK
        ids = encode(tokenizer, pair.document)[: length - around]
        if answer and len(ids) == length - around:
            yield asked(tokenizer.decode(ids, skip_special_tokens=True), answer)


def beginning(summary: str, tokenizer: Any, most: int) -> str:
    """As many whole sentences as `most` tokens hold."""
    sentences = re.split(r"(?<=[.!?])\s+", summary)
    while sentences and len(encode(tokenizer, " ".join(sentences))) > most:
        sentences.pop()
    return " ".join(sentences)


def asked(document: str, answer: str) -> list[dict[str, str]]:
    """By the paper's wording (section 3.5)."""
    question = f"{SUMMARY_HEAD}{document}{SUMMARY_TAIL}"
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("model")
    options.add_argument("pairs", type=Path, nargs="+")
    options.add_argument("--window", type=tokens, required=True)
    options.add_argument("--out", type=Path, required=True)
    arguments = options.parse_args()
    turn = arguments.window // 4
    try:
        every = list(turns(sorted(arguments.pairs), load_tokenizer(Checkpoint.open(arguments.model)), turn))
    except UserError as error:
        options.error(str(error))
    random.Random(0).shuffle(every)
    every = every[: len(every) // 8 * 8]
    arguments.out.mkdir(parents=True, exist_ok=True)
    for number in (2, 4, 8):
        rows = [{"messages": sum(every[first : first + number], [])} for first in range(0, len(every), number)]
        path = arguments.out / f"{Path(arguments.model).name}-{turn * number}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        print(f"{path}: {len(rows)} conversations of {number} turns")


if __name__ == "__main__":
    main()
