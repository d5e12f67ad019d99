"""Intervals in records of earlier versions, which hold Wilson's, Newcombe's and the bootstrap's: pages and the files of their tables have those of counts and documents."""

from __future__ import annotations

import csv
import math
import re
from statistics import fmean

import pytest
from scipy.stats import binomtest, sem, t

import made_up
from ropewalk import records
from ropewalk.evals.intervals import Paired
from ropewalk.reports import benchmarks, report
from ropewalk.reports.rows import clean

RIGHT, OF = 29, 30  # where Wilson's ends at 99.4 % and the exact one at 99.9 %


def rows(low: float, high: float) -> list:
    answers = "1" * RIGHT + "0" * (OF - RIGHT)
    return [
        records.Benchmark("boolq", RIGHT / OF, low, high, OF, RIGHT, 0, 256, answers, "d", "boolq v1"),
        records.Retrieval(256, "keys", OF, RIGHT, low, high),
        records.LongTask(256, "vt", "RULER", OF, RIGHT / OF, low, high, texts="a"),
        records.PasskeySummary(256, 256, 3, 10, RIGHT / OF, low=low, high=high),
    ]


def test_an_old_record_s_shares_have_exact_intervals_in_every_file(tmp_path):
    wilson, exact = (binomtest(RIGHT, OF).proportion_ci(0.95, method=method) for method in ("wilson", "exact"))
    path = made_up.record_rows(tmp_path / "r.jsonl", (made_up.BASE, *rows(wilson.low, wilson.high)))
    page = made_up.words(report([path], tmp_path / "page.html", tables=tmp_path / "tables").read_text())
    cells = {}
    for name, column, scale in (
        ("benchmarks-1", "BoolQ", 100),
        ("retrieval-1", "keys", 1),
        ("long-context-1", "vt", 1),
        ("passkey-1", "all prompts", 1),
    ):
        with (tmp_path / f"tables/{name}.csv").open(encoding="utf-8", newline="") as file:
            (line,) = [row for row in csv.DictReader(file) if next(iter(row.values())) == "base"]
        cells[name] = [float(line[f"{column} {end}"]) / scale for end in ("low", "high")]
        write = (lambda end: f"{100 * end:.1f}") if scale == 100 else (lambda end: f"{100 * end:.0f}")
        latex = (tmp_path / f"tables/{name}.tex").read_text(encoding="utf-8")
        assert re.search(rf"{write(exact.low)}.{{0,12}} to {write(exact.high)}", latex), name
        assert not re.search(rf"{write(wilson.low)}.{{0,12}} to {write(wilson.high)}", latex), name
    assert cells == {name: pytest.approx([exact.low, exact.high], rel=1e-9) for name in cells}
    assert len(re.findall(rf"{100 * exact.low:.0f}\s% to {100 * exact.high:.0f}\s%", page)) == 3


def test_an_old_comparison_has_the_interval_of_its_counts(tmp_path):
    """Of 2 items both gained: Newcombe's left out zero, which two items cannot."""
    row = records.BenchmarkComparison("boolq", "a", "b", 2, 0.0, 1.0, 1.0, 0.16, 1.0, 0, 2, 0.5)
    path = made_up.record_rows(tmp_path / "r.jsonl", (made_up.BASE, row))
    report([path], tmp_path / "page.html", tables=tmp_path / "tables")
    with (tmp_path / "tables/benchmarks-1.csv").open(encoding="utf-8", newline="") as file:
        (line,) = csv.DictReader(file)
    assert float(line["points low"]) < 0 < float(line["points high"])


def test_a_perplexity_has_the_interval_of_its_documents_whatever_is_on_record(tmp_path):
    """Of as many tokens each: the textbook's, of the mean of five losses. The oldest records have the bootstrap's, and anybody could have written others."""
    losses = [2.0, 2.1, 2.3, 2.2, 1.9]
    each = [{"name": f"d{place}", "tokens": 1000, "nll": 1000 * loss} for place, loss in enumerate(losses)]
    row = made_up.row(fmean(losses), per_document=each, low=8.1, high=8.2)
    path = made_up.record_rows(tmp_path / "r.jsonl", (made_up.BASE, row))
    report([path], tmp_path / "page.html", tables=tmp_path / "tables")
    with (tmp_path / "tables/perplexity-1.csv").open(encoding="utf-8", newline="") as file:
        (line,) = csv.DictReader(file)
    ends = t.interval(0.95, len(losses) - 1, fmean(losses), sem(losses))
    assert [float(line[f"256 L {end}"]) for end in ("low", "high")] == pytest.approx([math.exp(end) for end in ends])


@pytest.mark.parametrize("kept", [{"estimate": True}, {"per_document": []}])
def test_an_interval_that_is_not_of_the_documents_on_record_stays(tmp_path, kept):
    path = made_up.record_rows(tmp_path / "r.jsonl", (made_up.BASE, made_up.row(2.0, low=7.0, high=8.0, **kept)))
    (m,) = clean(records.read([path])).of(records.Perplexity)
    assert (m.row.low, m.row.high) == (7.0, 8.0)


def test_a_benchmark_is_bold_where_its_interval_and_its_test_both_leave_out_zero():
    """PIQA of 1838 items: 103 gained, 134 lost. The interval just leaves out zero, the exact test of 237 coins does not."""
    pair = Paired(1838 - 237, 134, 103, 0)
    low, high = pair.interval()
    p = binomtest(103, 237).pvalue
    assert high < 0 and p > 0.05 and pair.p_value() == pytest.approx(p)
    assert not benchmarks._difference(pair.difference, low, high, p).strong
    clear = Paired(1838 - 240, 150, 90, 0)
    cell = benchmarks._difference(clear.difference, *clear.interval(), binomtest(90, 240).pvalue)
    assert cell.strong and cell.tone == "bad"
    assert not benchmarks._difference(-0.01, -0.03, 0.01, 0.04).strong
