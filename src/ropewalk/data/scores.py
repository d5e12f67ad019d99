"""Documents chosen by what a model gains from a long context in them (LongFilter, arXiv 2510.25804; ProLong, arXiv 2405.17915).

in   record files of `ropewalk gain`: of each document the loss in a short and in the whole context
out  `Chosen`: which documents are left out

A document's score is its gain, nats a token: the plain mean, where LongFilter weighs each token's by its probability in the whole context.
Which documents are scored, and by which contexts, is `gain`'s to say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from ropewalk import records
from ropewalk.data.reading import Document, text_digest
from ropewalk.errors import UserError


@dataclass(frozen=True)
class Chosen:
    """Which documents a run leaves out.

    Attributes:
        left_out: hashes of their texts.
        scored: how many documents have a score.
        least: the smallest gain that is kept, nats a token.
    """

    left_out: frozenset[str]
    scored: int
    least: float

    def __contains__(self, document: object) -> bool:
        """Whether it is read: everything but the documents whose score is too small."""
        return not isinstance(document, Document) or text_digest(document.text) not in self.left_out

    def __str__(self) -> str:
        return f"{len(self.left_out)} of {self.scored} scored documents gain less than {self.least:.4f} nats a token and are left out where --data has them"


def chosen_by(path: str | Path, keep: float) -> Chosen:
    """The share `keep` of the scored documents that gain most, at least one; of a document that was scored twice, the last score.

    Raises:
        UserError: the file holds no scores of whole documents, or of more than one model or context.
    """
    rows = [measured for measured in records.read([Path(path)]).of(records.ContextGain) if measured.row.per_document]
    if not rows:
        raise UserError(
            f"scores are what `ropewalk gain MODEL --data … --window … --out {path}` writes without --budget, and {path} has none; write them"
        )
    rules = {(each.run.model.fingerprint, each.row.window, each.row.short, each.row.stride) for each in rows}
    if len(rules) > 1:
        raise UserError(
            f"scores are compared that one model gave at one window, and {path} has {len(rules)} kinds; write each into a file of its own"
        )
    scores = {
        losses["text"]: (losses["short_nll"] - losses["nll"]) / losses["tokens"]
        for each in rows
        for losses in each.row.per_document
        if losses["tokens"]
    }
    ordered = sorted(scores, key=lambda text: (-scores[text], text))
    count = max(1, math.ceil(keep * len(ordered)))
    return Chosen(frozenset(ordered[count:]), len(ordered), scores[ordered[count - 1]])
