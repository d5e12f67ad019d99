"""What was never run: of the paper, of what this page was to have, and of the grids.

in   lab/records, lab/grids.toml
out  words for the end of the page
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import summaries
from rows import MODES, Row, rows_in
from run import grids, with_chosen_rates
from tables import budget

from ropewalk.sentences import joined
from ropewalk.settings.ablate import AblateSettings
from ropewalk.settings.written_numbers import tokens
from ropewalk.suite.row import rows_of

#: The paper's largest factor, and the tokens of its 1000 steps of 64 windows of 8192.
_FACTOR, _TOKENS = 32, 1000 * 64 * 8192


def sentences(records: Path) -> str:
    """What no record is of."""
    rows = [row for directory in sorted(records.glob("*/*")) for row in rows_in(directory)]
    left = "; ".join(_left(records))
    return (
        f"**Never run:** {_larger(rows)}; a 7B with real weights least of all, so that what this says of one is an extrapolation. Nor {'; nor '.join(_absent(rows, records))}. "
        "One seed where no other number is given."
        + (
            f" Rows of [grids.toml](../lab/grids.toml) that are there, where not all are (level, model): {left}."
            if left
            else ""
        )
    )


def _larger(rows: list[Row]) -> str:
    """What is larger than the largest model on record."""
    size, name = max((row.parameters, row.name) for row in rows)
    return f"models of more than {size / 1e6:.0f} million parameters ({name}, the largest of the records)"


def _absent(rows: list[Row], records: Path) -> Iterable[str]:
    """What the paper or the grids have, and no row."""
    asked = [row.asked for row in rows]
    if (factor := max(each["factor"] for each in asked)) < _FACTOR:
        yield f"the paper's ×{_FACTOR} (at most ×{factor:g})"
    if (most := max(each["tokens"] for each in asked)) < _TOKENS:
        yield f"the paper's 1000 steps of {budget(_TOKENS)} tokens in all (at most {budget(most)})"
    if not any((records / summaries.LEVEL).glob("*.jsonl")):
        yield "the paper's summaries (table 6) beside the first words of each document"
    names = {row.name for row in rows}
    asked_for = dict.fromkeys(
        table["model"] for table in grids([]) if table["level"] != "steps"
    )  # those are made of others
    yield from (f"any row of {model}" for model in asked_for if model not in names)
    for mode, words in MODES.items():
        if mode not in {each["mode"] for each in asked}:
            yield words
    if not any(row.in_two_steps for row in rows):
        yield "windows in two steps"
    if not any((records / "penalty").glob("*/*.jsonl")):
        yield "a model pretrained with a penalty on |h_j|, the paper's open question"


def _left(records: Path) -> Iterable[str]:
    """Of each level and model with rows of the grids that are not there: how many are, and which are not."""
    counts: dict[str, dict[str, bool]] = {}
    for options in grids([]) + grids(["cpu"]):
        if options.get("learning_rates") == "chosen" and "from" not in options:
            continue  # which rows are still to be measured in full follows from those that it chooses among
        level = options["level"]
        out = records / options.get("into", level) / options["model"]
        for part in with_chosen_rates(options | {"out": out}, records):
            there = counts.setdefault(f"{level}, {options['model']}", {})
            there |= {row.name: (out / f"{row.name}.jsonl").is_file() for row in _rows(part)}
    for name, there in counts.items():
        absent = [f"`{row}`" for row, is_there in there.items() if not is_there]
        if absent:
            without = f" (without {joined(absent)})" if len(absent) < len(there) else ""
            yield f"{name}: {len(there) - len(absent)} of {len(there)}{without}"


def _rows(options: dict) -> list:
    names = ("model", "methods", "learning_rates", "seeds", "factors")
    known = {key: options[key] for key in names if key in options}
    budgets = [tokens(word) for word in options["tokens"]]
    return rows_of(AblateSettings(**known, tokens=budgets, test="t", data="d", out="o"))
