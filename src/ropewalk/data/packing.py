"""Training data: a corpus cut into blocks, read in an order known in advance.

in   a `TokenCorpus` (token_corpus.py) and a window W (a length, tokens)
out  `PackedBlocks`: blocks of W inputs and W labels; `order`: which blocks a step reads

Three documents of 3, 5 and 2 tokens, with BOS `<` and EOS `>` about each, and W = 4:

    ids      < a b c > < d e f g h > < i j >
    block 0  inputs < a b c   labels a b c >
    block 1  inputs > < d e   labels < d e f
    block 2  inputs f g h >   labels g h > <      and the rest, too short for a block, is left unread

Blocks overlap by one token, so every token but the first is predicted once. With a document mask, positions restart at each
document of a block, and a label that is the next document's first token is not scored.

No reading position is saved: block numbers are a pure function of (seed, step), so that a resumed run and a run on another
number of devices read the same data.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int, Int64, Integer

from ropewalk.data.token_corpus import TokenCorpus
from ropewalk.errors import UserError

#: Numbers of rows.
Blocks = Sequence[int] | Integer[np.ndarray, " blocks"]
#: Places of windows in all that a run reads, counted from 0: those of step s are s * batch … (s + 1) * batch - 1.
Places = Int[np.ndarray, " places"]
Rows = Int64[np.ndarray, "blocks window"] | Float32[np.ndarray, "blocks window"]

#: A label that is not scored (torch's and transformers' convention).
IGNORED = -100


@runtime_checkable
class TrainingRows(Protocol):
    """What the training loop reads: numbered rows of W inputs and W labels.

    `PackedBlocks` are such rows of running text; others may be made of anything (evals/downstream/pairs.py).

    Attributes:
        window: W, tokens.
    """

    window: int

    @property
    def digest(self) -> str:
        """A hash of the data."""
        ...

    @property
    def restarts(self) -> bool:
        """Whether positions begin again within a row, though documents are not asked to be masked."""
        ...

    def order(self, seed: int, places: Places) -> Blocks:
        """Which rows stand at these places of all that a run reads: a pure function, so that no reading position need be saved."""
        ...

    def __len__(self) -> int: ...

    def names(self, block: int) -> list[str]:
        """The documents that a row reads from, in order."""
        ...

    def counted(self, blocks: Blocks, *, mask_documents: bool = False) -> int:
        """How many labels of these rows are scored."""
        ...

    def rows(self, blocks: Blocks, *, mask_documents: bool = False) -> dict[str, Rows]:
        """`input_ids`, `labels` and `position_ids`, int64; `weights` of the labels too, float32, where the data have some."""
        ...


class PackedBlocks:
    """A corpus as blocks of W inputs and the W labels that follow them.

    Args:
        length: positions begin again, and attention ends, after so many tokens of a block: its tokens stand where they would in a window
            of that length.

    Raises:
        UserError: there are fewer tokens than one block needs.
    """

    def __init__(self, tokens: TokenCorpus, window: int, *, length: int | None = None) -> None:
        if len(tokens.ids) <= window:
            raise UserError(
                f"one window of {window} tokens and its last label need {window + 1} tokens, but the documents have "
                f"{len(tokens.ids)} in all; give more text or a shorter window"
            )
        self.tokens = tokens
        self.window = window
        self.length = min(length or window, window)

    @property
    def digest(self) -> str:
        """That of the corpus."""
        return self.tokens.digest

    @property
    def restarts(self) -> bool:
        """Where a block is longer than a length."""
        return self.length < self.window

    def order(self, seed: int, places: Places) -> Blocks:
        """A permutation of the blocks for every pass; the order of a stream is its own."""
        return order(seed, places, len(self), shuffled=not self.tokens.streamed)

    def __len__(self) -> int:
        return (len(self.tokens.ids) - 1) // self.window

    def names(self, block: int) -> list[str]:
        """The documents that a block reads from, in order."""
        first, last = self._documents(block)
        return self.tokens.names[first : last + 1]

    def _documents(self, block: int) -> tuple[int, int]:
        """Numbers of the first and the last document that a block reads inputs from."""
        start = block * self.window
        first, last = np.searchsorted(self.tokens.starts, [start, start + self.window - 1], side="right") - 1
        return int(first), int(last)

    def counted(self, blocks: Blocks, *, mask_documents: bool = False) -> int:
        """How many labels of these blocks are scored, without building them."""
        if not mask_documents:
            return len(blocks) * self.window
        starts = np.asarray(blocks, dtype=np.int64) * self.window
        # A document that starts at one of a block's labels has its first token masked there.
        started = np.searchsorted(self.tokens.starts[:-1], [starts, starts + self.window], side="right")
        return int(self.window * len(starts) - (started[1] - started[0]).sum())

    def rows(self, blocks: Blocks, *, mask_documents: bool = False) -> dict[str, Rows]:
        """`input_ids`, `labels` and `position_ids`, each int64 (blocks, W).

        Args:
            blocks: their numbers, 0 .. len - 1.
            mask_documents: positions restart at 0 with each document, from which transformers concludes that attention
                ends there; a label across that border is IGNORED.
        """
        w = self.window
        ids = np.stack([self.tokens.ids[b * w : b * w + w + 1] for b in blocks]).astype(np.int64)
        positions = np.broadcast_to(np.arange(w, dtype=np.int64) % self.length, (len(blocks), w)).copy()
        labels = ids[:, 1:].copy()
        if mask_documents:
            for row, block in enumerate(map(int, blocks)):
                first, last = self._documents(block)
                for start in self.tokens.starts[first + 1 : last + 1] - block * w:
                    positions[row, start:] = np.arange(w - start) % self.length
                    labels[row, start - 1] = IGNORED
                if self.tokens.starts[last + 1] == (block + 1) * w:
                    labels[row, -1] = IGNORED
        rows = {"input_ids": np.ascontiguousarray(ids[:, :-1]), "labels": labels, "position_ids": positions}
        if self.tokens.weights is not None:
            places = np.asarray(blocks, dtype=np.int64)[:, None] * w + np.arange(1, w + 1)
            rows["weights"] = self.tokens.weights_at(places)
        return rows


def order(seed: int, places: Places, count: int, *, shuffled: bool = True) -> Places:
    """Which of `count` blocks stand at these places of a run: a pure function. Every pass is a new permutation of the blocks."""
    passes, within = np.divmod(places, count)
    if not shuffled:
        return within
    return np.array([_permutation(seed, int(number), count)[w] for number, w in zip(passes, within, strict=True)])


@functools.lru_cache(maxsize=16)
def _permutation(seed: int, number: int, count: int) -> Int[np.ndarray, " count"]:
    return np.random.default_rng([seed, number]).permutation(count)
