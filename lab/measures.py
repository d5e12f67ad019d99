"""Which measure of a text says what is found in the new window: perplexity there, context gain or LongPPL.

in   the rows of a model that have all three and the passkeys and the harder retrieval set there, untrained and trained
out  Markdown: a line a measure, Spearman's ρ with what was found, and its 95 % interval
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from explain import DEPENDENT, cell, correlation
from rows import Row
from tables import table

_MEASURES: dict[str, Callable[[Row], float]] = {
    "perplexity": lambda row: row.perplexities[row.new_window].perplexity,
    "context gain": lambda row: row.gain.gain if row.gain else math.nan,
    "LongPPL": lambda row: row.gain.longppl if row.gain else math.nan,
}
_FOUND: dict[str, Callable[[Row], float]] = {
    "passkeys": lambda row: row.passkeys[row.new_window].accuracy,
    "retrieval": lambda row: row.retrieval[row.new_window][0] / row.retrieval[row.new_window][1],
}
_HEADS = ["model", "measure", *_FOUND]
#: Rows below which a correlation says nothing.
_FEWEST = 8


def section(models: Iterable[tuple[str, list[Row]]]) -> str:
    """The table and what its intervals are of; empty without rows enough."""
    told = list(lines(models))
    if not told:
        return ""
    return (
        "### Which measure says what is found?\n\nSpearman's ρ over the checkpoints of each model, untrained and trained, between three measures of the same books at L' and the share of passkeys and of the harder "
        f"retrieval set found there, with {DEPENDENT.format(many=sum(map(bool, (each for _, _, *cells in told for each in cells))))}. Bold where an interval leaves out 0. A measure that said it would stand near −1 (perplexity, LongPPL) or 1 (gain). "
        "Which of the three says it best is another question: no interval here is of a difference between two of them, which are of the same checkpoints. LongPPL's key tokens are by each checkpoint's own losses.\n\n"
        + table(_HEADS, told)
    )


def lines(models: Iterable[tuple[str, list[Row]]]) -> Iterable[list[str]]:
    for model, rows in models:
        complete = [
            row for row in rows
            if row.gain and all(row.new_window in known for known in (row.perplexities, row.passkeys, row.retrieval))
        ]  # fmt: skip
        if len(complete) < _FEWEST:
            continue
        for name, measure in _MEASURES.items():
            known = [row for row in complete if math.isfinite(measure(row))]
            pairs = [[(measure(row), found(row)) for row in known] for found in _FOUND.values()]
            methods, sign = [row.method for row in known], 1 if name == "context gain" else -1
            cells = [cell(*correlation(each, methods), methods, sign) for each in pairs]
            if any(cells):
                yield [model, name, *cells]
