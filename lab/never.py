"""What was never run: of the paper, of what this page was to have, and of the grids.

in   lab/records, lab/grids.toml
out  words for the end of the page
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import penalty
import summaries
from rows import MODES, Row, rows_in
from run import grids, with_chosen_rates
from tables import budget

from ropewalk.sentences import joined
from ropewalk.settings.ablate import AblateSettings
from ropewalk.settings.written_numbers import tokens
from ropewalk.suite.row import asked_of, rows_of

#: The paper's largest factor, and the tokens of its 1000 steps of 64 windows of 8192.
_FACTOR, _TOKENS = 32, 1000 * 64 * 8192
#: Models of this project's own making: what holds on them alone was not yet tried on one that others made.
_OURS = ("hemp", "lab-2k")


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
    row = _largest(rows)
    return f"models of more than {row.parameters / 1e6:.0f} million parameters ({row.name}, the largest of the records)"


def _largest(rows: list[Row]) -> Row:
    """A row of the largest model, as it was before any step."""
    return max(rows, key=lambda row: (row.parameters, not row.in_two_steps))


def _absent(rows: list[Row], records: Path) -> Iterable[str]:
    """What the paper or the grids have, and no row; of factor, tokens and steps no row of a model that others made."""
    others = [row for row in rows if not row.name.startswith(_OURS)]
    longest, most = (max(others, key=lambda row: row.asked[what]) for what in ("factor", "tokens"))
    if (factor := longest.asked["factor"]) < _FACTOR:
        yield f"the paper's ×{_FACTOR} on a model that others made (at most ×{factor:g}, {longest.name})"
    if (read := most.asked["tokens"]) < _TOKENS:
        yield f"the paper's 1000 steps of {budget(_TOKENS)} tokens in all on one (at most {budget(read)}, {most.name})"
    if not any(row.in_two_steps for row in others):
        yield "windows in two steps on one"
    documents = summaries.most_documents(records, min(row.parameters for row in others))
    if documents < summaries.DOCUMENTS:
        of = f"{summaries.DOCUMENTS} documents or more that are known to be longer than its old window (at most {documents})"
        yield f"the paper's summaries (table 6) by one, of {of}, beside the first words of each"
    names = {row.name for row in rows}
    asked_for = dict.fromkeys(
        table["model"] for table in grids([]) if table["level"] != "steps"
    )  # those are made of others
    yield from (f"any row of {model}" for model in asked_for if model not in names)
    for mode, words in MODES.items():
        if mode not in {row.asked["mode"] for row in rows}:
            yield words
    yield from penalty.absent(records)


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
            there |= {row.name: _is_measured(out / f"{row.name}.jsonl", part) for row in _rows(part)}
    for name, there in counts.items():
        absent = [f"`{row}`" for row, is_there in there.items() if not is_there]
        if absent:
            without = f" (without {joined(absent)})" if len(absent) < len(there) else ""
            yield f"{name}: {len(there) - len(absent)} of {len(there)}{without}"


def _is_measured(path: Path, options: dict) -> bool:
    """Whether a row lies there for which as much was asked; that it is whole, all readers of rows see to."""
    asked = asked_of(path)
    return asked is not None and {*options.get("measure", AblateSettings.measure)} <= {*asked["measure"]}


def _rows(options: dict) -> list:
    names = ("model", "methods", "learning_rates", "seeds", "factors")
    known = {key: options[key] for key in names if key in options}
    budgets = [tokens(word) for word in options["tokens"]]
    return rows_of(AblateSettings(**known, tokens=budgets, test="t", data="d", out="o"))
