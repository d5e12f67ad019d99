"""Documents chosen, or weighed, by what a model gains from a long context in them (LongFilter, arXiv 2510.25804; ProLong, arXiv 2405.17915).

in   record files of `ropewalk data score`: of each document the loss in a short and in the whole context
out  `Chosen`: which documents are left out, and how much each of the others counts

A document's score is its gain, nats a token: the plain mean, where LongFilter weighs each token's by its probability in the whole context.
Which documents are scored, and by which contexts, is the scoring's to say.

**Weights** are scores over their mean, by tokens: with 1000 tokens at 0.3 nats, 3000 at 0.1 and 1000 at -0.2, which counts as 0, the mean is
(300 + 300 + 0) / 5000 = 0.12, the weights 2.5, 0.83 and 0, and 5000 tokens count 2500 + 2500 + 0: as much as without weights.
"""

from __future__ import annotations

import logging
import math
import shlex
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk import records
from ropewalk.data.conversations import Conversation
from ropewalk.data.reading import Document, text_digest
from ropewalk.errors import UserError
from ropewalk.sentences import counted

_logger = logging.getLogger(__name__)
#: Nats a token: no model is so much surer of anything.
_LARGEST = 1e4


@dataclass(frozen=True)
class Chosen:
    """Which documents a run leaves out, and how much the others count.

    Attributes:
        left_out: hashes of their texts.
        scored: hashes of the texts that have a score.
        least: the smallest gain that is kept, nats a token.
        weights: by hash; None where every document counts once.
        for_nothing: how many of the kept ones gain nothing.
    """

    left_out: frozenset[str]
    scored: frozenset[str]
    least: float
    weights: Mapping[str, float] | None = None
    for_nothing: int = 0

    def __contains__(self, document: object) -> bool:
        """Whether it is read: everything but the documents whose score is too small."""
        return not isinstance(document, Document | Conversation) or text_digest(document.text) not in self.left_out

    def of(self, documents: Iterable[Document | Conversation]) -> Iterator[Document | Conversation]:
        """Those that are read. How many of all have a score is said behind the last one, where some have none."""
        scored = count = 0
        for count, document in enumerate(documents, 1):  # noqa: B007
            scored += text_digest(document.text) in self.scored
            if document in self:
                yield document
        if count and not scored:
            warnings.warn(
                f"none of {counted(count, 'document', ',')} has a score: {counted(len(self.scored), 'score', ',')} {'is' if len(self.scored) == 1 else 'are'} of other texts and nothing changes by them; score these "
                "with ropewalk data score, or give the file that is of them",
                stacklevel=2,
            )
        elif scored < count:
            _logger.info(
                "%s of %s documents have a score; the others are read, and count once", f"{scored:,}", f"{count:,}"
            )

    def weight(self, document: object) -> float:
        """How much each of a document's tokens counts, where documents are weighed."""
        if not isinstance(document, Document | Conversation):
            return 1.0
        return (self.weights or {}).get(text_digest(document.text), 1.0)

    @property
    def key(self) -> list[Any]:
        """All of it that decides what is read."""
        return [sorted(self.left_out), self.weights and sorted(self.weights.items())]

    def __str__(self) -> str:
        sentences = [
            f"{len(self.left_out)} of {len(self.scored)} scored documents gain less than {self.least:.4f} nats a token and are left out where --data has them"
        ]
        if self.for_nothing and self.weights is None:
            stay = len(self.scored) - len(self.left_out)
            sentences.append(
                f"{self.for_nothing} of the {stay} that are kept gain nothing by a long context: a smaller --keep leaves them out"
                if self.for_nothing < stay
                else "NONE OF THOSE THAT ARE KEPT gains anything by a long context: give --data that does, or a model that reads so long a context"
            )
        if self.weights is not None:
            each = self.weights.values()
            kept = "the others" if self.left_out else f"the {len(self.scored)} scored documents"
            counts = f"{kept} count {min(each):.2f} to {max(each):.2f} times, those without a score once"
            sentences = [*sentences, counts] if self.left_out else [counts]
        return "; ".join(sentences)


def score_of(losses: records.DocumentLosses) -> float:
    """What a document gains, nats a token."""
    return (losses["short_nll"] - losses["nll"]) / losses["tokens"]


def ranked(row: records.ContextGain) -> list[dict[str, Any]]:
    """Its documents, the best first: rank, score (nats a token), scored tokens, name, hash of the text."""
    ordered = sorted(row.per_document, key=score_of, reverse=True)
    return [
        {
            "rank": rank,
            "score": score_of(each),
            "tokens": each["tokens"],
            "name": each["name"],
            "text": each.get("text"),
        }
        for rank, each in enumerate(ordered, 1)
    ]


def chosen_by(path: str | Path, keep: float | None = None, *, weigh: bool = False) -> Chosen:
    """The scored documents that gain most, at least one; of a document that was scored twice, the last score.

    Args:
        keep: their share; half if not given, all where they are weighed.
        weigh: each counts by its score.

    Raises:
        UserError: the file holds no scores of whole documents, or of more than one model or context; none gains anything, and they are weighed.
    """
    keep = keep if keep is not None else 1.0 if weigh else 0.5
    rows = [measured for measured in records.read([Path(path)]).of(records.ContextGain) if measured.row.per_document]
    if not rows:
        raise UserError(
            f"scores are what `ropewalk data score DATA --model MODEL --out {shlex.quote(str(path))}` writes, and {path} has none; write them"
        )
    rules = {(each.run.model.fingerprint, each.row.window, each.row.short, each.row.stride) for each in rows}
    if len(rules) > 1:
        raise UserError(
            f"scores are compared that one model gave at one window, and {path} has {len(rules)} kinds; write each into a file of its own"
        )
    listed = [losses for each in rows for losses in each.row.per_document if losses["tokens"]]
    losses_of = {losses.get("text", ""): losses for losses in listed}
    scores = {text: score_of(losses) for text, losses in losses_of.items()}
    if not scores or "" in scores or not all(abs(score) < _LARGEST for score in scores.values()):
        raise UserError(
            f"a score is a number of nats a token for the hash of a text, and {path} has others, or none; score the documents again"
        )
    ordered = sorted(scores, key=lambda text: (-scores[text], text))
    count = max(1, math.ceil(keep * len(ordered)))
    weights = None
    if weigh:
        tokens = {text: losses_of[text]["tokens"] for text in ordered[:count]}
        weights = _weights(scores, tokens, path)
    for_nothing = sum(scores[text] <= 0 for text in ordered[:count])
    return Chosen(frozenset(ordered[count:]), frozenset(ordered), scores[ordered[count - 1]], weights, for_nothing)


def _weights(scores: Mapping[str, float], tokens: Mapping[str, int], path: str | Path) -> dict[str, float]:
    """Of the documents that have `tokens`."""
    total = math.fsum(count * max(scores[text], 0.0) for text, count in tokens.items())
    if total <= 0:
        raise UserError(
            f"documents are weighed by what they gain, and none in {path} gains anything; leave out --weigh, or score them by a model that "
            "reads so long a context"
        )
    mean = total / sum(tokens.values())
    return {text: max(scores[text], 0.0) / mean for text in tokens}
