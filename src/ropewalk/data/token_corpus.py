"""A tokenised corpus: written once using all cores, cached on disk by its content, never held in memory.

in   sources (documents.py) and a tokenizer
out  `TokenCorpus`: every document's ids end to end, BOS before and EOS after each, as a memory map

The cache key is a hash of the text, the tokenizer and the options, not of dates or paths. A cached corpus carries a hash of
its own content; if that does not match, it is written again.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Int64, Integer, UInt8
from transformers import PreTrainedTokenizerBase

from ropewalk.checkpoint.cache import cache_directory
from ropewalk.checkpoint.digests import digest_of
from ropewalk.checkpoint.files import whole_directory_of_ours
from ropewalk.data.chat_tokens import MAY_CUT, SCORED, Marks
from ropewalk.data.compression import damage_named
from ropewalk.data.corpus_encoder import Encoder, Text
from ropewalk.data.documents import files_of, kind_of, read_texts
from ropewalk.data.encode import telling_spelled
from ropewalk.data.reading import Document, Reading
from ropewalk.data.remarks import Remarks
from ropewalk.data.scores import Chosen
from ropewalk.data.text_size import TextSize, text_size
from ropewalk.errors import UserError, read_text, refuse_irregular
from ropewalk.progress import Progress, is_first_process

_logger = logging.getLogger(__name__)
_FORMAT = 6
#: Characters that are tokenised at once, on four cores; documents are spread over cores whole, so that more cores need more of them.
_BATCH_CHARACTERS = 4_000_000
_HASHED_AT_ONCE = 1 << 24

Sources = str | Path | Sequence[str | Path] | Sequence[Document]


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


@dataclass(frozen=True)
class Tokenising:
    """Documents that become a corpus, or are found in the cache as one.

    Attributes:
        sources: as `read_documents` takes them, or `Document`s.
        tokenizer: its BOS goes before each document if it puts one itself, its EOS after each.
        field: a row's field that holds the text.
        limit: tokens that are read of it. Reading stops there if one of the sources is a streamed data set, and the sources
            are then read in turn, a document of each, since a stream may never end; files are tokenised whole.
        seed: of the shuffling of streamed data sets.
        loss: what of a conversation is scored; where it is given, turns are read before the text of the same row.
        conversations: rows of turns are read, where they have no text beside them.
        control: control tokens that are spelled in a text are live; otherwise they are text, and are told of.
        chosen: documents that are not in it are left out, and the others count as it says.
    """

    sources: Sources
    tokenizer: PreTrainedTokenizerBase
    field: str | None = None
    limit: int | None = None
    seed: int = 0
    loss: Literal["answers", "all"] | None = None
    conversations: bool = False
    control: bool = False
    chosen: Chosen | None = None

    def corpus(self) -> TokenCorpus:
        """The corpus, from the cache or written into it.

        Raises:
            UserError: what `read_documents` raises.
        """
        corpus = _from_cache(self._place, self._streamed, repeat=True)
        if corpus is None:
            with Remarks.unsaid():  # they come while the texts are tokenised
                size = self._measured()
            if size is not None and size.is_long and is_first_process():
                _logger.info("%s", size.announced(self.limit))
            _write(self._place, self._texts(), self._encoder, limit=self.limit if self._streamed else None, chosen=self.chosen)  # fmt: skip
            corpus = _from_cache(self._place, self._streamed)
            if corpus is None:
                raise OSError(f"{self._place} changed while it was written")
        return corpus

    def long_size(self) -> TextSize | None:
        """How much text there is, estimated, where it takes long to tokenise and is not in the cache. Raises UserError as `corpus` does."""
        size = None if self._place.exists() else self._measured()
        return size if size is not None and size.is_long else None

    def _measured(self) -> TextSize | None:
        listed: Sequence[Any] = [self.sources] if isinstance(self.sources, str | Path) else self.sources
        if self._streamed or any(isinstance(source, Document) for source in listed):
            return None
        return text_size([file for source in listed for file in files_of(source)], self._texts(), self._encoder)

    def _texts(self) -> Iterator[Text]:
        documents = _documents(self.sources, self._reading, self.seed, in_turn=self._streamed)
        return documents if self.chosen is None else self.chosen.of(documents)

    @property
    def _reading(self) -> Reading:
        return Reading(self.field, "first" if self.loss else "also" if self.conversations else "never")

    @functools.cached_property
    def _encoder(self) -> Encoder:
        return Encoder(self.tokenizer, self.loss or "answers", self.control)

    @functools.cached_property
    def _streamed_and_key(self) -> tuple[bool, str]:
        how = [self._encoder.key, *dataclasses.astuple(self._reading), self.chosen and self.chosen.key]
        return _key(self.sources, how, self.limit, self.seed)

    @property
    def _streamed(self) -> bool:
        return self._streamed_and_key[0]

    @functools.cached_property
    def _place(self) -> Path:
        return _writable(cache_directory() / "tokens") / self._streamed_and_key[1]


def tokenise(sources: Sources, tokenizer: PreTrainedTokenizerBase, **options: Any) -> TokenCorpus:
    """The corpus of these sources; options as `Tokenising` has them."""
    return Tokenising(sources, tokenizer, **options).corpus()


def _documents(sources: Sources, reading: Reading, seed: int, *, in_turn: bool) -> Iterator[Text]:
    listed: list[Any] = [sources] if isinstance(sources, str | Path) else list(sources)
    if listed and isinstance(listed[0], Document):
        return iter(listed)
    if not in_turn:
        return read_texts(listed, reading, seed=seed)
    readers: list[Any] = [read_texts(source, reading, seed=seed) for source in listed]
    rounds = itertools.zip_longest(*readers)
    return (document for one_each in rounds for document in one_each if document is not None)


def _key(sources: Sources, how: list[Any], limit: int | None, seed: int) -> tuple[bool, str]:
    """Whether a source is streamed, and the cache key: a hash of all that decides the tokens (contents, not dates or paths)."""
    streamed = False
    parts: list[Any] = [_FORMAT, *how]
    listed: Sequence[Any] = [sources] if isinstance(sources, str | Path) else sources
    for source in listed:
        if isinstance(source, Document):
            parts.append([source.name, hashlib.sha256(source.text.encode("utf-8", "surrogatepass")).hexdigest()])
        elif kind_of(source) == "hub":
            streamed = True
            parts.append([str(source), limit, seed])
        else:
            root = Path(source)
            for path in files_of(source):
                with damage_named(path):
                    parts.append([str(path.relative_to(root.parent)), digest_of(path)])
    return streamed, hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _writable(directory: Path) -> Path:
    """The directory, or a temporary one if it cannot be written: a read-only home must not stop a run."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if os.access(directory, os.W_OK):
            return directory
    except OSError:
        pass
    temporary = Path(tempfile.mkdtemp(prefix="ropewalk-"))
    warnings.warn(f"{directory} cannot be written, so tokens go to {temporary} and are not kept", stacklevel=3)
    return temporary


