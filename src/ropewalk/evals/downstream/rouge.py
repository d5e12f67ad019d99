"""ROUGE: how much a summary shares with a reference, by rouge-score with the Porter stemmer.

in   a summary and its reference
out  F-measures in [0, 1]

ROUGE-1, ROUGE-2 and two kinds of ROUGE-L. `rouge_l` is rouge-score's `rougeLsum`, the longest common subsequence taken
sentence by sentence, where a sentence is a line. Texts are scored as they are: no sentence splitter adds line breaks, since
the choice of one would move the figure more than most models do. `rouge_l_plain` is `rougeL`, over the whole text as one
sequence. Where texts have no line breaks the two are equal. Published GovReport tables with an R-L near 30 beside an R-1
near 60, the paper's among them, hold the latter.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterable

from rouge_score.rouge_scorer import RougeScorer

from ropewalk.errors import UserError

#: Our name of a score → rouge-score's.
SCORES = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeLsum", "rouge_l_plain": "rougeL"}


def check_script(references: Iterable[str]) -> None:
    """Look at references before summaries are written: rouge-score knows words of a to z and digits alone, and drops all others unsaid.

    Raises:
        UserError: nothing is left of a reference, by which every summary would score 0. Where less than half is left, a warning.
    """
    kept = letters = 0
    for reference in references:
        own = [letter for letter in reference.lower() if letter.isalnum()]
        known = sum(letter.isascii() for letter in own)
        if not known:
            raise UserError(
                f"ROUGE counts words of the letters a to z and digits, and of a reference none is left: {reference.strip()[:40]!r}; leave the "
                "pair out, or score summaries in its script by another measure"
            )
        kept, letters = kept + known, letters + len(own)
    if 2 * kept < letters:
        warnings.warn(
            f"ROUGE counts the letters a to z and digits alone, {kept / letters:.0%} of those of the references: its figures say little of "
            "the rest",
            stacklevel=2,
        )


@functools.cache
def _scorer() -> RougeScorer:
    return RougeScorer(list(SCORES.values()), use_stemmer=True)


def rouge(summary: str, reference: str) -> dict[str, float]:
    """F-measures in [0, 1] of one summary, by our names (SCORES)."""
    scores = _scorer().score(reference, summary)
    return {ours: float(scores[theirs].fmeasure) for ours, theirs in SCORES.items()}
