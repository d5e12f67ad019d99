"""Other ways to the same window with the same tokens: PoSE, LoRA, the window in two steps; and the paper's largest factor.

in   the rows of the levels `pose`, `lora`, `steps` and `x32` of a model, and those of whole windows in one step
out  Markdown; losses are paired with those of the whole windows, and with the base's, on the same documents
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rows import Row, at_chosen_rate, base_of, chosen_rates, plain_rows, rows_in
from tables import budget, factors_table, keys_found, nats, order, rates_table, seconds, shares, table

from ropewalk.records import format as number_format
from ropewalk.reports.paired import ratio
from ropewalk.sentences import joined

LEVELS = {"pose": "PoSE", "lora": "LoRA", "steps": "two steps"}
_ABOUT = {
    "PoSE": "PoSE reads {old} tokens at a time at positions of the new window and trains every weight, at the rate of whole windows.",
    "LoRA": "LoRA trains adapters of rank 8, embeddings and norms, at the best of its own rates on validation.",
    "two steps": "Two steps are half of the tokens at twice the old window, then half at the new one; their seconds are of the second, and the first one read other windows of the same books.",
}


def section(model: str, records: Path) -> str:
    """A line a way and method, each below the whole windows that read as many tokens; nothing without any."""
    ways = [(words, row) for level, words in LEVELS.items() for row in _of(records, level, model)]
    whole = _whole(model, records)
    base = base_of(whole)
    if not ways or base is None:
        return ""
    lines, tokens = [], {_tokens(row) for _, row in ways}
    for plain in sorted((row for row in whole if row.asked["tokens"] in tokens), key=order):
        beside = [(words, row) for words, row in ways if _alike(row, plain)]
        for words, row in [("whole windows, one step", plain), *beside] if beside else ():
            lines.append(_line(words, row, plain, base))
    old, new = base.window, base.new_window
    heads = ["method", "way", "training tokens", "rate", "seed", f"perplexity {old}", f"perplexity {new}"]
    heads += [f"above whole windows at {window}, nats" for window in (old, new)]
    heads += [f"damage at {old}, nats", f"passkey {old}", f"passkey {new}", f"retrieval {new}", "seconds"]
    shown = [words for words in LEVELS.values() if any(line[1] == words for line in lines)]
    parts = [
        f"{model}, {old} → {new}, each way beside whole windows in one step, of the same method and as many tokens."
    ]
    parts += [_ABOUT[words].format(old=old) for words in shown]
    parts += ["Perplexities are to be compared by the differences beside them, which are paired."]
    found = f"### {joined(shown)}, {model}\n\n{' '.join(parts)}\n\n{table(heads, lines)}" if lines else ""
    rates = rates_table(records / "lora" / model) if "LoRA" in shown else ""
    return (
        f"{found}\n\nLoRA's rates, by the mean validation loss at the old and the new window:\n\n{rates}"
        if rates
        else found
    )


def widest(model: str, records: Path) -> str:
    """The paper's largest factor; nothing without it."""
    directory = records / "x32" / model
    rows = at_chosen_rate(rows_in(directory), chosen_rates(directory))
    base = base_of(rows)
    if base is None or len(rows) == 1:
        return ""
    documents = base.perplexities[base.window].documents
    return (
        f"### By 32, {model}\n\n{base.window} → {base.new_window}, {documents} documents cut to {base.asked['test_tokens']} tokens; at the rates chosen at factor 4. "
        f"The base reads {number_format.perplexity(base.perplexities[base.new_window].perplexity)} at {base.new_window}.\n\n{factors_table(rows, base)}"
    )


def _of(records: Path, level: str, model: str) -> Iterable[Row]:
    """The full rows of a level, at their chosen rates; of two steps those of every model of the first."""
    directories = (records / level).glob(f"{model}-*") if level == "steps" else [records / level / model]
    for directory in sorted(directories):
        yield from sorted(at_chosen_rate(rows_in(directory), chosen_rates(directory)), key=order)


def _whole(model: str, records: Path) -> list[Row]:
    """Rows of whole windows in one step, at their chosen rates."""
    return at_chosen_rate(plain_rows(model, records, "a"), chosen_rates(records / "a" / model))


def _tokens(row: Row) -> int:
    """Of training, in both steps."""
    return row.asked["tokens"] * (2 if row.in_two_steps else 1)


def _alike(row: Row, plain: Row) -> bool:
    """Whether both are of one method, budget, seed and window."""
    names = ("method", "seed")
    same = all(row.asked[name] == plain.asked[name] for name in names)
    return same and _tokens(row) == plain.asked["tokens"] and row.new_window == plain.new_window


def _line(words: str, row: Row, plain: Row, base: Row) -> list[str]:
    windows = (base.window, base.new_window)
    losses = [row.perplexities.get(window) for window in windows]
    above = [
        ratio(before, after) if before and after and row is not plain else None
        for before, after in zip((plain.perplexities.get(window) for window in windows), losses, strict=True)
    ]
    return [
        plain.method, words, budget(_tokens(row)), f"{row.asked['learning_rate']:g}", str(row.asked["seed"]),
        *(number_format.perplexity(each.perplexity) if each else "" for each in losses),
        *map(nats, above),
        nats(row.damage(base)),
        *(keys_found([row], window) for window in windows),
        shares(row.retrieval.get(base.new_window)),
        seconds([row]),
    ]  # fmt: skip
