"""What is read in training: the same method, tokens and rate with other documents or weights.

in   the rows of the levels `read-*` of a model, and the base's
out  Markdown; differences are paired with the plain row's on the same documents and items
"""

from __future__ import annotations

import math
from pathlib import Path

from claims import HELD, verdict
from rows import Row, base_of, rows_in
from tables import bounded, budget, keys_found, nats, seconds, shares, table
from trained_states import above_chance, change, points

from ropewalk.evals.intervals import Paired, over_seeds
from ropewalk.records import Retrieval
from ropewalk.records import format as number_format
from ropewalk.reports.paired import ratio

#: Above the table of what is aimed at.
_ABOUT_AIMS = (
    "What a longer window is to cost at most, by the end of the paired interval: **held** if all of it keeps to the bound, **did not** if none of it does, else open. "
    "RACE has several questions a text, and lm-eval's task asks the last of them, so that of the five sets' 11,309 questions fewer are asked. Retrieval is paired prompt by prompt, where "
    "that was done on the 1536 prompts of the levels found-*, of the same rows trained again: 64 cannot tell one point. Over seeds the interval is for other seeds too. Of the plain rows it is what they find, and how far their seeds are apart. Where the plain rows keep a bound too, it was not the way of reading that kept it. Perplexity is of books, which all of these read: what the window cost beside that stands under More tokens."
)
#: What a verdict over seeds says in a sentence.
_TOLD = {
    HELD: "retrieval is at most a point below the plain rows'",
    "**did not**": "retrieval is more than a point below the plain rows'",
    "open": "it is open whether retrieval is more than a point below the plain rows'",
}
LEVELS = {
    "read-plain": "books as they come",
    "read-longce": "the same by LongCE's weights (--longce 5120)",
    "read-kept": "the half that gains most by a long context (`ropewalk data score`, --keep 0.5)",
    "read-weighed": "each book counts by its gain (`ropewalk data score`, --weigh)",
    "read-mixed": "four fifths whole, one fifth at the old window's positions (0.2@8k)",
}


def section(model: str, records: Path, base_rows: list[Row]) -> str:
    """A line a way of reading, below the plain one."""
    plain = {row.asked["seed"]: row for row in rows_in(records / "read-plain" / model)}
    base = base_of(base_rows)
    if not plain or base is None:
        return ""
    found = {row.asked["seed"]: row for row in rows_in(records / "found-plain" / model)}
    lines, aims, told = [], [], []
    for level, words in LEVELS.items():
        again = {row.asked["seed"]: row for row in rows_in(records / level.replace("read-", "found-") / model)}
        for row in rows_in(records / level / model):
            seed = row.asked["seed"]
            head = [words, str(seed)]
            before, after = (found[seed], again[seed]) if seed in found and seed in again else (plain[seed], row)
            retrieved = (
                _no_worse(before, after) if row is not plain[seed] else shares(before.retrieval.get(row.new_window))
            )
            lines.append([*head, *_figures(row, plain[seed], base)])
            aims.append([*head, *_aims(row, base), retrieved])
        changes = {seed: _paired_retrieval(found[seed], after) for seed, after in again.items() if seed in found}
        if level != "read-plain" and len(changes) > 1:
            alone = [seed for seed in changes if seed not in plain]  # of retrieval only
            aims += [[words, str(seed), "", "", _at_most_a_point_below(changes[seed])] for seed in alone]
            over = _over_seeds(list(changes.values()))
            aims.append([words, f"{len(changes)} seeds", "", "", over])
            told.append(
                f"Of {words} {_TOLD[over.partition(':')[0]]} over {len(changes)} seeds: {over.partition(': ')[2]} points."
            )
    first = next(iter(plain.values()))
    old, new = first.window, first.new_window
    heads = ["read", "seed", f"perplexity {old}", f"perplexity {new}", f"above the plain one at {new}, nats", f"damage at {old}, nats", f"passkey {new}",
             f"retrieval {new}", "benchmarks above guessing, points above the base", "seconds"]  # fmt: skip
    about = (
        f"{first.method}, {old} → {new}, {budget(first.asked['tokens'])} tokens at {first.asked['learning_rate']:g}."
    )
    items = sum(benchmark.items for benchmark in base.benchmarks.values())
    aimed = ["read", "seed", f"perplexity {old} at most 1 % above the base's, nats", f"the five benchmarks, {items:,} items, at most 1 point below the base's",
             f"retrieval {new} at most 1 point below the plain one's"]  # fmt: skip
    parts = [f"### What is read, {model}", about, table(heads, lines), _ABOUT_AIMS, table(aimed, aims), " ".join(told)]
    return "\n\n".join(filter(None, parts))


def _figures(row: Row, plain: Row, base: Row) -> list[str]:
    old, new = row.window, row.new_window
    here = [row.perplexities[window] for window in (old, new)]
    return [
        *(number_format.perplexity(each.perplexity) for each in here),
        nats(ratio(plain.perplexities[new], here[1])) if row is not plain else "",
        nats(row.damage(base)),
        keys_found([row], new),
        shares(row.retrieval.get(new)),
        points(change(base, row, above_chance(base))),
        seconds([row]),
    ]


def _aims(row: Row, base: Row) -> list[str]:
    """The verdict on the two bounds that the base sets, and the difference that each rests on."""
    damage = row.damage(base)
    perplexity = f"{verdict(*damage.nats[1:], -math.inf, math.log(1.01))}: {nats(damage)}" if damage else ""
    return [perplexity, _at_most_a_point_below(change(base, row, base.benchmarks))]


def _no_worse(plain: Row, row: Row) -> str:
    """The verdict on retrieval, and the difference that it rests on."""
    return _at_most_a_point_below(_paired_retrieval(plain, row))


def _at_most_a_point_below(changed: Paired | None) -> str:
    if changed is None:
        return ""
    low, high = (100 * end for end in changed.interval())
    return f"{verdict(low, high, -1, math.inf)}: {points(changed)}"


def _over_seeds(changes: list[Paired | None]) -> str:
    """The verdict on the mean over seeds, whose interval is for other seeds too."""
    mean, low, high = (
        100 * end for end in over_seeds([(each.difference, *each.interval()) for each in changes if each])
    )
    return f"{verdict(low, high, -1, math.inf)}: {bounded(number_format.fixed(mean, 1), low, high, lambda end: number_format.fixed(end, 1))}"


def _paired_retrieval(before: Row, after: Row) -> Paired | None:
    """Verdicts on the same prompts of all families in the new window; None where they are not on record."""
    verdicts = [
        [
            trial["right"]
            for m in row.records.of(Retrieval)
            if m.row.window == row.new_window
            for trial in m.row.per_trial
        ]
        for row in (before, after)
    ]
    return Paired.of(*verdicts) if len(verdicts[0]) == len(verdicts[1]) > 0 else None
