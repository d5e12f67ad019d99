"""A tokenised corpus: made once with all cores, kept on disk by what it was made from, never held in memory.

in   sources (text.py) and a tokenizer
out  `Tokens`: every document's ids end to end, BOS before and EOS after each, as a memory map

What is kept is found by a hash of the text, the tokenizer and the options, not by dates or paths; it carries a hash of its own,
and what does not match is made again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from transformers import PreTrainedTokenizerBase

from ropewalk.checkpoint.files import whole_directory
from ropewalk.data.compression import damage_named
from ropewalk.data.documents import Document, bos_id, encode_all, files_of, kind_of, read_documents
from ropewalk.progress import Progress

_FORMAT = 2
_BATCH_CHARACTERS = 4_000_000
_HASHED_AT_ONCE = 1 << 24

Sources = str | Path | Sequence[str | Path] | Sequence[Document]


@dataclass(frozen=True)
class TokenCorpus:
    """A tokenised corpus.

    Attributes:
        ids: every document's token ids end to end, (tokens,); usually a memory map.
        starts: where each document begins, and at the end where the last one ends, (documents + 1,).
        names: of the documents.
        digest: which tokens these are: equal for equal text, tokenizer and reading order, whatever the files are called. Of a
            stream it is that of the first document, since how far it is read depends on the run's length.
        streamed: whether they are the beginning of a longer stream; then they are read in the stream's order.
    """

    ids: Int[np.ndarray, " tokens"]
    starts: Int[np.ndarray, " ends"]
    names: list[str]
    digest: str
    streamed: bool = False

    @property
    def longest(self) -> int:
        """Tokens of the longest document, BOS and EOS included."""
        return int(np.diff(self.starts).max())


def cache_directory() -> Path:
    """Where tokenised corpora are kept: $ROPEWALK_CACHE, or ropewalk under $XDG_CACHE_HOME or ~/.cache."""
    named = os.environ.get("ROPEWALK_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ropewalk"


def tokenise(
    sources: Sources,
    tokenizer: PreTrainedTokenizerBase,
    *,
    field: str | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> TokenCorpus:
    """Tokenise documents, or find them tokenised before.

    Args:
        sources: as `text.documents`, or documents themselves.
        tokenizer: its BOS goes before each document if it puts one itself, its EOS after.
        field: a row's field that holds the text.
        limit: tokens after which a streamed data set is read no further, and what is named beside one; without one all is read.
            Sources beside a streamed one are read in turn with it, a document of each, since the first might never end.
        seed: of the shuffling of streamed data sets.

    Raises:
        UserError: what `text.documents` raises.
    """
    streamed, key = _key(sources, tokenizer, field, limit, seed)
    place = _writable(cache_directory() / "tokens") / key
    found = _from_cache(place, streamed)
    if found is None:
        documents = _documents(sources, field, seed, in_turn=streamed)
        _write(place, documents, tokenizer, limit=limit if streamed else None)
        found = _from_cache(place, streamed)
        if found is None:
            raise OSError(f"{place} changed while it was written")
    return found


def _documents(sources: Sources, field: str | None, seed: int, *, in_turn: bool) -> Iterator[Document]:
    if not isinstance(sources, str | Path) and sources and isinstance(sources[0], Document):
        return iter(sources)  # type: ignore[arg-type]
    if not in_turn or isinstance(sources, str | Path):
        return read_documents(sources, field=field, seed=seed)  # type: ignore[arg-type]
    each: list[Any] = [read_documents(source, field=field, seed=seed) for source in sources]  # type: ignore[arg-type]
    rounds = itertools.zip_longest(*each)
    return (document for round in rounds for document in round if document is not None)


def _key(
    sources: Sources, tokenizer: PreTrainedTokenizerBase, field: str | None, limit: int | None, seed: int
) -> tuple[bool, str]:
    """Whether anything is streamed, and a hash of everything that decides the tokens: contents, not dates or paths."""
    streamed = False
    parts: list[Any] = [_FORMAT, tokenizer_digest(tokenizer), field]
    listed: Sequence[Any] = [sources] if isinstance(sources, str | Path) else sources
    for source in listed:
        if isinstance(source, Document):
            parts.append([source.name, hashlib.sha256(source.text.encode("utf-8", "surrogatepass")).hexdigest()])
        elif kind_of(source) == "hub":
            streamed = True
            parts.append([str(source), limit, seed])
        else:
            root = Path(source)
            parts += [[str(path.relative_to(root.parent)), _file_digest(path)] for path in files_of(source)]
    return streamed, hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of everything about a tokenizer that decides the ids of a text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    told = backend.to_str() if backend is not None else json.dumps(sorted(tokenizer.get_vocab().items()))
    marks = f"{bos_id(tokenizer)} {tokenizer.eos_token_id}"
    return hashlib.sha256(f"{type(tokenizer).__name__} {marks} {told}".encode()).hexdigest()


def _file_digest(path: Path) -> str:
    with damage_named(path), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _writable(directory: Path) -> Path:
    """The directory, or a temporary one where it cannot be made: a read-only home must not stop a run."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if os.access(directory, os.W_OK):
            return directory
    except OSError:
        pass
    instead = Path(tempfile.mkdtemp(prefix="ropewalk-"))
    warnings.warn(f"{directory} cannot be written, so tokens go to {instead} and are not kept", stacklevel=3)
    return instead


