"""The paper's own tables against the reference page, where it is there."""

from __future__ import annotations

import math
import re

from ropewalk.records import paper


def test_the_papers_tables_are_those_of_the_reference(shared):
    """Against the tables of the reference page, cell by cell, where it is there."""
    text = (shared / "paper.md").read_text(encoding="utf-8")

    def rows_of(title: str) -> list[list[str]]:
        part = text[text.index(title) :]
        table = part[part.index("\n|") + 1 :].split("\n\n")[0]
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]

    for table, title in ((paper.TABLE_1, "Table 1,"), (paper.TABLE_2, "Table 2,")):
        for cells in rows_of(title):
            columns = [("none", 2048), ("FT", 8192), ("PI", 8192), ("PI", 16384), ("PI", 32768)]
            for (method, window), said in zip(columns, cells[1:], strict=True):
                mine = [r for r in table.rows if (r.model, r.method, r.window) == (cells[0], method, window)]
                figures = [float(figure) for figure in re.findall(r"\d+\.\d+", said)]
                assert [v for r in mine for v in r.values.values() if math.isfinite(v)] == figures, (
                    title,
                    cells[0],
                    method,
                )
    for mine, cells in zip(paper.TABLE_3.rows, rows_of("Table 3,"), strict=True):
        assert [mine.window, *mine.values.values()] == [float(cell) for cell in cells]
    direct = [list(r.values.values()) for r in paper.TABLE_4.rows if r.method == "FT"]
    assert direct == [[float(v) for v in cells[2].split()] for cells in rows_of("Table 4,")[:2]]
    assert list(paper.TABLE_4.rows[4].values.values()) == [float(v) for v in rows_of("Table 4,")[3][2].split()]
    assert [list(r.values.values()) for r in paper.TABLE_5.rows] == [
        [float(v) for v in c[1:]] for c in rows_of("## 5.")
    ]
    assert [list(r.values.values()) for r in paper.TABLE_6.rows] == [
        [float(v) for v in c[1:]] for c in rows_of("## 6.")
    ]
