"""Past the paper: which rows come to what Position Interpolation has after the paper's own budget, with a quarter of its tokens.

in   the rows of a model at their chosen rates, one of them interpolation at 100 M tokens
out  Markdown: a line a row that read a quarter or less, of each method the longest; losses are paired on the same documents
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from claims import HELD, of_passkeys, verdict
from rows import Row, base_of, control_of
from tables import budget, digits_of, keys_found, nats, order, table

from ropewalk.records.format import share
from ropewalk.reports.paired import Ratio, ratio
from ropewalk.sentences import joined

PAPERS_BUDGET, SHARE = 100 * 2**20, 0.25
Verdicts = tuple[str, str, str]
#: Perplexity that counts as equal, in nats.
_WITHIN = math.log(1.01)


def section(model: str, rows: Sequence[Row]) -> str:
    """Empty where interpolation was not trained for so long."""
    known = {(row.asked["method"], row.asked["tokens"]): row for row in reversed(rows)}
    paper = known.get(("linear", PAPERS_BUDGET))
    if paper is None:
        return ""
    cheap = _cheap(rows, paper)
    verdicts = [_verdicts(row, paper, (row, base_of(rows), control_of(row, rows))) for row in cheap]
    key = paper.passkeys[paper.new_window]
    old, new = paper.window, paper.new_window
    heads = ["method", "training tokens", "seed", "tokens, of PI's", "GPU seconds, of PI's", f"loss at {new} above PI's, nats; held up to 1 %", f"k_max; held from {key.k_max}",
             f"loss at {old} above PI's, nats; held up to 0", "passkeys"]  # fmt: skip
    about = (
        f"After {budget(PAPERS_BUDGET)} tokens Position Interpolation (seed {paper.asked['seed']}) reads {paper.perplexities[new].perplexity:.2f} at {new} and {paper.perplexities[old].perplexity:.2f} at {old}, "
        f"and finds {share(key.accuracy)} of the passkeys at {new}{digits_of(paper, new)} (k_max {key.k_max}). What has as much after a quarter of the tokens or fewer, by the same "
        f"verdicts as above? {_conclusion(cheap, verdicts)} {_seconds(cheap, paper)}"
    )
    return f"### Past the paper: as much with a quarter of the tokens, {model}\n\n{about}\n\n{table(heads, [_line(row, paper, each) for row, each in zip(cheap, verdicts, strict=True)])}"


def _conclusion(rows: Sequence[Row], verdicts: Sequence[Verdicts]) -> str:
    """Which methods have it all, in every seed."""
    methods: dict[str, list[list[bool]]] = {}
    for row, each in zip(rows, verdicts, strict=True):
        methods.setdefault(row.method, []).append([cell.startswith(HELD) for cell in each])
    whole = [method for method, seeds in methods.items() if all(map(all, seeds))]
    far = [method for method, seeds in methods.items() if all(each[1] for each in seeds)]
    return f"{joined(whole or ['No method'])} in loss at both windows and in k_max; in k_max, whatever the loss, {joined(far or ['none'])}."


def _seconds(rows: Sequence[Row], paper: Row) -> str:
    """Which GPU seconds are compared: of as many GPUs of one kind alone, since several that share a model wait for each other."""
    others = sorted({row.cards for row in rows if row.asked["tokens"] and row.cards != paper.cards})
    why = (
        f" Those of {joined(others)} are not compared with it: GPUs of another kind, or more of them that wait for each other, take other GPU seconds for the same tokens."
        if others
        else ""
    )
    return f"Its {paper.training_seconds:.0f} GPU seconds are of {paper.cards}.{why}"


def _cheap(rows: Iterable[Row], paper: Row) -> list[Row]:
    """Rows in the new window: of every method all seeds of the largest budget that is small enough."""
    cheap = [
        row for row in rows
        if row.asked["method"] not in ("none", "control")
        and row.asked["tokens"] <= SHARE * PAPERS_BUDGET
        and paper.new_window in row.passkeys
    ]  # fmt: skip
    largest: dict[str, int] = {}
    for row in cheap:
        largest[row.asked["method"]] = max(row.asked["tokens"], largest.get(row.asked["method"], 0))
    return sorted((row for row in cheap if row.asked["tokens"] == largest[row.asked["method"]]), key=order)


def _line(row: Row, paper: Row, verdicts: Verdicts) -> list[str]:
    alike = row.asked["tokens"] and row.cards == paper.cards
    return [
        row.method,
        budget(row.asked["tokens"]),
        str(row.asked["seed"]) if row.asked["tokens"] else "",
        share(row.asked["tokens"] / PAPERS_BUDGET),
        share(row.training_seconds / paper.training_seconds) if alike else "",
        *verdicts,
        keys_found([row], paper.new_window),
    ]


def _verdicts(row: Row, paper: Row, able: Iterable[Row | None]) -> Verdicts:
    """On the loss in the new window, on k_max, and on the loss in the old one."""
    old, new = paper.window, paper.new_window
    key, its = row.passkeys[new], paper.passkeys[new]
    inside, outside = (ratio(paper.perplexities[window], row.perplexities[window]) for window in (old, new))
    reach, none = (verdict(*ends, its.k_max, math.inf) for ends in ((key.k_low, key.k_high), (0, 0)))
    return _up_to(outside, _WITHIN), f"{of_passkeys(reach, none, able)}: {key.k_max}", _up_to(inside, 0.0)


def _up_to(found: Ratio, most: float) -> str:
    return f"{verdict(*found.nats[1:], -math.inf, most)}: {nats(found)}"
