"""The documents a measurement is taken on: tokenized, long enough for its window, and how many were too short.

in   sources of text and a tokenizer
out  `TokenizedDocument`s, and the number of documents that were too short
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from ropewalk.data.chat_tokens import Gaps, encode_conversations, refusing_all
from ropewalk.data.conversations import Conversation
from ropewalk.data.corpus_encoder import tokenizer_digest
from ropewalk.data.documents import files_of, kind_of, read_texts
from ropewalk.data.encode import TokenIds, encode_all, prefix_ids, telling_spelled
from ropewalk.data.reading import Document, Reading, text_digest
from ropewalk.data.sliding import SlidingWindow, sliding
from ropewalk.data.tokenising import Sources
from ropewalk.errors import UserError
from ropewalk.records.sources import write_names

#: Documents that are tokenized together, at most.
_LARGEST_BATCH = 16
#: Selections that are kept in memory: those of two data sets.
_SELECTIONS_KEPT = 2


@dataclasses.dataclass(frozen=True, eq=False)
class TokenizedDocument:
    """A document as the model reads it: its name and token ids, BOS included where the tokenizer puts one.

    `text` is a hash of the whole text, which says what document this is, whatever it is called and whichever tokenizer reads it; `content` one of the
    text without the white space around it, which a copy may have lost or got.
    `words` is what `ids` were made of, if it was asked for. `prefix`: how many of the first ids the tokenizer put there, none of which is text.
    """

    name: str
    ids: TokenIds
    text: str = ""
    words: str = ""
    content: str = ""
    prefix: int = 0

    def windows(self, window: int, stride: int) -> list[SlidingWindow]:
        """Perplexity's windows over it."""
        return sliding(len(self.ids), window, stride, self.prefix)


def tokenized_documents(
    tokenizer: PreTrainedTokenizerBase,
    data: Sources | Document,
    max_tokens: int | None = None,
    *,
    keep_words: bool = False,
    field: str | None = None,
) -> Iterator[TokenizedDocument]:
    """Documents as token ids, BOS in front where the tokenizer puts one, each cut to its first `max_tokens`.

    Rows of turns that have no text are documents too, as the tokenizer's chat template writes them.

    Args:
        tokenizer: a transformers tokenizer.
        data: sources as `read_documents` takes them, or `Document`s.
        max_tokens: no document is cut if None.
        keep_words: of each document, up to the cut.
        field: of a row that holds its text.

    Raises:
        UserError: the words up to a cut are asked for, and the tokenizer cannot say where in the text a token ends.
    """
    sources = _listed(data)
    in_memory = all(isinstance(source, Document) for source in sources)
    documents = telling_spelled(tokenizer, iter(sources) if in_memory else read_texts(sources, Reading(field, "also")))
    head = prefix_ids(tokenizer)
    # The batches grow, so that whoever needs two documents does not wait for sixteen.
    batch_size, gaps = 1, Gaps()
    try:
        while batch := list(itertools.islice(documents, batch_size)):
            with refusing_all(tokenizer, documents, loss="all"):
                encoded = _encoded(tokenizer, batch, gaps)
            for document, ids in zip(batch, encoded, strict=True):
                cut = ids[:max_tokens].copy() if max_tokens else ids
                words = _words(tokenizer, document, ids, len(cut)) if keep_words else ""
                content = text_digest(document.text.strip())
                prefix = len(head) * (ids[: len(head)].tolist() == head)  # a chat template may have left it out
                yield TokenizedDocument(document.name, cut, text_digest(document.text), words, content, prefix)
            batch_size = min(2 * batch_size, _LARGEST_BATCH)
    finally:  # also where no more are asked for
        gaps.tell(tokenizer, "all")


def _encoded(
    tokenizer: PreTrainedTokenizerBase, batch: Sequence[Document | Conversation], gaps: Gaps
) -> Iterator[TokenIds]:
    """The tokens of each."""
    talks = [each for each in batch if isinstance(each, Conversation)]
    of_talks = iter(encode_conversations(tokenizer, talks, loss="all", gaps=gaps) if talks else [])
    texts = [each.text for each in batch if not isinstance(each, Conversation)]
    of_texts = iter(encode_all(tokenizer, texts) if texts else [])
    return (next(of_talks)[0] if isinstance(each, Conversation) else next(of_texts) for each in batch)


