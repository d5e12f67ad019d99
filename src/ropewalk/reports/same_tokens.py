"""Whether perplexities are of the same tokens: of one text cut at another place part of a difference is the text's, whatever its hash says.

in   rows and the headers of their runs
out  parts, in each of which no two rows are known to have scored other tokens of a document

Windows of one run score the same tokens of a document. At a stride of the whole window the first token of each further one is not
scored, so that a count tells the document's length only to a token or two; those are no other tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from ropewalk.records import ContextGain, Measurement, Perplexity
from ropewalk.records import format as number_format

R = TypeVar("R", Perplexity, ContextGain)


def documents(row: Perplexity | ContextGain, *, by_text: bool) -> dict[str, tuple[int, float]]:
    """The hash of the text, or the name where it is not on record → (tokens, nll), of the documents of which something was scored."""
    scored = [each for each in row.per_document if each["tokens"] > 0 and number_format.is_finite(each["nll"])]
    keys = [each.get("text", "") if by_text else each["name"] for each in scored]
    figures = [(each["tokens"], each["nll"]) for each in scored]
    return dict(zip(keys if by_text else _without_place(keys), figures, strict=True))


def has_texts(row: Perplexity | ContextGain) -> bool:
    """Whether its documents are known by their texts."""
    return all("text" in document for document in row.per_document)


def lengths(row: Perplexity | ContextGain, tokens: int) -> frozenset[int]:
    """How many tokens a document may have, or the part of it that was read, of which a row scored so many."""
    if row.stride != row.window:
        return frozenset({tokens + 1})
    windows, rest = divmod(tokens, row.window - 1)
    # The first: what records of earlier versions counted there.
    return frozenset({tokens + 1, tokens + windows + 1, tokens + windows + bool(rest)})


def apart(measurements: Iterable[Measurement[R]]) -> list[list[Measurement[R]]]:
    """Parts of these, the first measured first. What is not on record sets nothing apart."""
    parts: list[list[Measurement[R]]] = []
    known: list[dict[str, frozenset[int]]] = []
    for m in measurements:
        own = _lengths(m.row)
        at = next((i for i, part in enumerate(parts) if _fits(own, known[i]) and _is_cut_alike(m, part)), len(parts))
        if at == len(parts):
            parts.append([])
            known.append({})
        parts[at].append(m)
        known[at] |= {key: each & known[at].get(key, each) for key, each in own.items()}
    return parts


def _lengths(row: Perplexity | ContextGain) -> dict[str, frozenset[int]]:
    return {key: lengths(row, tokens) for key, (tokens, _) in documents(row, by_text=has_texts(row)).items()}


def _fits(own: dict[str, frozenset[int]], known: dict[str, frozenset[int]]) -> bool:
    return not any(known[key].isdisjoint(own[key]) for key in own.keys() & known.keys())


def _is_cut_alike(m: Measurement[R], part: Sequence[Measurement[R]]) -> bool:
    """Of an estimate, or by another's rule, documents are not on record one by one: where they were cut tells."""
    cuts = {
        each.run.settings["max_tokens"]
        for each in (m, *part)
        if "max_tokens" in each.run.settings and not (m.row.per_document and each.row.per_document)
    }
    return len(cuts) < 2 or "max_tokens" not in m.run.settings


def _without_place(names: list[str]) -> list[str]:
    """Names without the directories that all of them have in common: the same files may lie elsewhere for another run."""
    parts = [name.split("/") for name in names]
    shared = 0
    while parts and all(len(part) > shared + 1 and part[shared] == parts[0][shared] for part in parts):
        shared += 1
    return ["/".join(part[shared:]) for part in parts]
