"""Best-fit packing: documents stay whole, and windows are filled with those that fit best (Ding et al. 2024, arXiv 2404.10830).

in   a `TokenCorpus`, a window W and a length L ≤ W, in tokens
out  `FittedBlocks`: rows of W // L bins, each with whole documents of at most L tokens together, and padding that is not scored

Four documents of 3, 5, 2 and 9 tokens and W = L = 5; a document longer than a bin is cut into full ones and a rest:

    bin 0  d d d d d   bin 1  d d d d .   bin 2  b b b b b   bin 3  a a a c c

A text's last token in a bin predicts the text's next one if there is one, else nothing. A conversation is cut where an answer ends; what
follows there is left out, and one whose first answer does not fit is left out: both are counted and warned of.
"""

from __future__ import annotations

import bisect
import hashlib
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int64

from ropewalk.data.chat_tokens import MAY_CUT, SCORED
from ropewalk.data.packing import IGNORED, Blocks, Places, Rows, order
from ropewalk.data.token_corpus import TokenCorpus
from ropewalk.errors import UserError

#: Where pieces begin and end in a corpus, and where what they predict ends.
_Pieces = Int64[np.ndarray, "pieces 3"]


class FittedBlocks:
    """Documents packed whole, as `data.packing.TrainingRows`. Conversations never see each other, whether documents are masked or not.

    Raises:
        UserError: no document is as long as the length, as `PackedBlocks` has it, conversations excepted; nothing is left to read.
    """

    def __init__(
        self, tokens: TokenCorpus, window: int, *, length: int | None = None, allow_short: bool = False
    ) -> None:
        self.tokens, self.window, self.length = tokens, window, min(length or window, window)
        self.restarts = tokens.marks is not None or self.length < window
        if not allow_short and tokens.marks is None and tokens.longest < self.length:
            raise UserError(
                f"training at a window of {self.length} tokens needs documents that long, but the longest of {len(tokens.names)} has "
                f"{tokens.longest}; give longer documents, ask for a shorter window, or pack short ones with --allow-short"
            )
        self._pieces, self._counts = _cut(tokens, self.length)
        self._bins = best_fit(self._sizes.tolist(), self.length)
        self._bins_a_row = window // self.length

    @property
    def _sizes(self) -> Int64[np.ndarray, " pieces"]:
        return self._pieces[:, 1] - self._pieces[:, 0]

    @property
    def digest(self) -> str:
        """That of the corpus, and that it is packed in this way; more of a stream is packed in another way."""
        return hashlib.sha256(
            f"best-fit {self.length} {self.tokens.digest} {len(self.tokens.ids)}".encode()
        ).hexdigest()

    @property
    def left_out(self) -> int:
        """Tokens of conversations that are in no row: those behind the last answer that fits, and whole ones."""
        return len(self.tokens.ids) - int(self._sizes.sum())

    @property
    def filled(self) -> float:
        """The share of the rows' tokens that is no padding."""
        return float(self._sizes.sum()) / (len(self) * self.window)

    def order(self, seed: int, places: Places) -> Blocks:
        """A permutation of the rows for every pass, of a stream too, whose documents are in another order already."""
        return order(seed, places, len(self))

    def __len__(self) -> int:
        return -(-len(self._bins) // self._bins_a_row)

    def names(self, block: int) -> list[str]:
        """The documents that a row reads from."""
        starts = [self._pieces[piece, 0] for _, piece in self._placed(block)]
        return [self.tokens.names[n - 1] for n in np.searchsorted(self.tokens.starts, starts, side="right")]

    def counted(self, blocks: Blocks, *, mask_documents: bool = False) -> int:
        """How many labels of these rows are scored."""
        return sum(int(self._counts[piece]) for block in blocks for _, piece in self._placed(int(block)))

    def rows(self, blocks: Blocks, *, mask_documents: bool = False) -> dict[str, Rows]:
        """As `TrainingRows` has them, (blocks, W)."""
        ids = np.zeros((len(blocks), self.window), dtype=np.int64)
        labels = np.full_like(ids, IGNORED)
        # Padding is like a document of its own: where masks follow from positions, nothing that is read attends to it.
        positions = np.broadcast_to(np.arange(self.window) % self.length, ids.shape).astype(np.int64)
        weights = np.ones(ids.shape, dtype=np.float32)
        for row, block in enumerate(blocks):
            for at, piece in self._placed(int(block)):
                start, stop, last = self._pieces[piece].tolist()
                size, scored = stop - start, self._labels(start + 1, last)
                if self.tokens.weights is not None:
                    weights[row, at : at + size] = self.tokens.weights_at(np.array([start]))
                ids[row, at : at + size] = self.tokens.ids[start:stop]
                labels[row, at : at + len(scored)] = scored
                if mask_documents or self.restarts:
                    positions[row, at : at + size] = np.arange(size)
                    rest = self.length - at % self.length - size
                    positions[row, at + size : at + size + rest] = np.arange(rest)
        rows = {"input_ids": ids, "labels": labels, "position_ids": positions}
        return rows if self.tokens.weights is None else {**rows, "weights": weights}

    def _labels(self, first: int, last: int) -> Int64[np.ndarray, " labels"]:
        """The tokens first .. last - 1, IGNORED where they are no answer's."""
        labels = self.tokens.ids[first:last].astype(np.int64)
        if self.tokens.marks is not None:
            labels[self.tokens.marks[first:last] & SCORED == 0] = IGNORED
        return labels

    def _placed(self, block: int) -> Iterator[tuple[int, int]]:
        """Where in a row each of its pieces begins, and the piece's number."""
        for number, pieces in enumerate(self._bins[block * self._bins_a_row : (block + 1) * self._bins_a_row]):
            at = number * self.length
            for piece in pieces:
                yield at, piece
                at += int(self._sizes[piece])


def best_fit(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Bins of numbers of pieces: the longest piece first, each into the fullest bin that has room for it (best-fit decreasing)."""
    bins: list[list[int]] = []
    by_room: dict[int, list[int]] = {}  # what is left in a bin → such bins
    rooms: list[int] = []  # its keys, sorted
    for piece in sorted(range(len(sizes)), key=lambda piece: -sizes[piece]):
        at = bisect.bisect_left(rooms, sizes[piece])
        if at < len(rooms):
            room = rooms[at]
            chosen = by_room[room].pop()
            if not by_room[room]:
                del by_room[room], rooms[at]
        else:
            room, chosen = capacity, len(bins)
            bins.append([])
        bins[chosen].append(piece)
        if left := room - sizes[piece]:
            if left not in by_room:
                bisect.insort(rooms, left)
            by_room.setdefault(left, []).append(chosen)
    return bins


def _cut(tokens: TokenCorpus, length: int) -> tuple[_Pieces, Int64[np.ndarray, " pieces"]]:
    """Documents as pieces of at most `length` tokens, and how many labels of each are scored; pieces without any are left out."""
    pieces: list[tuple[int, int, int]] = []
    counts: list[int] = []
    shortened = left_out = 0
    for start, stop in zip(tokens.starts[:-1].tolist(), tokens.starts[1:].tolist(), strict=True):
        marks = None if tokens.marks is None else np.asarray(tokens.marks[start:stop])
        if marks is None or (marks & MAY_CUT).all():
            for begins in range(start, stop, length):
                ends = min(begins + length, stop)
                pieces.append((begins, ends, min(ends + 1, stop)))
                counts.append(pieces[-1][2] - begins - 1)
            continue
        (ends_of_answers,) = np.nonzero(marks & MAY_CUT)
        fitting = ends_of_answers[ends_of_answers < length]
        end = int(fitting.max(initial=-1)) + 1
        scored = int(np.count_nonzero(marks[1:end] & SCORED))
        shortened += bool(scored) and len(fitting) < len(ends_of_answers)
        left_out += not scored
        pieces.append((start, start + end, start + end))
        counts.append(scored)
    _tell(tokens, length, shortened, left_out)
    kept = [number for number, count in enumerate(counts) if count > 0]
    if not kept:
        raise UserError(
            f"training needs text of at least 2 tokens, or answers that fit a window of {length} tokens, and none of {len(tokens.names)} "
            "documents has any; give others, or ask for a longer window"
        )
    return np.array(pieces, dtype=np.int64)[kept], np.array(counts, dtype=np.int64)[kept]


def _tell(tokens: TokenCorpus, length: int, shortened: int, left_out: int) -> None:
    if shortened or left_out:
        warnings.warn(
            f"of {len(tokens.names)} conversations, {shortened} are longer than {length} tokens and end after the last answer that fits, "
            f"{left_out} are left out since not even their first answer does",
            stacklevel=5,
        )