def _words(tokenizer: PreTrainedTokenizerBase, document: Document | Conversation, ids: TokenIds, kept: int) -> str:
    """What the first `kept` of a document's tokens were made of."""
    if isinstance(document, Conversation):  # its text is the template's
        return str(tokenizer.decode(ids[:kept]))
    if not (dropped := len(ids) - kept):
        return document.text
    if not tokenizer.is_fast:
        raise UserError(
            f"a text is cut where a token ends, and {type(tokenizer).__name__} does not say where that is; leave out --max-tokens"
        )
    places = tokenizer(document.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return document.text[: places["offset_mapping"][-dropped - 1][1]]


def texts_of(documents: Iterable[TokenizedDocument]) -> str:
    """A hash of which texts these are, in whatever order."""
    return text_digest(" ".join(sorted(document.text for document in documents)))


def _listed(data: Sources | Document) -> list[Any]:
    return [data] if isinstance(data, str | Path | Document) else list(data)


def name_of(data: Sources | Document, written: int = 3) -> str:
    """What a record calls its data: the sources' names with the folder they are in; the first of them if there are more (`records.sources`)."""
    names = [
        source.name if isinstance(source, Document) else "/".join(Path(source).parts[-2:]) for source in _listed(data)
    ]
    return write_names(names, written)


def choose(
    documents: Iterable[TokenizedDocument],
    *,
    min_tokens: int,
    refusal: str,
    limit: int | None = None,
    copies_count: bool = False,
) -> tuple[list[TokenizedDocument], int]:
    """The first `limit` documents of at least `min_tokens` tokens, and how many shorter ones came before the last of them.

    A text that comes again (the same tokens up to the cut, or the same text but for white space around it), under whatever name, is one
    document: it would make every interval too narrow.

    Args:
        documents: read no further than needed.
        min_tokens: the length a document must have.
        refusal: the error's sentence if none is long enough, with `{min_tokens}`, `{skipped}` and `{longest}` to fill in.
        limit: all if None.
        copies_count: each copy of a text is a document too, as in other people's figures.

    Raises:
        UserError: none is long enough; the sentence is `refusal`.
    """
    long_enough: list[TokenizedDocument] = []
    skipped, copies, lengths = 0, 0, list[int]()
    seen: set[str] = set()
    for document in documents:
        if len(document.ids) < max(min_tokens, document.prefix + 1):
            skipped += 1
            lengths.append(len(document.ids))
        elif not seen.isdisjoint(same := _known_by(document)) and not copies_count:
            copies += 1
        else:
            seen |= same
            long_enough.append(document)
        if len(long_enough) == limit:
            break
    if copies:
        again = "document is a copy of another and is" if copies == 1 else "documents are copies of others and are"
        warnings.warn(
            f"{copies} {again} left out, since the same text twice is one document, whatever white space is around it",
            stacklevel=2,
        )
    if not long_enough:
        lengths.sort(reverse=True)
        asked = lengths[:limit] if limit else []
        others = f"; --min-tokens {asked[-1]} keeps {len(asked)} of them" if len(asked) > 1 else ""
        raise UserError(
            refusal.format(min_tokens=min_tokens, skipped=skipped, longest=max(lengths, default=0)) + others
        )
    return long_enough, skipped


def _known_by(document: TokenizedDocument) -> set[str]:
    """Hashes of its tokens and of its text, either of which a copy has too."""
    return {hashlib.sha256(document.ids.tobytes()).hexdigest(), document.content} - {""}


def select_documents(
    tokenizer: PreTrainedTokenizerBase,
    data: Sources | Document,
    *,
    min_tokens: int,
    refusal: str,
    limit: int | None = None,
    max_tokens: int | None = None,
    copies_count: bool = False,
    keep_words: bool = False,
    field: str | None = None,
) -> tuple[list[TokenizedDocument], int]:
    """`choose` among `tokenized_documents`. Kept in memory, since a suite selects the same documents for each of its models.

    Raises:
        UserError: what reading raises; none is long enough (`refusal`, see `choose`).
    """
    key = _key(tokenizer, _listed(data), min_tokens, limit, max_tokens, copies_count, keep_words, field)
    selection = _selections.pop(key, None) if key is not None else None
    if selection is None:
        documents = tokenized_documents(tokenizer, data, max_tokens, keep_words=keep_words, field=field)
        selection = choose(documents, min_tokens=min_tokens, refusal=refusal, limit=limit, copies_count=copies_count)
    if key is not None:
        _selections[key] = selection
        while len(_selections) > _SELECTIONS_KEPT:
            del _selections[next(iter(_selections))]
    documents_chosen, skipped = selection
    return list(documents_chosen), skipped


#: The last selections by what decides them, oldest first.
_selections: dict[tuple[Any, ...], tuple[list[TokenizedDocument], int]] = {}


def _key(tokenizer: PreTrainedTokenizerBase, sources: Sequence[Any], *settings: Any) -> tuple[Any, ...] | None:
    """What decides a selection; None where that takes reading the text: documents in memory, data sets on the hub."""
    if any(isinstance(source, Document) or kind_of(source) == "hub" for source in sources):
        return None
    # The paths as given too, since documents are named after them.
    files = [path for source in sources for path in files_of(source)]
    versions = [(path, path.resolve(), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return (tokenizer_digest(tokenizer), *versions, *settings)
