"""What is read in training: the same method, tokens and rate with other documents or weights.

in   the rows of the levels `read-*` of a model, and the base's
out  Markdown; differences are paired with the plain row's on the same documents and items
"""

from __future__ import annotations

from pathlib import Path

from rows import Row, base_of, rows_in
from tables import budget, nats, shares, table
from trained_states import above_chance, change, points

from ropewalk.records import format as number_format
from ropewalk.records.format import share
from ropewalk.reports.paired import ratio

LEVELS = {
    "read-plain": "books as they come",
    "read-longce": "the same by LongCE's weights (--longce 5120)",
    "read-kept": "the half that gains most by a long context (`ropewalk data score`, --keep 0.5)",
    "read-mixed": "four fifths whole, one fifth at the old window's positions (0.2@8k)",
}


def section(model: str, records: Path, base_rows: list[Row]) -> str:
    """A line a way of reading, below the plain one."""
    plain = {row.asked["seed"]: row for row in rows_in(records / "read-plain" / model)}
    base = base_of(base_rows)
    if not plain or base is None:
        return ""
    lines = [[words, str(row.asked["seed"]), *_figures(row, plain[row.asked["seed"]], base)]
             for level, words in LEVELS.items() for row in rows_in(records / level / model)]  # fmt: skip
    first = next(iter(plain.values()))
    old, new = first.window, first.new_window
    heads = ["read", "seed", f"perplexity {old}", f"perplexity {new}", f"above the plain one at {new}, nats", f"damage at {old}, nats", f"passkey {new}",
             f"retrieval {new}", "benchmarks above guessing, points above the base", "seconds"]  # fmt: skip
    about = (
        f"{first.method}, {old} → {new}, {budget(first.asked['tokens'])} tokens at {first.asked['learning_rate']:g}."
    )
    return f"### What is read, {model}\n\n{about}\n\n{table(heads, lines)}"


def _figures(row: Row, plain: Row, base: Row) -> list[str]:
    old, new = row.window, row.new_window
    here = [row.perplexities[window] for window in (old, new)]
    key = row.passkeys.get(new)
    return [
        *(number_format.perplexity(found.perplexity) for found in here),
        nats(ratio(plain.perplexities[new], here[1])) if row is not plain else "",
        nats(row.damage(base)),
        share(key.accuracy) if key else "",
        shares(row.retrieval.get(new)),
        points(change(base, row, above_chance(base))),
        f"{row.training_seconds:.0f}",
    ]
