"""Documents with their summaries, and the prompt that asks for one (section 3.5).

in   JSON-lines files or data-set ids with pairs; a tokenizer, and how many tokens of each fit a window
out  per pair the prompt's token ids and the reference summary; for training, rows whose loss is on the summary alone

    ids      < Read the … it.\n  d d d d d d  \nNow summarize … Summary:\n  s s s >
    labels   . . . . . . . . .  . . . . . .  . . . . . . . . . . . . . . s  s s > .

The document is cut to its first `document` tokens, the summary to its first `summary` tokens (15000 and 1000 in the paper,
in a window of 16384). The parts are tokenized separately and joined, so that cutting one leaves the others as they are.
"""

from __future__ import annotations

import hashlib
import itertools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.data import jsonlines
from ropewalk.data.conversations import SUMMARIES, SUMMARISED
from ropewalk.data.conversations import SUMMARY_HEAD as HEAD
from ropewalk.data.conversations import SUMMARY_TAIL as TAIL
from ropewalk.data.documents import kind_of, streamed
from ropewalk.data.encode import TokenIds, encode, telling_spelled
from ropewalk.data.packing import IGNORED, Blocks, Places, Rows, order
from ropewalk.data.rows import line_ends
from ropewalk.data.select import name_of
from ropewalk.errors import UserError, told
from ropewalk.sentences import counted

#: The paper's sizes (section 3.5), in tokens.
WINDOW, DOCUMENT_TOKENS, SUMMARY_TOKENS = 16384, 15000, 1000

#: What published data sets call the document and its summary.
_FIELDS = (*itertools.product(SUMMARISED, SUMMARIES), ("input", "output"))


@dataclass(frozen=True)
class Pair:
    """A document and its reference summary."""

    name: str
    document: str
    summary: str

    @property
    def text(self) -> str:
        """All that is read of it."""
        return f"{self.document}\n{self.summary}"


