"""Long-context tasks on the page: a figure by length, a table by task, and how long a context is used in words."""

import dataclasses
import math
import re

from scipy.stats import beta

import made_up
from ropewalk import records
from ropewalk.cli.tables.measured import show_ruler
from ropewalk.evals.long_context.effective import effective
from ropewalk.evals.long_context.tasks import THIRTEEN
from ropewalk.records import Recorder
from ropewalk.reports import render
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


def test_a_task_that_counts_in_no_mean_is_named_with_the_reason_in_the_terminal_and_on_the_page(tmp_path, capsys):
    recorder = Recorder(tmp_path / "r.jsonl", made_up.run(made_up.extended(), "ropewalk ruler x"))
    rows = [
        records.LongTask(window, task, rule, 30, 0.9, 0.8, 0.95, texts="a")
        for window in (256, 512)
        for task, rule in [("vt", "RULER 2026-07, items v1"), ("key_value", "Lost in the Middle, items v3")]
    ]
    summary = effective(rows, 256, {}, THIRTEEN, [records.Unfit(task="graphwalks_bfs", window=256, least=300)])
    for row in [*rows, summary]:
        recorder.add(row)
    said = "key_value counts in no mean: it is none of RULER's thirteen tasks."
    assert said in section(clean(records.read([tmp_path / "r.jsonl"]))).notes
    show_ruler(rows, summary)
    assert said in " ".join(capsys.readouterr().out.split())
    alone = effective(rows[1::2], 256, {}, ["key_value"])
    show_ruler(rows[1::2], alone)
    assert "in no mean" not in capsys.readouterr().out


def test_no_section_without_rows(tmp_path):
    Recorder(tmp_path / "r.jsonl", made_up.run(made_up.BASE, "ropewalk perplexity")).add(made_up.row(2.0))
    assert section(clean(records.read([tmp_path / "r.jsonl"]))) is None


def by_ruler(path, model, means, *rows):
    recorder = Recorder(path, made_up.run(model, f"ropewalk ruler {model.name}"))
    tasks = [records.LongTask(w, t, "RULER", 30, m, m - 0.05, m + 0.05, texts="a") for w, m in means.items() for t in THIRTEEN]  # fmt: skip
    for row in [*tasks, effective(tasks, 256, {}, THIRTEEN), *rows]:
        recorder.add(row)


def verdict_of(path) -> str:
    text = made_up.words(render(records.read([path]))).split("Not known")[0]
    return text.replace("\u202f", " ").replace("\u00a0", " ")


def test_what_fails_at_the_shortest_length_is_said_so(tmp_path):
    """It held "to below 256 (95 % interval below 256 to below 256)"."""
    by_ruler(tmp_path / "r.jsonl", made_up.extended(), {256: 0.4, 1024: 0.3})
    text = verdict_of(tmp_path / "r.jsonl")
    low, high = (f"{100 * end:.1f}" for end in beta_ends(0.4 * 390, 390))
    mean = f"(mean score there 40.0, 95 % interval {low} to {high}, of the 85.6 it takes)"
    assert f"it holds not even at 256, the shortest length measured, by RULER {mean}; the short window" in text
    assert "below 256 to" not in text
    notes = section(clean(records.read([tmp_path / "r.jsonl"]))).notes
    assert "is below 256, the shortest length measured, and no other length measured is in its interval" in notes[0]


def test_an_interval_that_reaches_past_the_shortest_length_is_said_to_where(tmp_path):
    """11 of 13 in 13 items lie around the threshold of 85.6."""
    rows = [records.LongTask(w, t, "RULER", 1, s, 0.0, 1.0) for w in (256, 1024) for t, s in zip(THIRTEEN, [1.0] * 11 + [0.0] * 2, strict=True)]  # fmt: skip
    summary = effective(rows, 256, {}, THIRTEEN)
    assert (summary.effective, summary.effective_low, summary.effective_high) == (0, 0, 1024)
    assert summary.holds.replace("\u202f", " ") == "not even at 256, the shortest length measured, by RULER (95 % interval up to 1024)"  # fmt: skip


def test_the_short_window_that_ruler_measured_is_taken_from_there(tmp_path):
    """It was said not to be measured. 0.95 and 0.9 of 390 items: scipy's exact intervals put together as independent."""
    path = tmp_path / "r.jsonl"
    by_ruler(path, made_up.extended(), {256: 0.9, 1024: 0.4})
    assert re.search(r"the short window is known by RULER: at 256 tokens its mean score is 90.0 \(95 % interval 86.\d to 92.\d\), and its base was not asked the same \(ropewalk ruler BASE --windows 256\)\.", verdict_of(path))  # fmt: skip
    by_ruler(path, made_up.BASE, {256: 0.95})
    (low, high), (other_low, other_high) = (beta_ends(share * 390, 390) for share in (0.95, 0.9))
    below, above = math.hypot(0.9 - other_low, high - 0.95), math.hypot(other_high - 0.9, 0.95 - low)
    ends = [f"{100 * (-0.05 + step):+.1f}".replace("-", "−") for step in (-below, above)]
    assert f"at 256 tokens its mean score went 95.0 → 90.0, −5.0 points (95 % interval {ends[0]} to {ends[1]})." in verdict_of(path)  # fmt: skip


def test_a_perplexity_of_the_short_window_goes_before_ruler(tmp_path):
    path = tmp_path / "r.jsonl"
    by_ruler(path, made_up.extended(), {256: 0.9, 1024: 0.4}, made_up.row(2.1))
    by_ruler(path, made_up.BASE, {256: 0.95}, made_up.row(2.0))
    assert "At the short window of 256 tokens its perplexity went 7.39 → 8.17" in verdict_of(path)
    assert "known by RULER" not in verdict_of(path)


def beta_ends(successes: float, trials: int) -> tuple[float, float]:
    """Clopper and Pearson's, as their paper has it: quantiles of two beta distributions."""
    return beta.ppf(0.025, successes, trials - successes + 1), beta.ppf(0.975, successes + 1, trials - successes)


def test_a_single_task_measured_later_does_not_decide_how_far_it_holds(tmp_path):
    path = tmp_path / "r.jsonl"
    measured(path)
    before = verdict_of(path)
    run = made_up.run(made_up.extended(), "ropewalk ruler x --tasks needle")
    later = Recorder(path, dataclasses.replace(run, id="later", started="2099-01-01T00:00:00+00:00"))
    rows = [
        records.LongTask(w, "needle", "one", 30, share, 0.0, 0.12, texts="b") for w, share in ((512, 0.0), (256, 0.1))
    ]
    for each in (*rows, effective(rows, 256, {}, ["needle"])):
        later.add(each)
    after = verdict_of(path)
    assert (
        "Asked besides: needle 10.0 of 100 at 256 tokens (30 items, 95 % interval 2.1 to 26.5) and 0.0 at 512 tokens (30 items, 95 % interval 0.0 to 11.6)."
        in after
    )  # Clopper and Pearson of 3 and 0 of 30
    assert (
        "needle" not in before and re.search(r"it holds [^;]*;", after)[0] == re.search(r"it holds [^;]*;", before)[0]
    )
