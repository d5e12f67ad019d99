"""Fine-tuning on conversations of half the window, of it and of twice it: what is found in the window and beyond.

in   the rows of the levels `tuned-*` of a model; the extended and untuned one among them
out  Markdown; losses are paired with the untuned model's on the same documents
"""

from __future__ import annotations

from pathlib import Path

from rows import Row, rows_in
from tables import budget, keys_found, nats, shares, table

from ropewalk.records import format as number_format
from ropewalk.reports.paired import ratio

LEVELS = {"tuned-half": "half the window", "tuned-at": "the window", "tuned-twice": "twice the window"}


def section(model: str, records: Path) -> str:
    """A line a length of conversations, below the model before any."""
    rows = [(words, row) for level, words in LEVELS.items() for row in rows_in(records / level / model)]
    start = next((row for _, row in rows if not row.asked["tokens"]), None)
    if start is None or len(rows) == 1:
        return ""
    old, window, beyond = start.asked["prompt_windows"]
    tuned = [(words, row) for words, row in rows if row is not start]
    first = tuned[0][1].asked
    heads = ["conversations of", f"perplexity {old}", f"perplexity {window}", f"loss at {old} above before, nats"]
    heads += [f"{what} {tokens}" for what in ("passkey", "retrieval") for tokens in (window, beyond)]
    lines = [[words, *_figures(row, start)] for words, row in [("none: before", start), *tuned]]
    about = (
        f"{model}, {start.method}, {old} → {window} by its config alone; then {budget(first['tokens'])} tokens of conversations at {first['learning_rate']:g}, "
        f"of {window // 2}, {window} or {beyond} tokens each: the same documents and summaries in the same order ([conversations.py](../lab/conversations.py)), the loss on the summaries "
        "alone, all by the same rotation, which ABF does not change with the window. Perplexity is of other text, of which none was read here."
    )
    return f"### Conversations of half the window and of twice it, {model}\n\n{about}\n\n{table(heads, lines)}"


def _figures(row: Row, start: Row) -> list[str]:
    old, window, beyond = start.asked["prompt_windows"]
    losses = [row.perplexities.get(tokens) for tokens in (old, window)]
    before = start.perplexities.get(old)
    return [
        *(number_format.perplexity(each.perplexity) if each else "" for each in losses),
        nats(ratio(before, losses[0])) if before and losses[0] and row is not start else "",
        *(keys_found([row], tokens) for tokens in (window, beyond)),
        *(shares(row.retrieval.get(tokens)) for tokens in (window, beyond)),
    ]
