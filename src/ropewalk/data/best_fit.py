"""Best-fit packing: documents stay whole, and windows are filled with those that fit best (Ding et al. 2024, arXiv 2404.10830).

in   a `TokenCorpus`, a window W and a length L ≤ W, in tokens
out  `FittedBlocks`: rows of W // L bins, each with whole documents of at most L tokens together, and padding that is not scored

Four documents of 3, 5, 2 and 9 tokens and W = L = 5; a document longer than a bin is cut into full ones and a rest:

    bin 0  d d d d d   bin 1  d d d d .   bin 2  b b b b b   bin 3  a a a c c

A text's last token in a bin predicts the text's next one if there is one, else nothing. A conversation is cut where an answer ends; what
follows there is left out, and one whose first answer does not fit is left out: `Omitted` counts both.
"""

from __future__ import annotations

import bisect
import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int64

from ropewalk.data.chat_tokens import MAY_CUT, SCORED
from ropewalk.data.packing import IGNORED, Blocks, Places, Rows, order
from ropewalk.data.token_corpus import TokenCorpus
from ropewalk.errors import UserError

#: Where pieces begin and end in a corpus, and where what they predict ends.
_Pieces = Int64[np.ndarray, "pieces 3"]


@dataclass(frozen=True)
class Cut:
    """A conversation that is not read to its last answer.

    Attributes:
        tokens: of all of it.
        read: tokens that are; 0 where it is left out, since not even its first answer fits.
        ends: (answers,) tokens up to the end of each answer that there is something to learn from.
    """

    tokens: int
    read: int
    ends: Int64[np.ndarray, " answers"]

    def read_at(self, length: int) -> int:
        """Tokens that would be read in bins of so many."""
        return int(self.ends[self.ends <= length].max(initial=0))


@dataclass(frozen=True)
class Omitted:
    """What of the conversations of a corpus is in no row. conversations, tokens: all there are. cut: those that are not read to their last answer."""

    conversations: int
    tokens: int
    cut: list[Cut]

    @property
    def whole(self) -> int:
        """Conversations that are left out."""
        return sum(not each.read for each in self.cut)

    @property
    def left_out(self) -> int:
        """Tokens of all that are cut or left out."""
        return sum(each.tokens - each.read for each in self.cut)

    def at(self, length: int) -> Omitted:
        """In bins of so many tokens, more than now."""
        longer = [replace(each, read=each.read_at(length)) for each in self.cut]
        return replace(self, cut=[each for each in longer if each.read < each.read_at(each.tokens)])

    def enough(self, length: int, most: int) -> int | None:
        """The smallest multiple of a length, up to `most`, at which at most half as many tokens are left out; None where there is none."""
        lengths = range(2 * length, most + 1, length)
        # The longer the bins, the less is left out.
        at = bisect.bisect_left(lengths, True, key=lambda length: 2 * self.at(length).left_out <= self.left_out)
        return lengths[at] if at < len(lengths) else None

    def best(self, length: int, most: int) -> int:
        """The smallest length up to `most` at which nothing more is left out than at that, in multiples of `length` or, if it is longer, of 1024."""
        ends, step = max(each.read_at(most) for each in self.cut), min(length, 1024)
        return min(most, -(-ends // step) * step)


class FittedBlocks:
    """Documents packed whole, as `data.packing.TrainingRows`. Conversations never see each other, whether documents are masked or not.

    Args:
        option: what a user says the length by.

    Raises:
        UserError: nothing is left to read.
    """

    def __init__(
        self, tokens: TokenCorpus, window: int, *, length: int | None = None, option: str = "--window"
    ) -> None:
        self.tokens, self.window, self.length = tokens, window, min(length or window, window)
        self.restarts = tokens.marks is not None or self.length < window
        self._pieces, self._counts, self.omitted = _cut(tokens, self.length)
        if not len(self._pieces):
            raise UserError(
                f"training needs text of at least 2 tokens, or answers that fit a window of {self.length} tokens, and none of {len(tokens.names)} "
                f"documents has any{_shortest_that_fits(self.omitted)}; give others, or ask for a longer {option}"
            )
        self._bins = best_fit(self._sizes.tolist(), self.length)
        self._bins_a_row = window // self.length

    @functools.cached_property
    def _sizes(self) -> Int64[np.ndarray, " pieces"]:
        return self._pieces[:, 1] - self._pieces[:, 0]

    @property
    def lengths(self) -> Int64[np.ndarray, " pieces"]:
        """Tokens of each stretch of text or of a conversation that is read whole."""
        return self._sizes

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


def _cut(tokens: TokenCorpus, length: int) -> tuple[_Pieces, Int64[np.ndarray, " pieces"], Omitted]:
    """Documents as pieces of at most `length` tokens, how many labels of each are scored, and what of conversations is left out; pieces without labels are."""
    pieces: list[tuple[int, int, int]] = []
    counts: list[int] = []
    conversations, in_conversations, cut = 0, 0, list[Cut]()
    for start, stop in zip(tokens.starts[:-1].tolist(), tokens.starts[1:].tolist(), strict=True):
        marks = None if tokens.marks is None else np.asarray(tokens.marks[start:stop])
        if marks is None or (marks & MAY_CUT).all():
            for begins in range(start, stop, length):
                ends = min(begins + length, stop)
                pieces.append((begins, ends, min(ends + 1, stop)))
                counts.append(pieces[-1][2] - begins - 1)
            continue
        if not (marks & SCORED).any():  # no length would help; whoever made the tokens told of it
            continue
        answers = np.flatnonzero(marks & MAY_CUT) + 1
        end = int(answers[answers <= length].max(initial=0))
        scored = int(np.count_nonzero(marks[1:end] & SCORED))
        conversations, in_conversations = conversations + 1, in_conversations + stop - start
        if not scored or end < answers[-1]:
            first = np.flatnonzero(marks & SCORED).min(initial=len(marks))
            cut.append(Cut(stop - start, end if scored else 0, answers[answers > first]))
        pieces.append((start, start + end, start + end))
        counts.append(scored)
    kept = [number for number, count in enumerate(counts) if count > 0]
    omitted = Omitted(conversations, in_conversations, cut)
    return np.array(pieces, dtype=np.int64).reshape(-1, 3)[kept], np.array(counts, dtype=np.int64)[kept], omitted


def _shortest_that_fits(omitted: Omitted) -> str:
    first = min((int(each.ends[0]) for each in omitted.cut if len(each.ends)), default=0)
    return f" (the first answer that there is ends after {first} tokens)" * bool(first)
