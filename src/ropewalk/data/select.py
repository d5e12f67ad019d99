"""The documents a perplexity is measured on: as token ids, long enough for the window, counted where they are not.

in   sources of text and a tokenizer
out  Tokens, and how many documents were too short
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from ropewalk.data.documents import Document, encode_all, files_of, kind_of, read_documents
from ropewalk.data.token_corpus import tokenizer_digest
from ropewalk.errors import UserError

#: Documents that are tokenised together, at most.
_AT_ONCE = 16
#: Choices of documents that are remembered: those of two data sets.
_REMEMBERED = 2


@dataclasses.dataclass(frozen=True, eq=False)
class TokenizedDocument:
    """A document as the model reads it."""

    name: str
    ids: Int[np.ndarray, " n"]


def encoded(subject: Any, data: Any, max_tokens: int | None = None) -> Iterator[TokenizedDocument]:
    """Documents as token ids, BOS in front where the tokenizer puts one; those that are `text.Document`s as they are."""
    data = _listed(data)
    found = iter(data) if all(isinstance(one, Document) for one in data) else read_documents(data)
    # Ever more at a time, over all cores: whoever wants two documents does not wait for a hundred.
    at_once = 1
    while some := list(itertools.islice(found, at_once)):
        for document, ids in zip(some, encode_all(subject.tokenizer, [one.text for one in some]), strict=True):
            yield TokenizedDocument(document.name, ids[:max_tokens].copy() if max_tokens else ids)
        at_once = min(2 * at_once, _AT_ONCE)


def _listed(data: Any) -> list[Any]:
    return [data] if isinstance(data, str | Path | Document) else list(data)


def name_of(data: Any) -> str:
    """How a record names its data: the sources' own names, not where they lay; the first three of many."""
    data = _listed(data)
    names = [one.name if isinstance(one, Document) else "/".join(Path(one).parts[-2:]) for one in data]
    return " ".join(names) if len(names) <= 3 else f"{' '.join(names[:3])} and {len(names) - 3} more"


def check_cuts(limit: int | None, max_tokens: int | None, shortest: int) -> None:
    """Refuse settings under which no document can be long enough.

    Raises:
        UserError: a limit below one document, or documents cut to fewer tokens than they need.
    """
    if limit is not None and limit < 1:
        raise UserError(f"a limit is at least one document, got {limit}; leave --limit out for all of them")
    if max_tokens is not None and max_tokens < shortest:
        raise UserError(
            f"documents cut to {max_tokens} tokens cannot have the {shortest} that the largest window or --min-tokens asks "
            f"for; give a --max-tokens of {shortest} or more"
        )


def choose(
    documents: Iterable[TokenizedDocument], *, min_tokens: int, limit: int | None = None
) -> tuple[list[TokenizedDocument], int]:
    """The first `limit` documents that fill the window, and how many shorter ones were passed over on the way.

    Raises:
        UserError: none is long enough.
    """
    found: list[TokenizedDocument] = []
    skipped, longest = 0, 0
    for document in documents:
        longest = max(longest, len(document.ids))
        if len(document.ids) < min_tokens:
            skipped += 1
        else:
            found.append(document)
        if len(found) == limit:
            break
    if not found:
        raise UserError(
            f"perplexity here needs a document of at least {min_tokens} tokens (the largest window, or --min-tokens), but the "
            f"longest of {skipped} has {longest}; give longer documents, or a smaller --windows or --min-tokens"
        )
    return found, skipped


def chosen(
    subject: Any, data: Any, *, min_tokens: int, limit: int | None = None, max_tokens: int | None = None
) -> tuple[list[TokenizedDocument], int]:
    """What `choose` makes of `encoded`; remembered, since a suite asks for the same documents once for every subject."""
    key = _key(subject, _listed(data), min_tokens, limit, max_tokens)
    found = _lately.pop(key, None) if key is not None else None
    if found is None:
        found = choose(encoded(subject, data, max_tokens), min_tokens=min_tokens, limit=limit)
    if key is not None:
        _lately[key] = found
        while len(_lately) > _REMEMBERED:
            del _lately[next(iter(_lately))]
    return list(found[0]), found[1]


_lately: dict[tuple[Any, ...], tuple[list[TokenizedDocument], int]] = {}


def _key(subject: Any, data: Sequence[Any], *settings: int | None) -> tuple[Any, ...] | None:
    """What decides the tokens; None where that cannot be told without reading: documents in memory, sets on the hub."""
    if any(isinstance(one, Document) or kind_of(one) == "hub" for one in data):
        return None
    # As they were named too, since documents are called after that.
    files = [path for source in data for path in files_of(source)]
    states = [(path, path.resolve(), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return (tokenizer_digest(subject.tokenizer), *states, *settings)
