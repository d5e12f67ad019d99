"""What passkeys say in a verdict: how far they reach, how sure that is, and the base beside it.

in   the rows of a page, the base, the seeds of one training
out  a sentence and a tile of a `Verdict`
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from ropewalk.evals.reach import leaves_open
from ropewalk.records import PasskeySummary
from ropewalk.records import format as number_format
from ropewalk.records.variant import Variant
from ropewalk.reports import contenders, passkey, perplexity, reach
from ropewalk.reports.content import Tile, Verdict
from ropewalk.reports.rows import Clean
from ropewalk.reports.seeds import spread, told


def tell(verdict: Verdict, clean: Clean, base: Variant | None, seeds: Sequence[Variant]) -> None:
    """Add them."""
    rows = passkey.summaries(clean)

    def longest(variant: Variant | None, window: int | None = None) -> PasskeySummary | None:
        by_window = rows.get(variant, {}) if variant else {}
        return by_window[window if window in by_window else max(by_window)] if by_window else None

    each = list(filter(None, map(longest, seeds)))
    before = longest(base, max((row.window for row in each), default=None))
    if not each:
        if before is not None and not seeds and not verdict.says(f" {before.k_max} by k_max"):
            verdict.sentences.append(f"Its k_max is {before.reach}.")
        return
    after = max(each, key=lambda row: row.window)
    each = [row for row in each if row.window == after.window]
    reaches = list(filter(None, (contenders.k_max(clean, seed, after.window) for seed in seeds)))
    ends = contenders.over_seeds_of("k_max", after.window, reaches)[1:] if reaches else None
    is_open = ends == (0, after.window)
    sure = f"but {leaves_open(after)}" if is_open else reach.interval(*ends) if ends else ""
    sure = f", {sure}" if sure and not verdict.says(f"by k_max ({sure}") else ""
    figures = [row.k_max for row in each]
    of_window = f"{told(figures, number_format.count, len(seeds))} of {after.window} tokens"
    name = "mean k_max" if len(set(figures)) > 1 else "k_max"
    reached = f"Passkey retrieval reaches {'a ' * (name != 'k_max')}{name} {of_window if len(seeds) > 1 else after.reach}{sure}"
    its = contenders.k_max(clean, base, before.window) if before and base else None
    as_open = ", which is as open" if is_open else f", but {leaves_open(before)}" if before else ""
    doubt = as_open if before and its and its[1:] == (0, before.window) else ""
    verdict.sentences.append(f"{reached}; the base {before.reach}{doubt}." if before else f"{reached}.")
    around = spread(figures, number_format.count, len(seeds))
    length = f"of {after.window}" if after.window == seeds[0].window else f"in prompts of {after.window} tokens"
    asked = perplexity.least_to_most([row.trials for row in each])
    trials = f"{asked} trial{'s' * (asked != '1')} a depth"
    against = "; ".join(
        filter(None, [length, trials, around, f"base {before.k_max}{'?' if doubt else ''}" if before else ""])
    )
    verdict.tiles.append(Tile(name, f"{fmean(figures):.0f}{'?' if is_open else ''}", against))
