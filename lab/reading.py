"""What is read in training: the same method, tokens and rate with other documents or weights.

in   the rows of the levels `read-*` of a model, and the base's
out  Markdown; differences are paired with the plain row's on the same documents and items
"""

from __future__ import annotations

from pathlib import Path

from beside import benchmarks, change, points
from rows import Row, base_of, rows_in
from tables import budget, nats, shares, table

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
    rows = {words: found[0] for level, words in LEVELS.items() if (found := rows_in(records / level / model))}
    plain, base = rows.get(LEVELS["read-plain"]), base_of(base_rows)
    if plain is None or base is None or len(rows) == 1:
        return ""
    lines = [[words, *_figures(row, plain, base)] for words, row in rows.items()]
    old, new = plain.window, plain.new_window
    heads = ["read", f"perplexity {old}", f"perplexity {new}", f"above the plain one at {new}, nats", f"damage at {old}, nats", f"passkey {new}",
             f"retrieval {new}", "benchmarks, points above the base", "seconds"]  # fmt: skip
    about = f"{plain.method}, {old} → {new}, {budget(plain.asked['tokens'])} tokens at {plain.asked['learning_rate']:g}, seed {plain.asked['seed']}."
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
        points(change(base, row, benchmarks(base))),
        f"{row.training_seconds:.0f}",
    ]
