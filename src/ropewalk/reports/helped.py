"""Whether a training helped, in the words of somebody who trained a little: better, worse, or too little measured to tell.

in   the perplexities of one text, and the seeds of one training
out  a sentence of the verdict
"""

from __future__ import annotations

from collections.abc import Sequence

from ropewalk.records import Perplexity
from ropewalk.records.variant import Variant, befores
from ropewalk.reports import damage
from ropewalk.reports.comparable import ByWindow, Group
from ropewalk.reports.paired import Ratio, over, ratio


def in_short(group: Group, near: Group, seeds: Sequence[Variant]) -> str:
    """What training did at the new window, against the model before it, and what the old one lost, against the base. near: of the old window's rows."""
    target, rows, short = seeds[0], group.variants(), near.variants()
    before, name, before_is_base = _before(group, target)
    change = _change(before, [rows.get(seed, {}) for seed in seeds], target.window)
    figures = f", {change}" if change else ""
    new = f"at {target.window} tokens{name}, {_word(change, 'the same before training and after')}{figures}"
    if before and before_is_base:  # most of such a change may be the extension's, which costs no training
        which = "that it began from" if target.recipe.earlier else "extended and not trained (ropewalk extend)"
        new += f"; what training added to that is not known: measure the model {which}, at {target.window}"
    pair = damage.short_pair(near, target)
    at = pair[0].window if pair else target.original_window
    there = _change(pair and pair[0], [short.get(seed, {}) for seed in seeds], at)
    old = f"at {at} tokens, against the base, {_word(there, 'the same of both')}"
    return f"In short, did training help? By perplexity, {new}; {old}."


def _before(group: Group, target: Variant) -> tuple[Perplexity | None, str, bool]:
    """The model at the new window as it was before its training; where that was not measured, the base there. What that is called, and whether it is the base."""
    rows = group.variants()
    extended = befores(target, rows)
    bases = [v for v in rows if not v.extended and not v.steps]
    before = next((v for v in (*extended, *bases) if target.window in rows[v]), None)
    if before is None:
        return None, "", False
    is_base = before not in extended
    itself = f"after {target.recipe.earlier}" if target.recipe.earlier else "before training"
    name = ", extended and trained, against the base, extrapolating" if is_base else f", against itself {itself}"
    return rows[before][target.window], name, is_base


def _change(before: Perplexity | None, after: Sequence[ByWindow], window: int) -> Ratio | None:
    return over([ratio(before, at[window]) if before and window in at else None for at in after])


def _word(change: Ratio | None, what: str) -> str:
    """The answer; where there is none, what is lacking for one."""
    if change is None:
        return f"it cannot be told: measure {what}, on the same text with the same --max-tokens"
    if change.low > 1 or change.high < 1:
        return "worse" if change.low > 1 else "better"
    if change.too_few:
        return f"too little was measured to tell (an answer takes {Perplexity.FEWEST} documents at least)"
    return "too little was measured to tell better from worse"
