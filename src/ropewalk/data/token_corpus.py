"""A tokenised corpus on disk: written once using all cores, never held in memory.

in   documents and an encoder; or the directory in which they lie as tokens
out  `TokenCorpus`: every document's ids end to end, BOS before and EOS after each, as a memory map

It carries a hash of its own content; one that does not match is not read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64, Integer, UInt8

from ropewalk.checkpoint.files import whole_directory_of_ours
from ropewalk.data.chat_tokens import MAY_CUT, SCORED, Gaps, Marks, refusing_all
from ropewalk.data.corpus_encoder import Encoder, Text
from ropewalk.data.encode import telling_spelled
from ropewalk.data.remarks import Remarks
from ropewalk.data.scores import Chosen
from ropewalk.errors import UserError, read_text, refuse_irregular
from ropewalk.progress import Progress, is_first_process

_logger = logging.getLogger(__name__)
#: Of the files, and of which rows are read; part of a corpus's name in the cache.
FORMAT = 9
#: Characters that are tokenised at once, on four cores; documents are spread over cores whole, so that more cores need more of them.
_BATCH_CHARACTERS = 4_000_000
_HASHED_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class TokenCorpus:
    """A tokenised corpus.

    Attributes:
        ids: every document's token ids end to end, (tokens,), uint16 or uint32; usually a memory map.
        starts: where each document begins in `ids`, and at the end where the last one ends, (documents + 1,).
        names: of the documents.
        digest: a hash of the tokens: equal for equal text, tokenizer and reading order, whatever the files are called. Of a
            stream, the hash of its first document, since how far it is read depends on the run's length.
        streamed: whether these are the first tokens of a longer stream; training then reads them in the stream's order.
        marks: (tokens,) SCORED | MAY_CUT of chat_tokens.py, where some documents are conversations; None where all are text.
        weights: (documents,) how much each counts; None where all count once.
    """

    ids: Integer[np.ndarray, " tokens"]
    starts: Integer[np.ndarray, " ends"]
    names: list[str]
    digest: str
    streamed: bool = False
    marks: UInt8[np.ndarray, " tokens"] | None = None
    weights: Float32[np.ndarray, " documents"] | None = None

    @property
    def lengths(self) -> Int64[np.ndarray, " documents"]:
        """Tokens of each document, BOS and EOS included."""
        return np.diff(self.starts)

    def weights_at(self, places: Int64[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
        """How much the tokens at these places count."""
        assert self.weights is not None
        return self.weights[np.searchsorted(self.starts, places, side="right") - 1]

    @property
    def longest(self) -> int:
        """Tokens of the longest document, BOS and EOS included."""
        return int(self.lengths.max())


def read_corpus(place: Path, streamed: bool, *, repeat: bool = False) -> TokenCorpus | None:
    """The corpus that lies there, or None if there is none or its hash is wrong (which is warned of). repeat: say again what was said of its texts."""
    if not place.is_dir():
        return None
    try:
        about = json.loads(read_text(place / "about.json"))
        ids = _mapped(place / "ids.bin", about["dtype"], "tokens are kept in a file")
        starts, names, digest = about["starts"], about["names"], about["digest"]
        if _digest(ids, starts) != digest or sha256_of(json.dumps(names)) != about["names_digest"]:
            raise ValueError("its hash is not the one it was written with")
        marks = None
        if about["marks"] is not None:
            marks = _mapped(place / "marks.bin", np.uint8, "marks are kept in a file")
            if hashlib.sha256(marks.data).hexdigest() != about["marks"] or len(marks) != len(ids):
                raise ValueError("its marks are not those it was written with")
        weights = np.array(about["weights"], dtype=np.float32) if about.get("weights") else None
        if streamed:
            digest = _digest(ids[: starts[1]], starts[:2])
        elif marks is not None:
            digest = sha256_of(f"{digest} {about['marks']}")
        if weights is not None:
            digest = sha256_of(f"{digest} weighed {weights[: 1 if streamed else None].tolist()}")
        for sentence in about.get("remarks", []) if repeat and is_first_process() else []:
            _logger.info("%s", sentence)
        return TokenCorpus(ids, np.array(starts, dtype=np.int64), names, digest, streamed, marks, weights)
    except (OSError, ValueError, KeyError, TypeError) as error:
        warnings.warn(f"the tokens kept in {place} are damaged ({error}); they are made again", stacklevel=3)
        return None


def _mapped(path: Path, dtype: Any, otherwise: str) -> np.ndarray:
    refuse_irregular(path, otherwise)
    return np.memmap(path, dtype=dtype, mode="r")


def sha256_of(text: str) -> str:
    """In hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _digest(ids: Integer[np.ndarray, " tokens"], starts: list[int]) -> str:
    digest = hashlib.sha256(json.dumps([str(ids.dtype), starts]).encode())
    for start in range(0, len(ids), _HASHED_AT_ONCE):
        digest.update(np.ascontiguousarray(ids[start : start + _HASHED_AT_ONCE]).data)
    return digest.hexdigest()


