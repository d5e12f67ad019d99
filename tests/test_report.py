"""The page says what the rows say, says what is wrong with them, and believes nothing it cannot check. All rows are made up."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import numpy as np
import pytest

import made_up
from ropewalk import numerals, paper, record
from ropewalk.errors import UserError
from ropewalk.record import Recorder
from ropewalk.report import render, report
from ropewalk.report.paired import ratio
from ropewalk.report.passkey import k_max_interval
from ropewalk.report.perplexity import groups, paper_table, short_data
from ropewalk.report.rows import clean
from ropewalk.report.training import budget, trainings
from ropewalk.states import labels, state_of


def words(page: str) -> str:
    """What a reader reads: tags and the style sheet gone, blanks as one, narrow blanks as blanks."""
    body = re.sub(r"<style>.*?</style>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", body)).replace("\u202f", " "))


def header(state: record.ModelState) -> dict:
    return {"model": dataclasses.asdict(state)}


def row(nll: float, window: int = 256, documents: int = 5, tokens: int = 1000, **changes) -> record.Perplexity:
    """A perplexity row whose documents all have the same nll a token."""
    each = [{"name": f"d{i}", "tokens": tokens, "nll": nll * tokens} for i in range(documents)]
    fields = dict(
        window=window, stride=64, perplexity=math.exp(nll), low=math.exp(nll), high=math.exp(nll), documents=documents
    )
    fields |= dict(skipped=0, tokens=tokens * documents, bos=True, data="held-out", per_document=each)
    return record.Perplexity(**(fields | changes))


def write(path: Path, *measured: tuple, **changes) -> Path:
    """(state, row, row, …) each as a run of its own."""
    for state, *rows in measured:
        recorder = Recorder(path, made_up.run(state, f"ropewalk measure {state.name}", **changes))
        for one in rows:
            recorder.add(one)
    return path


@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> str:
    return render(record.read([made_up.write(tmp_path_factory.mktemp("all") / "r.jsonl")]))


# The states


@pytest.mark.parametrize(
    ("state", "window", "role", "label"),
    [
        (made_up.BASE, None, "base", "base"),
        (made_up.BASE, 256, "base", "base"),
        (made_up.BASE, 257, "extrapolation", "base, extrapolating"),
        (made_up.extended(4), 1024, "untrained", "PI ×4, before training"),
        (made_up.extended(4, 200), 256, "trained", "PI ×4, 200 steps"),
        (made_up.extended(4, 200), 4096, "trained", "PI ×4, 200 steps"),
        (made_up.extended(8, 10, "yarn"), 2048, "trained", "YaRN ×8, 10 steps"),
        (made_up.extended(4, 0, "my-rope"), 1024, "untrained", "my-rope ×4, before training"),
        (
            dataclasses.replace(made_up.BASE, window=1024, steps=500),
            1024,
            "trained",
            "direct fine-tuning ×4, 500 steps",
        ),
        (dataclasses.replace(made_up.BASE, window=1024), 512, "extrapolation", "base, extrapolating"),
        (dataclasses.replace(made_up.BASE, steps=7), 256, "base", "base, 7 steps more"),
    ],
)
def test_the_state_is_told_from_the_config_and_the_window(state, window, role, label):
    found = state_of(header(state), window)
    assert (found.role, found.label) == (role, label)


def test_states_that_share_a_label_are_told_apart():
    one, other = (state_of(header(made_up.extended(4, 200, name=name))) for name in ("seed-1", "seed-2"))
    assert sorted(labels([one, other]).values()) == ["PI ×4, 200 steps (seed-1)", "PI ×4, 200 steps (seed-2)"]
    assert labels([one]) == {one: "PI ×4, 200 steps"}


# The verdict


def test_the_verdict_compares_rows_of_the_page(tmp_path):
    base, after = math.log(8.0), math.log(8.4)
    path = write(
        tmp_path / "r.jsonl",
        (made_up.BASE, row(base), row(math.log(80.0), 1024), record.PasskeySummary(1024, 224, 32, 10, 0.2)),
        (made_up.extended(4), row(math.log(20.0), 1024)),
        (
            made_up.extended(4, 200),
            row(after),
            row(math.log(7.6), 1024),
            record.PasskeySummary(1024, 1024, 32, 10, 1.0),
        ),
    )
    page = words(render(record.read([path])))
    assert "hemp was extended from 256 to 1024 tokens (×4) by Position Interpolation and trained for 200 steps." in page
    assert (
        "Perplexity at the original 256 tokens: 8.00 → 8.40, +5.0 % (95 % interval +5.0 % to +5.0 %, paired over 5 documents)."
        in page
    )
    assert "At 1024 tokens: 7.60 (the base, extrapolating, 80.00; before training 20.00)." in page
    assert "From 256 to 1024 tokens its perplexity falls, so the longer context is put to use: −9.5 %" in page
    assert "Against the base in its own window (8.00) that is −5.0 %" in page
    assert "Passkey retrieval reaches k_max 1024 of 1024 tokens; the base 224 of 1024." in page


def test_a_longer_context_that_does_not_help_is_called_that(tmp_path):
    path = write(tmp_path / "r.jsonl", (made_up.BASE, row(2.0)), (made_up.extended(4, 9), row(2.0), row(2.2, 1024)))
    assert "its perplexity rises, so the longer context does harm: +22.1 %" in words(render(record.read([path])))


def test_a_model_that_merely_trained_on_the_text_is_not_said_to_use_its_context(tmp_path):
    """Better than the base everywhere, and no better with more in sight."""
    path = write(tmp_path / "r.jsonl", (made_up.BASE, row(2.0)), (made_up.extended(4, 9), row(1.8), row(1.8, 1024)))
    page = words(render(record.read([path])))
    assert "put to use" not in page
    assert "its perplexity does not change beyond chance" in page


def test_two_documents_are_too_few_for_a_reading(tmp_path):
    two = [row(nll, window, documents=2) for nll, window in ((2.0, 256), (1.8, 1024))]
    page = words(
        render(
            record.read(
                [write(tmp_path / "r.jsonl", (made_up.BASE, row(2.0, documents=2)), (made_up.extended(4, 9), *two))]
            )
        )
    )
    assert "put to use" not in page
    assert "the documents are too few, or not the same, for an interval" in page


def test_threads_and_training_formats_are_no_mixture(tmp_path):
    path = write(tmp_path / "r.jsonl", (made_up.BASE, row(2.0)))
    step = record.Step(1, 2.0, 2e-5, 1.0, 100, 50.0, 2.0)
    write(path, (made_up.extended(), step), device="cpu, 2 threads", dtype="float32 weights, bfloat16 arithmetic")
    assert "Read with care" not in words(render(record.read([path])))


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("hemp", "hemp"),
        ("meta-llama/Llama-2-7b", "meta-llama/Llama-2-7b"),
        ("/data/runs/t", "t"),
        ("./t/", "t"),
        ("a/b/c", "c"),
    ],
)
def test_a_path_is_named_by_its_last_part(name, short):
    assert state_of(header(dataclasses.replace(made_up.BASE, name=name))).short_name == short


def test_nothing_is_said_of_what_was_not_measured(tmp_path):
    page = words(render(record.read([write(tmp_path / "r.jsonl", (made_up.BASE, row(2.0)))])))
    assert (
        "Only the base model was measured (256 tokens); nothing was extended. Its perplexity at 256 tokens is 7.39."
        in page
    )
    assert "k_max" not in page.split("Not measured")[0] and "chance" not in page and "longer window" not in page
    for number in (2, 3, 4, 5, 6):
        assert f"Table {number} (" in page
    assert "Table 1 (" not in page


def test_what_was_measured_is_not_listed_as_missing(everything):
    assert re.findall(r"Table (\d) \(", words(everything)) == ["2"]


def test_two_base_models_get_a_verdict_each(tmp_path):
    other = record.ModelState("lab", "llama", 512, 512, head_dim=64, parameters=2_000_000)
    page = words(render(record.read([write(tmp_path / "r.jsonl", (made_up.BASE, row(2.0)), (other, row(3.0, 512)))])))
    assert page.startswith(" hemp, lab ")
    assert "2 base models are mixed on this page" in page
    assert "perplexity at 256 tokens is 7.39" in page and "perplexity at 512 tokens is 20.09" in page


# Pairs


def test_the_paired_interval_is_exact_when_every_document_changed_alike():
    before, after = (dataclasses.asdict(row(nll)) for nll in (2.0, 2.0 + math.log(1.05)))
    for one, other, hardness in zip(
        before["per_document"], after["per_document"], (0.1, -0.3, 0.7, 0.0, 1.2), strict=True
    ):
        one["nll"] += hardness * one["tokens"]  # hard documents are hard for both: that must not widen the interval
        other["nll"] += hardness * other["tokens"]
    found = ratio(before, after)
    assert (found.low, found.high) == (pytest.approx(1.05), pytest.approx(1.05))


def test_the_paired_interval_covers_the_true_change_as_often_as_it_says():
    """40 documents whose change has mean 3 % and scatter 4 %: about 95 % of 300 intervals must hold it."""
    draw, held = np.random.default_rng(0), 0
    for seed in range(300):
        change = draw.normal(math.log(1.03), 0.04, 40)
        before = {
            "perplexity": 10.0,
            "window": 1,
            "per_document": [{"name": str(i), "tokens": 100, "nll": 230.0} for i in range(40)],
        }
        after = {
            **before,
            "per_document": [{"name": str(i), "tokens": 100, "nll": 230.0 + 100 * c} for i, c in enumerate(change)],
        }
        found = ratio(before, after, seed=seed)
        held += found.low <= 1.03 <= found.high
    assert 0.90 <= held / 300 <= 0.98  # a percentile bootstrap of 40 runs a little narrow; binomial error is 1.3 %


def test_other_tokens_in_the_same_document_are_no_pair_and_said(tmp_path):
    path = write(tmp_path / "r.jsonl", (made_up.BASE, row(2.0)), (made_up.extended(4, 9), row(2.1, tokens=990)))
    page = words(render(record.read([path])))
    assert "PI ×4, 9 steps and its base count different tokens in the same documents" in page
    assert "paired over" not in page


def test_other_documents_are_no_pair_and_said(tmp_path):
    path = write(tmp_path / "r.jsonl", (made_up.BASE, row(2.0)), (made_up.extended(4, 9), row(2.1, documents=9)))
    page = words(render(record.read([path])))
    assert "were not measured on the same documents at 256 tokens" in page
    assert "paired over" not in page


def test_benchmarks_are_paired_item_by_item(tmp_path):
    def answered(answers: str, digest: str = "same") -> record.Benchmark:
        share = answers.count("1") / len(answers)
        return record.Benchmark(
            "boolq", share, 0.0, 1.0, len(answers), answers.count("1"), 0, 256, answers, digest, "boolq v1"
        )

    before, after = answered("1" * 60 + "0" * 40), answered("1" * 45 + "0" * 55)
    page = words(
        render(record.read([write(tmp_path / "a.jsonl", (made_up.BASE, before), (made_up.extended(4, 9), after))]))
    )
    assert (
        "Of 1 benchmarks in the original window 1 lost beyond chance (BoolQ); the mean changed by −15.0 points." in page
    )
    assert "< 0.001" in page  # 15 of 15 changes were losses: 2 / 2**15
    other = answered("1" * 45 + "0" * 55, "another")
    page = words(
        render(record.read([write(tmp_path / "b.jsonl", (made_up.BASE, before), (made_up.extended(4, 9), other))]))
    )
    assert "Not compared, because the two models were asked different items: BoolQ." in page
    assert "lost beyond chance" not in page


def test_k_max_is_sure_where_all_depths_agree_and_unsure_at_a_doubtful_one():
    depths = [{"k": 32 * i, "trials": 10, "successes": 10} for i in range(1, 33)]
    assert k_max_interval(depths) == (1024, 1024)
    assert k_max_interval([{**d, "successes": 0} for d in depths])[0] == 0
    doubtful = [{**d, "successes": 2} if d["k"] == 512 else d for d in depths]
    assert k_max_interval(doubtful) == (480, 1024)
    cliff = [{**d, "successes": 10 if d["k"] <= 256 else 0} for d in depths]
    low, high = k_max_interval(cliff)
    assert low == 256 and high <= 288


# What was mixed, damaged, repeated


def test_damaged_and_foreign_lines_are_counted_and_said(tmp_path):
    path = write(tmp_path / "r.jsonl", (made_up.BASE, row(2.0)))
    run = json.loads(path.read_text().splitlines()[0])["id"]
    with open(path, "a", encoding="utf-8") as file:
        file.write('{"kind": "perplexity", "run": "abc", "window": 25\n')  # cut short
        file.write("not json at all\n")
        file.write(json.dumps({"kind": "telepathy", "run": run, "value": 3}) + "\n")
        file.write(json.dumps({"kind": "passkey_summary", "run": "nobody", "window": 8, "k_max": 8}) + "\n")
        file.write(json.dumps({"kind": "perplexity", "run": run, "window": "wide", "stride": 1}) + "\n")
    page = words(render(record.read([path])))
    assert "2 lines of the record files could not be read (cut short or edited) and were left out." in page
    assert "Rows of unknown kind, not shown: “telepathy” (1)." in page
    assert "1 row without the header of a run, so of unknown origin, was left out." in page
    assert "1 row of kind “perplexity” with a field missing or of the wrong type was left out." in page


def test_a_clean_page_has_nothing_to_read_with_care(tmp_path):
    page = words(render(record.read([write(tmp_path / "r.jsonl", (made_up.BASE, row(2.0)))])))
    assert "Read with care" not in page


def test_mixed_machines_and_versions_are_said(tmp_path):
    path = write(tmp_path / "r.jsonl", (made_up.BASE, row(2.0)))
    write(
        path,
        (made_up.extended(4, 9), row(2.1)),
        device="NVIDIA H200",
        dtype="bfloat16",
        seed=3,
        versions={"python": "3.11.2", "torch": "2.11.0"},
    )
    page = words(render(record.read([path])))
    assert (
        "The 2 runs on this page were made with different devices (NVIDIA H200, cpu); number formats (bfloat16, float32); seeds (0, 3)"
        in page
    )
    assert "torch versions (2.11.0, 2.13.0)" in page


def test_of_a_figure_measured_twice_the_newest_is_shown_and_it_is_said(tmp_path):
    path = write(tmp_path / "r.jsonl", (made_up.BASE, row(2.0)), started="2026-11-22T09:00:00+00:00")
    write(path, (made_up.BASE, row(3.0)), started="2026-11-21T09:00:00+00:00")
    page = words(render(record.read([path])))
    assert "7.39" in page and "20.09" not in page
    assert "1 row measured what another row measured too; the newest is shown." in page


def test_an_estimate_gives_way_to_the_exact_figure_and_is_marked_where_it_stands(tmp_path):
    path = write(tmp_path / "r.jsonl", (made_up.BASE, row(2.0)), started="2026-11-21T09:00:00+00:00")
    write(path, (made_up.BASE, row(2.1, estimate=True)), (made_up.extended(4, 9), row(2.2, estimate=True)))
    page = words(render(record.read([path])))
    assert "≈ 9.03" in page and "8.17" not in page and "7.39" in page


def test_perplexities_measured_in_different_ways_share_no_table(tmp_path):
    path = write(
        tmp_path / "r.jsonl",
        (made_up.BASE, row(2.0), row(2.4, convention="lm-eval")),
        (made_up.extended(4, 9), row(2.1, bos=False)),
    )
    found = groups(clean(record.read([path])))
    assert len(found) == 3
    assert "only those measured alike share a figure" in words(render(record.read([path])))


def test_a_stride_that_is_a_part_of_every_window_is_one_rule(tmp_path):
    path = write(tmp_path / "r.jsonl", (made_up.BASE, row(2.0, 256, stride=64), row(4.0, 1024, stride=256)))
    assert [group.stride for group in groups(clean(record.read([path])))] == ["stride window/4"]
    other = write(tmp_path / "s.jsonl", (made_up.BASE, row(2.0, 256, stride=64), row(4.0, 1024, stride=512)))
    assert [group.stride for group in groups(clean(record.read([other])))] == ["stride 64", "stride 512"]


def test_tokens_of_training_are_matched_to_the_state_they_made(tmp_path):
    path = made_up.write(tmp_path / "r.jsonl")
    rows = clean(record.read([path]))
    runs = trainings(rows)
    assert budget(state_of(header(made_up.extended(4, 50))), runs) == 50 * 8192
    assert budget(state_of(header(made_up.extended(8, 200, "yarn"))), runs) == 200 * 8192
    assert budget(state_of(header(made_up.extended(16, 200))), runs) is None
    assert budget(state_of(header(made_up.extended(4, 9000))), runs) is None


def test_a_step_that_was_done_twice_counts_once(tmp_path):
    path = tmp_path / "r.jsonl"
    recorder = Recorder(path, made_up.run(made_up.extended(), "ropewalk train"))
    for number in (1, 2, 3, 2, 3, 4):  # resumed from step 1
        recorder.add(record.Step(number, 2.0, 2e-5, 1.0, 100, 50.0, 2.0))
    assert [(run.tokens, run.seconds) for run in trainings(clean(record.read([path])))] == [(400, 8.0)]


def test_a_loss_that_is_no_number_is_a_dash_and_said(tmp_path):
    path = tmp_path / "r.jsonl"
    recorder = Recorder(path, made_up.run(made_up.extended(), "ropewalk train"))
    for number, loss in enumerate((2.0, math.nan, math.inf), 1):
        recorder.add(record.Step(number, loss, 2e-5, 1.0, 100, 50.0, 2.0))
    recorder.add(row(math.nan, 256, low=math.nan, high=math.nan))
    page = words(render(record.read([path])))
    assert "2 of 3 steps have a loss that is not finite" in page
    assert "nan" not in page.lower().split() and "None" not in page


# The page itself


def test_everything_from_a_record_is_escaped(tmp_path):
    evil = "<script>alert(1)</script>"
    state = dataclasses.replace(made_up.BASE, name=evil, family=evil)
    path = tmp_path / "r.jsonl"
    run = made_up.run(state, f"ropewalk {evil}", device=evil, dtype=evil, settings={evil: evil, "tokenizer": evil})
    run = dataclasses.replace(run, id=evil, versions={evil: evil})
    recorder = Recorder(path, run)
    recorder.add(row(2.0, data=evil, convention=evil))
    recorder.add(record.Benchmark(evil, 0.5, 0.4, 0.6, 2, 1, 1, 256, "10", evil, evil))
    recorder.add(record.Summary(0.2, 0.1, 0.2, {}, 2, 1, 1, evil, 256, 100, 10, data=evil))
    recorder.add(dataclasses.replace(record.PasskeySummary(256, 8, 1, 1, 1.0)))
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps({"kind": evil, "run": evil}) + "\n")
    page = render(record.read([path]), title=evil)
    assert "<script" not in page.lower()
    assert page.count("&lt;script&gt;") >= 10


def test_the_page_stands_alone(everything):
    assert "<script" not in everything and "javascript:" not in everything
    assert not re.findall(r'\b(?:src|srcset|action|data)="', everything)
    assert all(link.startswith("#") for link in re.findall(r'href="([^"]+)"', everything))
    assert not re.findall(r"url\((?!#)|@import", everything)
    assert set(re.findall(r'https?://[^"\s<]+', everything)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_every_run_on_the_page_is_described(tmp_path):
    page = words(render(record.read([made_up.write(tmp_path / "r.jsonl", suite=False)])))
    assert "ropewalk train runs/hemp-linear-1024 --data train --window 1024 --steps 200 --out runs/t" in page
    assert "torch 2.13.0" in page and "transformers 5.23.0" in page


def test_a_report_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path, out = write(tmp_path / "r.jsonl", (made_up.BASE, row(2.0))), tmp_path / "new" / "report.html"
    assert report([path], out) == out and out.read_text(encoding="utf-8").startswith("<!doctype html>")
    with pytest.raises(UserError, match="--overwrite"):
        report([path], out)
    before = out.read_bytes()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match="the disk is full"):
        report([path], out, overwrite=True)
    assert out.read_bytes() == before and [item.name for item in out.parent.iterdir()] == ["report.html"]


def test_records_without_a_measurement_are_refused_in_a_sentence(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text("damaged\n")
    with pytest.raises(UserError, match="at least one measurement"):
        report([path], tmp_path / "out.html")
    with pytest.raises(UserError, match="does not exist"):
        report([tmp_path / "none.jsonl"], tmp_path / "out.html")
    with pytest.raises(UserError, match="is a directory"):
        report([path], tmp_path)
    assert not (tmp_path / "out.html").exists()


def test_the_module_imports_without_torch():
    code = "import sys, ropewalk.report; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


# The paper's figures and ours


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


def test_the_papers_columns_are_matched_by_multiples_of_the_window(tmp_path):
    path = write(
        tmp_path / "r.jsonl", (made_up.BASE, row(2.0, 256), row(5.0, 1024)), (made_up.extended(4, 9), row(2.0, 1024))
    )
    page = render(record.read([path]))
    line = re.search(r"LLaMA 7B, PI ×4 \(8192\)</th>(.*?)</tr>", page, re.DOTALL)
    assert re.findall(r"<td[^>]*>([\d.]+)", line[1]) == ["7.13", "6.95"]  # W = L and W = 4 L of table 1


@pytest.mark.parametrize(
    ("data", "number"),
    [
        ("shared/data/math/test.jsonl.xz", 2),
        ("proof-pile", 2),
        ("books/test", 1),
        ("lib/cmath.py lib/abc.py", 1),
        ("", 1),
    ],
)
def test_mathematics_stands_beside_the_proof_pile(data, number):
    assert paper_table(data).number == number


def test_many_sources_are_named_by_the_first():
    assert short_data("/a/b/c.txt") == "b/c.txt"
    assert short_data("lib/a.py lib/b.py lib/c.py lib/d.py") == "lib/a.py and 3 more"


@pytest.mark.parametrize(
    ("write_it", "value", "text"),
    [
        (numerals.perplexity, 9.8149, "9.81"),
        (numerals.perplexity, 173.94, "173.9"),
        (numerals.perplexity, 1234.5, "1234"),
        (numerals.perplexity, 3.2e7, "3.2 × 10⁷"),
        (numerals.perplexity, math.inf, "–"),
        (numerals.perplexity, None, "–"),
        (numerals.percent, 0.0142, "+1.4\u202f%"),
        (numerals.percent, -0.05, "−5.0\u202f%"),
        (numerals.percent, math.nan, "–"),
        (numerals.times, 14.2, "14×"),
        (numerals.large, 1_638_400, "1.64 M"),
        (numerals.duration, 7300, "2.0 h"),
        (numerals.memory, 0, "–"),
    ],
)
def test_figures_have_the_digits_that_say_something(write_it, value, text):
    assert write_it(value) == text
