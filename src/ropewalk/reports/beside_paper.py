"""The paper's perplexities as they stand beside one's own: which table, and which of its rows.

in   a group of rows of one text
out  lines and tables of the paper's figures
"""

from __future__ import annotations

import re

from ropewalk.records import format as number_format
from ropewalk.records import paper
from ropewalk.records.sources import read_names
from ropewalk.records.variant import last_steps
from ropewalk.reports.comparable import Group
from ropewalk.reports.content import Cell, Line, Table


def paper_table(data: str) -> paper.PaperTable:
    """The table whose text is of the same sort: mathematics goes with the proof-pile, everything else with PG-19."""
    sources = read_names(data).names
    mathematics = sources and all(re.search(r"math|proof|arxiv", source, re.IGNORECASE) for source in sources)
    return paper.TABLE_2 if mathematics else paper.TABLE_1


def lines_of_paper(group: Group) -> list[Line]:
    """The paper's 7B rows (and "none") for the methods and factors measured here; all of its methods if none fits.

    None where the paper has no figure at these multiples of L.
    """
    table, variants = paper_table(group.data), last_steps(list(group.variants()))
    windows = sorted({window for variant in variants for window in group.variants()[variant]})
    multiples = [window / variants[0].original_window for window in windows]
    methods = {paper.METHODS.get(variant.method) for variant in variants if variant.extended}
    factors = {variant.window / variant.original_window for variant in variants if variant.extended}
    rows = [row for row in table.rows if row.model == "7B"]
    none = next(row for row in rows if row.method == "none").values[paper.WINDOW]
    fitting = [row for row in rows if row.method == "none" or (row.method in methods and row.factor in factors)]
    if len(fitting) < 2:
        fitting = [row for row in rows if row.method in ("none", "PI") and row.factor in (1, 4)]
    lines = []
    for row in fitting:
        figures = [row.values.get(int(multiple * paper.WINDOW)) for multiple in multiples]
        if not any(figures):  # at windows that the paper has no multiple of
            continue
        lines.append(Line(paper_label(row), [_paper_cell(value, none) for value in figures], paper=True))
    return lines


def paper_label(row: paper.PaperRow) -> str:
    """What a row of the paper is called beside one's own."""
    if not row.method:
        return row.model
    extended = "not extended" if row.method == "none" else f"{row.method} ×{row.factor:g} ({row.window})"
    return f"LLaMA {row.model}, {extended}" + (f", {row.data}" if row.data else "")


def table_3() -> Table:
    none = paper.TABLE_1.rows[0].values[paper.WINDOW]
    theirs = [
        Line(
            paper_label(row),
            [Cell(number_format.fixed(v), change_between(v, none)) for v in row.values.values()],
            paper=True,
        )
        for row in paper.TABLE_3.rows
    ]
    head = [str(step) for step in paper.TABLE_3.rows[0].values]
    return Table("Beside it, table 3 of the paper (PG-19)", head, theirs, first="steps", under=True)


def _paper_cell(value: float | None, none: float) -> Cell:
    if value is None:
        return Cell("")
    if value == paper.ABOVE_1000:
        return Cell("> 1000")
    return Cell(number_format.fixed(value), "" if value == none else change_between(value, none))


def change_between(value: float, base: float) -> str:
    if not (number_format.is_finite(base) and number_format.is_finite(value)) or base <= 0:
        return ""
    return number_format.percent(value / base - 1) if value < 3 * base else number_format.times(value / base)