def write_corpus(
    place: Path, documents: Iterable[Text], encoder: Encoder, *, limit: int | None, chosen: Chosen | None, source: str
) -> None:
    """Tokenise batch by batch into a directory that appears complete or not at all. source: what the documents are called where none is left."""
    starts, names, weights, talks = [0], [], [], 0
    if not encoder.control:
        documents = telling_spelled(encoder.tokenizer, documents, ": --live-control-tokens")
    documents, gaps = iter(documents), Gaps()
    refusing = refusing_all(encoder.tokenizer, documents, loss=encoder.loss)
    with Remarks() as remarks, whole_directory_of_ours(place) as beside, Progress("tokenising", limit) as advance:
        with open(beside / "ids.bin", "wb") as file, open(beside / "marks.bin", "wb") as marked_file, refusing:
            for batch in _batches(documents, _BATCH_CHARACTERS if limit else _BATCH_CHARACTERS * _fours_of_cores()):
                before = starts[-1]
                for document, ids, marks in encoder.encode(batch, gaps):
                    file.write(encoder.stored(ids, document.name).tobytes())
                    if marks is not None and not talks:
                        marked_file.write(_of_text(starts[-1]).tobytes())
                    talks += marks is not None
                    if talks:
                        marked_file.write((_of_text(len(ids)) if marks is None else marks).tobytes())
                    starts.append(starts[-1] + len(ids))
                    names.append(document.name)
                    weights += [] if chosen is None or chosen.weights is None else [chosen.weight(document)]
                advance(starts[-1] - before, f"tokenising: {len(names):,} documents, {starts[-1]:,} tokens")
                if limit is not None and starts[-1] > limit:
                    break
        gaps.tell(encoder.tokenizer, encoder.loss)
        if not names:
            least = (
                ""
                if chosen is None
                else f", which are ranked over all sources (the least that is kept gains {chosen.least:.3g} nats a token)"
            )
            raise UserError(
                f"training needs at least one document of each source, and all of {source} are left out by their scores{least}; ask for a larger --keep, or leave that source out"
            )
        ids = np.memmap(beside / "ids.bin", dtype=encoder.dtype, mode="r")
        digests = {"digest": _digest(ids, starts), "names_digest": sha256_of(json.dumps(names))}
        marked = hashlib.sha256(np.memmap(beside / "marks.bin", np.uint8, "r").data).hexdigest() if talks else None
        about = {"dtype": encoder.dtype.name, **digests, "marks": marked, "starts": starts, "names": names}
        about |= {"weights": weights or None, "remarks": remarks.sentences}
        (beside / "about.json").write_text(json.dumps(about), encoding="utf-8")


def _of_text(tokens: int) -> Marks:
    """Marks of what is no conversation: all of it is scored, and it may be cut anywhere."""
    return np.full(tokens, SCORED | MAY_CUT, dtype=np.uint8)


def _fours_of_cores() -> int:
    """Not asked for a stream: where that is cut must not depend on the machine."""
    return max(1, (os.cpu_count() or 1) // 4)


def _batches(documents: Iterable[Text], largest: int) -> Iterator[list[Text]]:
    batch: list[Text] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if characters >= largest:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