@dataclass(frozen=True)
class Sizes:
    """How many tokens the document and the summary may have in a window."""

    window: int
    document: int
    summary: int

    @classmethod
    def fitting(cls, tokenizer: Any, window: int, document: int | None = None, summary: int | None = None) -> Sizes:
        """The paper's sizes, or what fits a smaller window: the summary keeps its share, the document takes the rest.

        Raises:
            UserError: a size below 1, or sizes that do not fit the window together with the prompt.
        """
        instructions = len(prompt_ids(tokenizer, "", 0)) + 1  # and the summary's end token
        summary = min(SUMMARY_TOKENS, window * SUMMARY_TOKENS // WINDOW) if summary is None else summary
        document = min(DOCUMENT_TOKENS, window - summary - instructions) if document is None else document
        if min(document, summary) < 1 or document + summary + instructions > window:
            raise UserError(
                f"a window of {window} tokens must hold a document ({document}), its summary ({summary}) and the prompt's words "
                f"({instructions}); ask for fewer tokens or use a model with a longer window"
            )
        return cls(window, document, summary)


def pairs(sources: str | Path | Sequence[str | Path]) -> Iterator[Pair]:
    """Every pair of the sources, in order.

    Args:
        sources: `.jsonl` files (or .xz, .gz, .zst) with `document` and `summary`, each a text or a list of its lines, or data-set ids as `owner/name` or
            `owner/name:split` (the split is `test` if not given).

    Raises:
        UserError: a missing or damaged file, a row without a document or a summary.
    """
    for source in [sources] if isinstance(sources, str | Path) else sources:
        kind = kind_of(source)
        if kind == "directory":
            raise UserError(f"pairs are read from files, but {source} is a directory; name its .jsonl files")
        fields = {"document": jsonlines.text, "summary": jsonlines.text}
        rows = _from_hub(str(source)) if kind == "hub" else jsonlines.read(source, fields)
        for number, row in enumerate(rows):
            yield _pair(row, f"{Path(source).name.split('.')[0]}:{number}", source)


def _pair(row: dict[str, Any], name: str, source: str | Path) -> Pair:
    for document, summary in _FIELDS:
        if document in row and summary in row:
            try:
                return Pair(name, *(line_ends(jsonlines.text(row[field])) for field in (document, summary)))
            except ValueError:
                raise UserError(f"{name} of {source} has an empty document or summary; drop that row") from None
    raise UserError(
        f"{name} of {source} has no document ({', '.join(SUMMARISED)}) with a summary ({', '.join(SUMMARIES)}), nor input with output; rename its fields"
    )


def _from_hub(source: str) -> Iterator[dict[str, Any]]:
    name, _, split = source.partition(":")
    with told(f"{name} cannot be fetched from the hub", "check its name and split, or give a .jsonl file", Exception):
        yield from streamed(name, "give a .jsonl file, or go online", split=split or "test")


def first(data: str | Path | Sequence[str | Path], limit: int | None) -> list[Pair]:
    """The first `limit` pairs, to measure on; one that comes again, white space around its texts aside, is one.

    Raises:
        UserError: there are none.
    """
    chosen: dict[tuple[str, str], Pair] = {}
    copies = 0
    for pair in pairs(data):
        copies += (texts := (pair.document.strip(), pair.summary.strip())) in chosen
        chosen.setdefault(texts, pair)
        if len(chosen) == limit:
            break
    if copies:
        warnings.warn(
            f"pairs that come again, in the same file or in another, are measured once: {copies}", stacklevel=2
        )
    if not chosen:
        raise UserError(f"{name_of(data)} has no pairs of documents and summaries; check --data")
    return list(chosen.values())


def prompt_ids(tokenizer: Any, document: str, document_tokens: int) -> TokenIds:
    """The prompt, up to where the summary begins; BOS in front where the tokenizer puts one."""
    head = encode(tokenizer, HEAD)
    body = encode(tokenizer, document, bos=False)[:document_tokens]
    return np.concatenate([head, body, encode(tokenizer, TAIL, bos=False)])


def document_length(tokenizer: Any, pair: Pair) -> int:
    """How many tokens the document has, before it is cut."""
    return len(encode(tokenizer, pair.document, bos=False))


class PairRows:
    """Pairs as training rows, one pair a row, for the training loop (`data.packing.TrainingRows`).

    Padding comes after the summary, where a causal model does not see it, and is not scored.

    Args:
        chosen: the pairs.
        tokenizer: of the model.
        sizes: tokens of document and summary.
        end: the token that ends a summary; None for none.

    Raises:
        UserError: there are no pairs.
    """

    def __init__(self, chosen: Sequence[Pair], tokenizer: Any, sizes: Sizes, *, end: int | None) -> None:
        if not chosen:
            raise UserError("fine-tuning on summaries needs at least one pair, but the files have none; check --train")
        self.pairs, self.window = list(chosen), sizes.window
        self.examples = [_example(pair, tokenizer, sizes, end) for pair in telling_spelled(tokenizer, chosen)]
        digest = hashlib.sha256()
        for prompt, summary in self.examples:
            digest.update(prompt.tobytes() + b"|" + summary.tobytes())
        self.digest, self.restarts = digest.hexdigest(), False

    def order(self, seed: int, places: Places) -> Blocks:
        """A permutation of the pairs for every pass."""
        return order(seed, places, len(self))

    def __len__(self) -> int:
        return len(self.pairs)

    def names(self, block: int) -> list[str]:
        return [self.pairs[block].name]

    def counted(self, blocks: Blocks, *, mask_documents: bool = False) -> int:
        """How many labels of these rows are scored: those of the summaries and their end tokens."""
        return sum(len(self.examples[int(block)][1]) for block in blocks)

    def rows(self, blocks: Blocks, *, mask_documents: bool = False) -> dict[str, Rows]:
        """`input_ids`, `labels` (shifted; IGNORED on the prompt and the padding) and `position_ids`, int64 (blocks, W)."""
        ids = np.zeros((len(blocks), self.window), dtype=np.int64)
        labels = np.full((len(blocks), self.window), IGNORED, dtype=np.int64)
        for row, block in enumerate(blocks):
            prompt, summary = self.examples[int(block)]
            whole = np.concatenate([prompt, summary])
            ids[row, : len(whole) - 1] = whole[:-1]
            labels[row, len(prompt) - 1 : len(whole) - 1] = summary
        positions = np.broadcast_to(np.arange(self.window, dtype=np.int64), ids.shape).copy()
        return {"input_ids": ids, "labels": labels, "position_ids": positions}


def _example(pair: Pair, tokenizer: Any, sizes: Sizes, end: int | None) -> tuple[TokenIds, TokenIds]:
    """A pair's prompt and summary with its end token, as token ids; int32, since all pairs are held in memory."""
    summary = encode(tokenizer, pair.summary.strip(), bos=False)[: sizes.summary]
    target = np.concatenate([summary, np.array([] if end is None else [end], dtype=np.int64)])
    return prompt_ids(tokenizer, pair.document, sizes.document).astype(np.int32), target.astype(np.int32)


def refuse_shared(train: Sequence[Pair], held_out: Sequence[Pair]) -> None:
    """Refuse to train on a document that is measured on.

    Raises:
        UserError: a document is in both, compared by its first thousand characters without white space.
    """

    def first_words(pair: Pair) -> str:
        return "".join(pair.document.split())[:1000]

    measured = {first_words(pair): pair.name for pair in held_out}
    shared = [(pair.name, measured[first_words(pair)]) for pair in train if first_words(pair) in measured]
    if shared:
        raise UserError(
            f"what is measured must not be trained on, but {counted(len(shared), 'document')} {'is' if len(shared) == 1 else 'are'} in both ({shared[0][0]} is "
            f"{shared[0][1]}, …); take them out of --train"
        )
