"""Positional skip-wise training: the short window in memory, the long window in the positions (PoSE, arXiv 2309.10400).

in   (seed, number of the sequence), the short window T and the long one L'; where a sequence is packed, the lengths of its documents
out  T positions in 0 .. L' - 1 with one jump, by which the second part of the sequence is moved away from the first; of a packed one so for each document

    T = 8, L' = 32:   0 1 2 | 21 22 23 24 25        cut after 3, skip 18

The paper cuts the window into N = 2 chunks (its section 3, "Positional Skip-wise Training") and draws the length and the skip anew
for every sequence. As in its authors' code (dwzhu-pku/PoSE, src/train_pose.py) the cut is uniform in 1 .. (T + 1) // 2, so that the part
that is moved is never the shorter one, and the skip uniform in 0 .. L' - T, all ends included: each distance up to L' - 1 can
occur, and none beyond. Unlike there, the text of the two chunks stays contiguous (the paper's variant v_i = 0).
"""

from __future__ import annotations

import itertools

import numpy as np
from jaxtyping import Int

# Keeps these draws apart from the ones that shuffle the data with the same seed.
_STREAM = 0x905E


def positions(seed: int, sequence: int, short: int, long: int) -> Int[np.ndarray, " short"]:
    """The positions of sequence number `sequence` of a run: a pure function, like the order of the data."""
    return in_documents(seed, sequence, np.arange(short, dtype=np.int64), long)


def in_documents(seed: int, sequence: int, plain: Int[np.ndarray, " tokens"], long: int) -> Int[np.ndarray, " tokens"]:
    """The same of a packed sequence. plain: its positions as they are, which begin again at 0 with each document."""
    draw = np.random.default_rng([seed, _STREAM, sequence])
    borders = [*np.flatnonzero(plain == 0).tolist(), len(plain)]
    skipped = plain.copy()
    for start, stop in itertools.pairwise(borders):
        tokens = stop - start
        if tokens > 1 and long > tokens:
            cut = start + draw.integers(1, (tokens + 1) // 2, endpoint=True)
            skipped[cut:stop] += draw.integers(0, long - tokens, endpoint=True)
    return skipped
