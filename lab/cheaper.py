"""Past the paper: which rows come to what Position Interpolation has after the paper's own budget, in a quarter of its GPU seconds.

in   the rows of a model at their chosen rates, one of them interpolation at 100 M tokens
out  Markdown: a line a row that took a quarter or less, of each method the longest; losses are paired on the same documents
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from claims import verdict
from rows import Row
from tables import budget, nats, order, table

from ropewalk.records.format import share
from ropewalk.reports.paired import Ratio, ratio

PAPERS_BUDGET, SHARE = 100 * 2**20, 0.25
#: Perplexity that counts as equal, in nats.
_WITHIN = math.log(1.01)


def section(model: str, rows: Sequence[Row]) -> str:
    """Empty where interpolation was not trained for so long."""
    known = {(row.asked["method"], row.asked["tokens"]): row for row in reversed(rows)}
    paper = known.get(("linear", PAPERS_BUDGET))
    if paper is None:
        return ""
    lines = [_line(row, paper) for row in _cheap(rows, paper)]
    key = paper.passkeys[paper.new_window]
    old, new = paper.window, paper.new_window
    heads = ["method", "training tokens", "seed", "GPU seconds of its", f"loss at {new} above its, nats; held up to 1 %", f"k_max; held from {key.k_max}",
             f"loss at {old} above its, nats; held up to 0", "passkeys"]  # fmt: skip
    about = (
        f"After {budget(PAPERS_BUDGET)} tokens Position Interpolation reads {paper.perplexities[new].perplexity:.2f} at {new} and {paper.perplexities[old].perplexity:.2f} at {old}, "
        f"finds {share(key.accuracy)} of the passkeys at {new} (k_max {key.k_max}) and took {paper.training_seconds:.0f} GPU seconds. What has as much in a quarter of them, by the same "
        "verdicts as above:"
    )
    return f"### Past the paper: as much in a quarter of the time, {model}\n\n{about}\n\n{table(heads, lines)}"


def _cheap(rows: Iterable[Row], paper: Row) -> list[Row]:
    """Rows in the new window: of every method all seeds of the largest budget that is cheap enough."""
    cheap = [
        row for row in rows
        if row.asked["method"] not in ("none", "control")
        and row.training_seconds <= SHARE * paper.training_seconds
        and paper.new_window in row.passkeys
    ]  # fmt: skip
    largest: dict[str, int] = {}
    for row in cheap:
        largest[row.asked["method"]] = max(row.asked["tokens"], largest.get(row.asked["method"], 0))
    return sorted((row for row in cheap if row.asked["tokens"] == largest[row.asked["method"]]), key=order)


def _line(row: Row, paper: Row) -> list[str]:
    old, new = paper.window, paper.new_window
    key, its = row.passkeys[new], paper.passkeys[new]
    inside, outside = (ratio(paper.perplexities[window], row.perplexities[window]) for window in (old, new))
    return [
        row.method,
        budget(row.asked["tokens"]),
        str(row.asked["seed"]),
        share(row.training_seconds / paper.training_seconds),
        _up_to(outside, _WITHIN),
        f"{verdict(key.k_low, key.k_high, its.k_max, math.inf)}: {key.k_max}",
        _up_to(inside, 0.0),
        share(key.accuracy),
    ]


def _up_to(found: Ratio, most: float) -> str:
    return f"{verdict(*found.nats[1:], -math.inf, most)}: {nats(found)}"
