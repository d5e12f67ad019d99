"""Long-context tasks on the page: a figure by length, a table by task, and how long a context is used in words."""

import made_up
from ropewalk import records
from ropewalk.evals.long_context.effective import effective
from ropewalk.evals.long_context.tasks import THIRTEEN
from ropewalk.records import Recorder
from ropewalk.reports.long_context import section
from ropewalk.reports.rows import clean

MEANS = {256: 0.95, 512: 0.9, 1024: 0.4}


def measured(path, means=MEANS):
    recorder = Recorder(path, made_up.run(made_up.extended(), "ropewalk ruler x"))
    rows = [
        records.LongTask(window, task, "RULER", 30, mean, mean - 0.05, mean + 0.05, texts="a")
        for window, mean in means.items()
        for task in THIRTEEN
    ]
    summary = effective(rows, 256, {"needle": "it is made of the user's needle"}, THIRTEEN)
    for row in [*rows, summary]:
        recorder.add(row)
    return section(clean(records.read([path])))


def test_the_page_has_a_figure_a_table_and_the_effective_length(tmp_path):
    part = measured(tmp_path / "r.jsonl")
    assert len(part.pictures) == 1 and "thirteen tasks" in part.pictures[0].title
    (table,) = part.tables
    assert table.head == ["tokens", *THIRTEEN] and [line.cells[0].text for line in table.lines] == [
        "256",
        "512",
        "1024",
    ]
    said = " ".join(part.notes)
    # Of 13 x 30 items 90 is surely above 85.6, and 40 surely below it and below 95; scipy's exact intervals by MOVER: -60.27 to -49.29, of 370.5 and 156 right.
    assert (
        "RULER's effective length (every mean up to it above 85.6 points) is 512, and no other length measured is in its interval"
        in said
    )
    assert "Against 256 tokens" in said and "at 1024 the mean differs by -55.0 points (-60.3 to -49.3)" in said
    assert "needle is left out: it is made of" in said


def test_a_task_that_does_not_fit_a_length_is_named_below_the_figure(tmp_path):
    recorder = Recorder(tmp_path / "r.jsonl", made_up.run(made_up.extended(), "ropewalk ruler x"))
    rows = [
        records.LongTask(window, task, "RULER", 30, 0.9, 0.8, 0.95, texts="a")
        for window, task in [(256, "vt"), (512, "vt"), (512, "cwe")]
    ]
    for row in [*rows, effective(rows, 256, {}, THIRTEEN, [records.Unfit(task="cwe", window=256, least=300)])]:
        recorder.add(row)
    part = section(clean(records.read([tmp_path / "r.jsonl"])))
    assert [[cell.text for cell in line.cells][-1] for line in part.tables[0].lines][0] == "–"
    said = " ".join(part.notes)
    assert "cwe is left out at 256 tokens: an item takes at least 300." in said and "By vt alone the length" in said
    assert "are of what was measured at every length from 256 to 512: vt." in said


def test_no_section_without_rows(tmp_path):
    Recorder(tmp_path / "r.jsonl", made_up.run(made_up.BASE, "ropewalk perplexity")).add(made_up.row(2.0))
    assert section(clean(records.read([tmp_path / "r.jsonl"]))) is None