def _from_cache(place: Path, streamed: bool) -> TokenCorpus | None:
    """What lies there, if its hash is right; a damaged one is reported and made again."""
    if not place.is_dir():
        return None
    try:
        about = json.loads((place / "about.json").read_text(encoding="utf-8"))
        ids = np.memmap(place / "ids.bin", dtype=about["dtype"], mode="r")
        starts, names, digest = about["starts"], about["names"], about["digest"]
        if _digest(ids, starts) != digest or _digest_of(names) != about["names_digest"]:
            raise ValueError("its hash is not the one it was written with")
        if streamed:
            digest = _digest(ids[: starts[1]], starts[:2])
        return TokenCorpus(ids, np.array(starts, dtype=np.int64), names, digest, streamed)
    except (OSError, ValueError, KeyError, TypeError) as error:
        warnings.warn(f"the tokens kept in {place} are damaged ({error}); they are made again", stacklevel=3)
        return None


def _digest_of(named: list[Any]) -> str:
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()


def _digest(ids: np.ndarray, starts: list[int]) -> str:
    digest = hashlib.sha256(json.dumps([str(ids.dtype), starts]).encode())
    for start in range(0, len(ids), _HASHED_AT_ONCE):
        digest.update(np.ascontiguousarray(ids[start : start + _HASHED_AT_ONCE]).data)
    return digest.hexdigest()


def _write(
    place: Path,
    documents: Iterable[Document],
    tokenizer: PreTrainedTokenizerBase,
    *,
    limit: int | None,
) -> None:
    """Tokenise into a directory that appears whole or not at all. The corpus itself is never in memory."""
    dtype = np.dtype(np.uint16 if len(tokenizer) <= 1 << 16 else np.uint32)
    starts, names = [0], []
    with whole_directory(place, overwrite=True) as beside, Progress("tokenising", limit) as advance:
        with open(beside / "ids.bin", "wb") as file:
            for batch in _batches(documents):
                encoded = encode_all(tokenizer, [document.text for document in batch], eos=True)
                for document, ids in zip(batch, encoded, strict=True):
                    file.write(ids.astype(dtype).tobytes())
                    starts.append(starts[-1] + len(ids))
                    names.append(document.name)
                tokens = sum(map(len, encoded))
                advance(tokens, f"tokenising: {len(names):,} documents, {starts[-1]:,} tokens")
                if limit is not None and starts[-1] > limit:
                    break
        ids = np.memmap(beside / "ids.bin", dtype=dtype, mode="r")
        digests = {"digest": _digest(ids, starts), "names_digest": _digest_of(names)}
        about = {"dtype": dtype.name, **digests, "starts": starts, "names": names}
        (beside / "about.json").write_text(json.dumps(about), encoding="utf-8")


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
