"""The documents a perplexity is measured on: as token ids, long enough for the window, counted where they are not.

in   sources of text and a tokenizer
out  Tokens, and how many documents were too short
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from ropewalk import text
from ropewalk.errors import UserError
from ropewalk.evals.subject import Subject


@dataclasses.dataclass(frozen=True, eq=False)
class Tokens:
    """A document as the model reads it."""

    name: str
    ids: Int[np.ndarray, " n"]


def encoded(subject: Subject, data: Any, max_tokens: int | None = None) -> Iterator[Tokens]:
    """Documents as token ids, BOS in front where the tokenizer puts one; those that are `text.Document`s as they are."""
    if isinstance(data, str | Path | text.Document):
        data = [data]
    data = list(data)
    found = data if all(isinstance(one, text.Document) for one in data) else text.documents(data)
    for document in found:
        yield Tokens(document.name, np.asarray(text.encode(subject.tokenizer, document.text))[:max_tokens])


def name_of(data: Any) -> str:
    """How a record names its data: the sources' own names, not where they lay; the first three of many."""
    if isinstance(data, str | Path | text.Document):
        data = [data]
    names = [one.name if isinstance(one, text.Document) else "/".join(Path(one).parts[-2:]) for one in data]
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


def choose(documents: Iterable[Tokens], *, min_tokens: int, limit: int | None = None) -> tuple[list[Tokens], int]:
    """The first `limit` documents that fill the window, and how many shorter ones were passed over on the way.

    Raises:
        UserError: none is long enough.
    """
    chosen: list[Tokens] = []
    skipped, longest = 0, 0
    for document in documents:
        if limit is not None and len(chosen) == limit:
            break
        longest = max(longest, len(document.ids))
        if len(document.ids) < min_tokens:
            skipped += 1
        else:
            chosen.append(document)
    if not chosen:
        raise UserError(
            f"perplexity here needs a document of at least {min_tokens} tokens (the largest window, or --min-tokens), but the "
            f"longest of {skipped} has {longest}; give longer documents, or a smaller --windows or --min-tokens"
        )
    return chosen, skipped