def _from_cache(place: Path, streamed: bool, *, repeat: bool = False) -> TokenCorpus | None:
    """The corpus in the cache, or None if there is none or its hash is wrong (which is warned of). repeat: say again what was said of its texts."""
    if not place.is_dir():
        return None
    try:
        about = json.loads(read_text(place / "about.json"))
        refuse_irregular(place / "ids.bin", "tokens are kept in a file")
        ids = np.memmap(place / "ids.bin", dtype=about["dtype"], mode="r")
        starts, names, digest = about["starts"], about["names"], about["digest"]
        if _digest(ids, starts) != digest or _json_digest(names) != about["names_digest"]:
            raise ValueError("its hash is not the one it was written with")
        marks = None
        if about["marks"] is not None:
            refuse_irregular(place / "marks.bin", "marks are kept in a file")
            marks = np.memmap(place / "marks.bin", dtype=np.uint8, mode="r")
            if hashlib.sha256(marks.data).hexdigest() != about["marks"] or len(marks) != len(ids):
                raise ValueError("its marks are not those it was written with")
        weights = np.array(about["weights"], dtype=np.float32) if about.get("weights") else None
        if streamed:
            digest = _digest(ids[: starts[1]], starts[:2])
        elif marks is not None:
            digest = hashlib.sha256(f"{digest} {about['marks']}".encode()).hexdigest()
        if weights is not None:
            digest = hashlib.sha256(
                f"{digest} weighed {weights[: 1 if streamed else None].tolist()}".encode()
            ).hexdigest()
        for sentence in about.get("remarks", []) if repeat and is_first_process() else []:
            _logger.info("%s", sentence)
        return TokenCorpus(ids, np.array(starts, dtype=np.int64), names, digest, streamed, marks, weights)
    except (OSError, ValueError, KeyError, TypeError) as error:
        warnings.warn(f"the tokens kept in {place} are damaged ({error}); they are made again", stacklevel=3)
        return None


def _json_digest(names: list[str]) -> str:
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()


def _digest(ids: Integer[np.ndarray, " tokens"], starts: list[int]) -> str:
    digest = hashlib.sha256(json.dumps([str(ids.dtype), starts]).encode())
    for start in range(0, len(ids), _HASHED_AT_ONCE):
        digest.update(np.ascontiguousarray(ids[start : start + _HASHED_AT_ONCE]).data)
    return digest.hexdigest()


def _write(
    place: Path,
    documents: Iterable[Text],
    encoder: Encoder,
    *,
    limit: int | None,
    chosen: Chosen | None,
) -> None:
    """Tokenise batch by batch into a directory that appears complete or not at all."""
    starts, names, weights, talks = [0], [], [], 0
    if not encoder.control:
        documents = telling_spelled(encoder.tokenizer, documents, ": --live-control-tokens")
    with Remarks() as remarks, whole_directory_of_ours(place) as beside, Progress("tokenising", limit) as advance:
        with open(beside / "ids.bin", "wb") as file, open(beside / "marks.bin", "wb") as marked_file:
            for batch in _batches(documents, _BATCH_CHARACTERS if limit else _BATCH_CHARACTERS * _fours_of_cores()):
                before = starts[-1]
                for document, ids, marks in encoder.encode(batch):
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
        if not names:
            raise UserError(
                "training needs at least one document, and all are left out by their scores; ask for a larger --keep"
            )
        ids = np.memmap(beside / "ids.bin", dtype=encoder.dtype, mode="r")
        digests = {"digest": _digest(ids, starts), "names_digest": _json_digest(names)}
        marked = hashlib.sha256(np.memmap(beside / "marks.bin", np.uint8, "r").data).hexdigest() if talks else None
        about = {"dtype": encoder.dtype.name, **digests, "marks": marked, "starts": starts, "names": names}
        about["weights"] = weights or None
        about["remarks"] = remarks.sentences
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
