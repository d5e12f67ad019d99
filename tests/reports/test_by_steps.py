"""Tables by fine-tuning steps have the intervals that the states' own rows have."""

from __future__ import annotations

import pytest

import made_up
from ropewalk import records
from ropewalk.reports import passkey, perplexity
from ropewalk.reports.rows import clean


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return clean(records.read([made_up.write(tmp_path_factory.mktemp("steps") / "r.jsonl")]), paper=False)


def tables(section):
    return {table.title.split(",")[0]: table for table in section.tables}


def test_perplexity_by_steps_has_the_interval_on_record(page):
    (line,) = tables(perplexity.section(page))["Perplexity by fine-tuning steps"].lines
    rows = {
        m.model_variant.steps: m.row
        for m in page.of(records.Perplexity)
        if m.row.window == 1024 and m.model_variant.method_and_factor == "PI ×4"
    }
    assert len(rows) > 2
    assert [(c.value, c.low, c.high) for c in line.cells] == [
        (rows[step].perplexity, rows[step].low, rows[step].high) for step in sorted(rows)
    ]


def test_k_max_by_steps_has_the_interval_of_the_state(page):
    found = tables(passkey.section(page))
    (line,) = found["k_max by fine-tuning steps"].lines
    (states,) = (table for title, table in found.items() if title.startswith("k_max by state"))
    own = [each for each in states.lines if each.label.startswith("PI ×4") and each.cells[0].text == "1024"]
    assert [(c.value, c.low, c.high) for c in line.cells] == [
        (e.cells[1].value, e.cells[1].low, e.cells[1].high) for e in own
    ]
    assert all(c.low <= c.value <= c.high for c in line.cells)
