"""From sources to a tokenised corpus, which is looked up in the cache and written there if it is missing.

in   sources (documents.py) and a tokenizer
out  a `TokenCorpus`

The cache key is a hash of the text, the tokenizer and the options, not of dates or paths.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from ropewalk.checkpoint.cache import cache_directory
from ropewalk.checkpoint.digests import digest_of
from ropewalk.data.chat_tokens import Refused
from ropewalk.data.compression import damage_named
from ropewalk.data.corpus_encoder import Encoder, Text
from ropewalk.data.documents import files_of, kind_of, read_texts
from ropewalk.data.reading import Document, Reading
from ropewalk.data.remarks import Remarks
from ropewalk.data.scores import Chosen
from ropewalk.data.text_size import TextSize, text_size
from ropewalk.data.token_corpus import FORMAT, TokenCorpus, read_corpus, sha256_of, write_corpus
from ropewalk.progress import is_first_process

_logger = logging.getLogger(__name__)

Sources = str | Path | Sequence[str | Path] | Sequence[Document]


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

    @property
    def name(self) -> str:
        """What its sources are called."""
        sources = [self.sources] if isinstance(self.sources, str | Path) else self.sources
        return ", ".join(source.name if isinstance(source, Document) else str(source) for source in sources)

    def corpus(self) -> TokenCorpus:
        """The corpus, from the cache or written into it.

        Raises:
            UserError: what `read_documents` raises.
        """
        corpus = read_corpus(self._place, self._streamed, repeat=True)
        if corpus is None:
            with Remarks.unsaid():  # they come while the texts are tokenised
                size = self._measured()
            if size is not None and size.is_long and is_first_process():
                _logger.info("%s", size.announced(self.limit))
            limit = self.limit if self._streamed else None
            write_corpus(self._place, self._texts(), self._encoder, limit=limit, chosen=self.chosen, source=self.name)
            corpus = read_corpus(self._place, self._streamed)
            if corpus is None:
                raise OSError(f"{self._place} changed while it was written")
        return corpus

    def long_size(self) -> TextSize | None:
        """How much text there is, estimated, where it takes long to tokenise and is not in the cache. Raises UserError as `corpus` does."""
        size = None if self._place.exists() else self._measured()
        return size if size is not None and size.is_long else None

    @functools.cached_property
    def _listed(self) -> list[Any]:
        return [self.sources] if isinstance(self.sources, str | Path) else list(self.sources)

    def _measured(self) -> TextSize | None:
        if self._streamed or any(isinstance(source, Document) for source in self._listed):
            return None
        with contextlib.suppress(Refused):  # a sample has some of them; tokenising tells of all
            return text_size(
                [file for source in self._listed for file in files_of(source)], self._texts(), self._encoder
            )
        return None

    def _texts(self) -> Iterator[Text]:
        return self._documents() if self.chosen is None else self.chosen.of(self._documents())

    def _documents(self) -> Iterator[Text]:
        if self._listed and isinstance(self._listed[0], Document):
            return iter(self._listed)
        if not self._streamed:
            return read_texts(self._listed, self._reading, seed=self.seed)
        readers: list[Any] = [read_texts(source, self._reading, seed=self.seed) for source in self._listed]
        rounds = itertools.zip_longest(*readers)
        return (document for one_each in rounds for document in one_each if document is not None)

    @property
    def _reading(self) -> Reading:
        return Reading(self.field, "first" if self.loss else "also" if self.conversations else "never")

    @functools.cached_property
    def _encoder(self) -> Encoder:
        return Encoder(self.tokenizer, self.loss or "answers", self.control)

    @functools.cached_property
    def _streamed(self) -> bool:
        return any(not isinstance(source, Document) and kind_of(source) == "hub" for source in self._listed)

    @functools.cached_property
    def _place(self) -> Path:
        return _writable(cache_directory() / "tokens") / self._key

    @property
    def _key(self) -> str:
        """A hash of all that decides the tokens: contents, not dates or paths."""
        parts = [FORMAT, self._encoder.key, *dataclasses.astuple(self._reading), self.chosen and self.chosen.key]
        for source in self._listed:
            if isinstance(source, Document):
                parts.append([source.name, sha256_of(source.text)])
            elif kind_of(source) == "hub":
                parts.append([str(source), self.limit, self.seed])
            else:
                root = Path(source)
                for path in files_of(source):
                    with damage_named(path):
                        parts.append([str(path.relative_to(root.parent)), digest_of(path)])
        return sha256_of(json.dumps(parts))[:32]


def tokenise(sources: Sources, tokenizer: PreTrainedTokenizerBase, **options: Any) -> TokenCorpus:
    """The corpus of these sources; options as `Tokenising` has them."""
    return Tokenising(sources, tokenizer, **options).corpus()


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
