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

from rouge_score.rouge_scorer import RougeScorer

#: Our name of a score → rouge-score's.
SCORES = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeLsum", "rouge_l_plain": "rougeL"}


@functools.cache
def _scorer() -> RougeScorer:
    return RougeScorer(list(SCORES.values()), use_stemmer=True)


def rouge(summary: str, reference: str) -> dict[str, float]:
    """F-measures in [0, 1] of one summary, by our names (SCORES)."""
    scores = _scorer().score(reference, summary)
    return {ours: float(scores[theirs].fmeasure) for ours, theirs in SCORES.items()}
