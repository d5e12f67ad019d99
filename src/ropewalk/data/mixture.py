"""Several sources in one run, each with its share of the windows.

in   rows of each source (`TrainingRows` of one window), and their weights
out  `Mixture`: rows of all of them; which stands where is a pure function of the place

Weights 0.5, 0.25 and 0.25 read a b a c a b a c …: after any number of windows, none is more than one or two away from its share.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from ropewalk.data.best_fit import FittedBlocks
from ropewalk.data.packing import Blocks, Places, Rows, TrainingRows
from ropewalk.data.token_corpus import TokenCorpus
from ropewalk.sentences import counted


@dataclass(frozen=True)
class Part:
    """One source of a mixture.

    Attributes:
        name: what messages and records call it.
        rows: of the run's window.
        share: of all windows; the shares of a mixture add up to 1.
        length: tokens after which positions begin again.
        tokens: all of it.
    """

    name: str
    rows: TrainingRows
    share: float
    length: int
    tokens: TokenCorpus

    def scored(self, read: int, seed: int, *, mask_documents: bool) -> int:
        """How many labels are scored in the first so many of its windows that a run reads; whole passes are counted once."""
        passes, rest = divmod(read, len(self.rows))
        count = functools.partial(self.rows.counted, mask_documents=mask_documents)
        whole = passes * count(range(len(self.rows))) if passes else 0
        return whole + (count(self.rows.order(seed, np.arange(read - rest, read))) if rest else 0)

    def long_share(self, least: int) -> float:
        """The share of the tokens that are read which stand in texts of at least so many: documents, or what is read of a conversation."""
        lengths = self.rows.lengths if isinstance(self.rows, FittedBlocks) else self.tokens.lengths
        return float(lengths[lengths >= least].sum() / lengths.sum()) if self.length >= least else 0.0


@dataclass(frozen=True)
class Reading:
    """What a run reads of a source, as it is said and as it stands on record.

    Attributes:
        tokens: that the source has.
        windows: that it makes.
        length: tokens after which positions begin again.
        share: of all windows that the run reads, to six digits.
        passes: how many times over what is in the windows is read.
        left_out: tokens of the source that are in no window, since an answer does not fit one.
        spread_over: in mode pose, the long window over whose positions those of a short one are spread.
        scored_share: of all tokens that the run scores, to six digits: what it has of the loss. None where nothing is packed yet.
    """

    source: str
    tokens: int
    windows: int
    length: int
    share: float
    passes: float
    left_out: int = 0
    spread_over: int | None = None
    scored_share: float | None = None

    def __str__(self) -> str:
        kind, where = "window", f"with positions up to {self.length}"
        if self.spread_over:
            kind = "chunk"
            where = f"of {counted(self.length, 'token')}, their positions spread over those of a window of {self.spread_over}"
        part = f"{self.passes:.0%}" if self.passes >= 0.01 else "under 1%"
        times = f"each is read {self.passes:.1f} times" if self.passes > 1 else f"{part} of them are read"
        share = f", {self._shares(kind)}" if round(self.share, 3) < 1 else ""
        left_out = f", {self.left_out:,} of them left out, the rest" if self.left_out else ""
        return f"{self.source}: {self.tokens:,} tokens{left_out} in {counted(self.windows, kind, ',')} {where}; {times}{share}"

    def _shares(self, kind: str) -> str:
        windows, scored = f"{self.share:.1%}", "" if self.scored_share is None else f"{self.scored_share:.1%}"
        if scored == windows:
            return f"{windows} of all that is read"
        return f"{windows} of all {kind}s{f' and {scored} of the scored tokens' * bool(scored)}"


def readings_of(
    parts: Sequence[Part], windows: int, seed: int, *, mask_documents: bool, spread_over: int | None = None
) -> tuple[Reading, ...]:
    """What a run of so many windows reads of each source, counted over all of them; spread_over as in `Reading`."""
    sources, _ = taken(tuple(part.share for part in parts), windows)
    read = np.bincount(sources[:windows], minlength=len(parts)).tolist()
    scored = [part.scored(count, seed, mask_documents=mask_documents) for part, count in zip(parts, read, strict=True)]
    return tuple(
        Reading(
            part.name,
            len(part.tokens.ids),
            len(part.rows),
            part.length,
            round(count / windows, 6),
            count / len(part.rows),
            part.rows.left_out if isinstance(part.rows, FittedBlocks) else 0,
            spread_over,
            round(labels / max(1, sum(scored)), 6),
        )
        for part, count, labels in zip(parts, read, scored, strict=True)
    )


class Mixture:
    """Rows of several sources as one `data.packing.TrainingRows`; those of the first source are numbered first."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = list(parts)
        self.window = parts[0].rows.window
        self.restarts = any(part.rows.restarts for part in parts)
        self._first = np.cumsum([0, *(len(part.rows) for part in parts)])

    @property
    def digest(self) -> str:
        """Of the sources' data, weights and lengths."""
        each = [f"{part.rows.digest} {part.share!r} {part.length}" for part in self.parts]
        return hashlib.sha256("\n".join(each).encode()).hexdigest()

    def __len__(self) -> int:
        return int(self._first[-1])

    def order(self, seed: int, places: Places) -> Blocks:
        """The k-th window of a source is the k-th of its own order, whatever the others are."""
        sources, ordinals = taken(tuple(part.share for part in self.parts), int(np.max(places, initial=-1)) + 1)
        ordered = np.zeros(len(places), dtype=np.int64)
        for number, part in enumerate(self.parts):
            (mine,) = np.nonzero(sources[places] == number)
            if len(mine):
                own = part.rows.order(seed, ordinals[places[mine]])
                ordered[mine] = self._first[number] + np.asarray(own, dtype=np.int64)
        return ordered

    def names(self, block: int) -> list[str]:
        """The documents that a row reads from."""
        part, within = self._part_of(block)
        return part.rows.names(within)

    def counted(self, blocks: Blocks, *, mask_documents: bool = False) -> int:
        """How many labels of these rows are scored."""
        parts = map(self._part_of, map(int, blocks))
        return sum(part.rows.counted([within], mask_documents=mask_documents) for part, within in parts)

    def rows(self, blocks: Blocks, *, mask_documents: bool = False) -> dict[str, Rows]:
        """As `TrainingRows` has them, (blocks, W)."""
        parts = map(self._part_of, map(int, blocks))
        each = [part.rows.rows([within], mask_documents=mask_documents) for part, within in parts]
        return {name: np.concatenate([row[name] for row in each]) for name in each[0]}

    def _part_of(self, block: int) -> tuple[Part, int]:
        number = int(np.searchsorted(self._first, block, side="right")) - 1
        return self.parts[number], block - int(self._first[number])


def taken(shares: tuple[float, ...], count: int) -> tuple[Int[np.ndarray, " places"], Int[np.ndarray, " places"]]:
    """For places 0 .. count - 1, or some more: which source each is read from, and how many of that source's came before."""
    return _taken(shares, 1 << max(10, count.bit_length()))  # few lengths, so that what is kept serves many steps


@functools.lru_cache(maxsize=4)
def _taken(shares: tuple[float, ...], count: int) -> tuple[Int[np.ndarray, " places"], Int[np.ndarray, " places"]]:
    """Source s has its k-th window when (k + 1/2) / share_s windows have been read in all, as nearly as there is room."""
    each = [int(np.ceil(count * share)) + len(shares) + 1 for share in shares]
    sources = np.repeat(np.arange(len(shares)), each)
    ordinals = np.concatenate([np.arange(number) for number in each])
    due = (ordinals + 0.5) / np.array(shares)[sources]
    places = np.argsort(due, kind="stable")[:count]
    return sources[places], ordinals[places]
