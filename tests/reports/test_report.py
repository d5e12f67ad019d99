"""The page: alone, escaped, whole or not at all, and beside the paper. All rows are made up."""

from __future__ import annotations

import dataclasses
import errno
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import made_up
from ropewalk import records
from ropewalk.cli.tables.measured import show_gain
from ropewalk.errors import UserError
from ropewalk.records import Recorder
from ropewalk.records.sources import read_names, with_letter, write_names
from ropewalk.reports import render, report
from ropewalk.reports.beside_paper import paper_table
from ropewalk.reports.comparable import short_data


@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> str:
    return render(records.read([made_up.write(tmp_path_factory.mktemp("all") / "r.jsonl")]))


def test_everything_from_a_record_is_escaped(tmp_path):
    evil = "<script>alert(1)</script>"
    state = dataclasses.replace(made_up.BASE, name=evil, family=evil)
    path = tmp_path / "r.jsonl"
    run = made_up.run(state, f"ropewalk {evil}", device=evil, dtype=evil, settings={evil: evil, "tokenizer": evil})
    run = dataclasses.replace(run, id=evil, versions={evil: evil})
    recorder = Recorder(path, run)
    recorder.add(made_up.row(2.0, data=evil, convention=evil))
    recorder.add(records.Benchmark(evil, 0.5, 0.4, 0.6, 2, 1, 1, 256, "10", evil, evil))
    recorder.add(records.Summary(0.2, 0.1, 0.2, {}, 2, 1, 1, evil, 256, 100, 10, data=evil))
    recorder.add(dataclasses.replace(records.PasskeySummary(256, 8, 1, 1, 1.0)))
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps({"kind": evil, "run": evil}) + "\n")
    page = render(records.read([path]), title=evil)
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


def test_the_papers_figures_can_be_left_out(tmp_path, everything):
    """All that a page says of them: rows, grey curves, captions, tables that nothing stands beside, and the source."""
    alone = render(records.read([made_up.write(tmp_path / "r.jsonl")]), paper=False)
    signs = (
        '<tr class="paper"',
        "LLaMA 7B, ",
        "table 1 of the paper",
        "Table 2 (",
        "Chen, Wong",
        "Grey: the paper",
        "paper: 7B",
    )
    assert all(sign in everything for sign in signs if sign != "Table 2 (")
    assert not [sign for sign in signs if sign in alone]
    assert made_up.words(alone).count("PI ×4, 200 steps") > 10


def test_the_verdict_says_what_it_cost_what_is_not_known_and_what_its_words_mean(tmp_path, everything):
    head = everything[: everything.index("</header>")]
    assert re.search(r"Device time: .* of training and .* of measuring on ", head)
    for word in ("perplexity", "k_max", "context gain", "before training", "95\u202f% interval"):
        assert f"<dt>{word}</dt>" in head
    trained = dataclasses.replace(made_up.extended(steps=20))
    path = made_up.record_rows(tmp_path / "r.jsonl", (trained, made_up.row(2.0, 1024)))
    few = render(records.read([path]))
    assert "<dt>k_max</dt>" not in few and "one seed" not in few  # of a training without a record nobody knows it
    assert (
        "Not on record: context gain, passkeys, harder retrieval, RULER, benchmarks of the short window, summaries; of the base: perplexity."
        in few
    )


def test_no_setting_is_shown_as_a_program_writes_it(tmp_path):
    settings = {"row": {"a": 1}, "windows": [256, 1024], "resume": False, "field": None, "stride": 128}
    path = made_up.record_rows(tmp_path / "r.jsonl", (made_up.BASE, made_up.row(2.0)), settings=settings)
    page = render(records.read([path]))
    assert "<dt>windows</dt><dd>256, 1024</dd>" in page and "<dt>stride</dt><dd>128</dd>" in page
    assert not [name for name in ("row", "resume", "field") if f"<dt>{name}</dt>" in page]


def test_every_run_on_the_page_is_described(tmp_path):
    page = made_up.words(render(records.read([made_up.write(tmp_path / "r.jsonl", suite=False)])))
    assert "ropewalk train runs/hemp-linear-1024 --data train --window 1024 --steps 200 --out runs/t" in page
    assert "torch 2.13.0" in page and "transformers 5.23.0" in page


def test_runs_of_one_command_say_it_once_and_each_what_is_its_own(tmp_path):
    """A suite is one command and dozens of runs."""
    path = tmp_path / "r.jsonl"
    for state, seed in ((made_up.BASE, 3), (made_up.extended(steps=50), 4)):
        Recorder(path, made_up.run(state, "ropewalk evaluate it", seed=seed)).add(made_up.row(2.0))
    made_up.record_rows(path, (made_up.extended(steps=100), made_up.row(2.0)))
    page = made_up.words(render(records.read([path]))).split("What was run")[-1]
    assert page.count("ropewalk evaluate it") == 1 and "2 runs of one command" in page
    assert page.count("device cpu, float32") == 2, "once for both runs of the suite, once for the other command"
    assert "seed 3" in page and "seed 4" in page and page.count("ropewalk measure") == 1


def test_whoever_hears_the_page_knows_which_figure_and_which_settings_are_meant(tmp_path):
    """A map is headed by its model alone, and every run has its settings: by themselves these names tell nothing."""
    read = {"source": "train", "tokens": 1160789, "passes": 0.0423401, "spread_over": None}
    run = made_up.run(made_up.BASE, "ropewalk passkey hemp", settings={"sources": [read]})
    made_up.passkey(Recorder(tmp_path / "r.jsonl", run), 256, 256)
    page = render(records.read([tmp_path / "r.jsonl"]))
    names = re.findall(r"<svg[^>]*aria-labelledby=[^>]*><title[^>]*>(.*?)</title>", page)
    assert names and set(names) == {"Passkey retrieval: base"}
    assert f'<summary aria-label="settings of run {run.id}">' in page
    assert "source train; tokens 1160789; passes 0.04234" in page and "{&#39;" not in page


def test_a_report_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path, out = (
        made_up.record_rows(tmp_path / "r.jsonl", (made_up.BASE, made_up.row(2.0))),
        tmp_path / "new" / "report.html",
    )
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
    path.write_text('{"kind": "run"}\n')
    with pytest.raises(UserError, match="at least one measurement"):
        report([path], tmp_path / "out.html")
    chats = tmp_path / "mine.jsonl"
    chats.write_text('{"messages": []}\n' * 142)
    with pytest.raises(
        UserError,
        match=r"none of the 142 lines of .*mine.jsonl is one, the first being .*messages.*; name a file of records",
    ):
        report([chats], tmp_path / "out.html")
    with pytest.raises(UserError, match="does not exist"):
        report([tmp_path / "none.jsonl"], tmp_path / "out.html")
    with pytest.raises(UserError, match="is a directory"):
        report([path], tmp_path)
    assert not (tmp_path / "out.html").exists()


def test_the_module_imports_without_torch():
    code = "import sys, ropewalk.reports; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_where_no_figure_of_the_paper_fits_the_table_does_not_speak_of_it(tmp_path):
    """At L/4 and L/2 the paper measured nothing."""
    path = made_up.record_rows(
        tmp_path / "r.jsonl",
        (made_up.BASE, made_up.row(2.0, 64), made_up.row(2.0, 128)),
        (made_up.extended(4, 9), made_up.row(2.0, 64)),
    )
    page = made_up.words(render(records.read([path])))
    assert "Perplexity, held-out" in page and "beside table" not in page and "The paper's columns" not in page
    assert "Table 1 (perplexity" in page.split("Nothing on this page stands beside these tables")[1]


def test_the_paper_is_left_out_where_none_of_its_methods_was_measured(tmp_path):
    rows = made_up.row(2.0), made_up.row(2.0, 1024), records.PasskeySummary(1024, 1024, 32, 10, 1.0)
    yarn, linear = (
        made_up.words(
            render(
                records.read(
                    [made_up.record_rows(tmp_path / f"{method}.jsonl", (made_up.extended(4, 200, method), *rows))]
                )
            )
        )
        for method in ("yarn", "linear")
    )
    for words in ("LLaMA 7B", "table 4 of the paper", "of the paper (Chen et al."):
        assert words in linear and words not in yarn


def test_the_papers_columns_are_matched_by_multiples_of_the_window(tmp_path):
    path = made_up.record_rows(
        tmp_path / "r.jsonl",
        (made_up.BASE, made_up.row(2.0, 256), made_up.row(5.0, 1024)),
        (made_up.extended(4, 9), made_up.row(2.0, 1024)),
    )
    page = render(records.read([path]))
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


@pytest.mark.parametrize("names", [["my test"], ["a_b & c% #1"], ["books/my", "x.jsonl"], ['say "so", he', "b/c.txt"], ["pg19", "a.txt", "c d and 3 more"]])  # fmt: skip
def test_a_name_with_a_blank_is_one_text(names):
    """Split again, `my test` was two texts and `a_b & c% #1` four."""
    assert read_names(write_names(names, 3)) == (names, 0)
    assert short_data(write_names(names, 3)) == ", ".join(names)
    assert short_data(write_names([*names, "d", "e", "f"], 1)) == f"{names[0]} and {len(names) + 2} more"
    assert read_names(with_letter(write_names(names, 3), "[A]")).names[0] == f"{names[0]}[A]"


@pytest.mark.parametrize(("old", "names"), [
    ("my test.jsonl", ["my test.jsonl"]),
    ("books/my test", ["books/my test"]),
    ("books/a.jsonl.xz b.jsonl", ["books/a.jsonl.xz", "b.jsonl"]),
    ("books/train 0.8 books/other 0.2@8k", ["books/train", "0.8", "books/other", "0.2@8k"]),
])  # fmt: skip
def test_records_without_quotes_are_read_as_far_as_they_tell(old, names):
    assert read_names(old).names == names


def test_many_sources_are_counted_and_exercises_named_together() -> None:
    from ropewalk.reports.comparable import short_data
    from ropewalk.reports.training import read_by

    assert short_data("lib/argparse.py lib/calendar.py lib/csv.py and 11 more") == "lib/argparse.py and 13 more"
    assert short_data("a/b/books.jsonl") == "b/books.jsonl"
    names = ["recall exercise 1", "recall exercise 2", "/usr/lib/python3/abc.py", "/usr/lib/python3/ast.py"]
    assert (
        read_by(made_up.run(made_up.BASE, "x", settings={"data": names}))
        == "2 × “recall exercise” and python3/abc.py and 1 more"
    )
    assert read_by(made_up.run(made_up.BASE, "x")) == ""


def test_figures_by_steps_name_their_text_and_table_3_stands_once(tmp_path):
    """Two texts, each measured at two checkpoints; table 3 of the paper is of PG-19, so it goes with the books."""
    path, texts = tmp_path / "r.jsonl", ("math/test.jsonl", "books/test.jsonl")
    for steps in (0, 50):
        rows = [made_up.perplexity(1024, 2.5 - steps / 100, data=text) for text in texts]
        made_up.record_rows(path, (made_up.extended(steps=steps), *rows))
    page = made_up.words(render(records.read([path])))
    for text in texts:
        assert f"By fine-tuning steps: {text}, stride 64" in page
    assert page.count("table 3 of the paper") == 1
    books = page.index("Perplexity by fine-tuning steps, books/test.jsonl")
    assert page[books : page.index("table 3 of the paper")].count("Perplexity by fine-tuning steps") == 1


def test_the_page_says_on_which_side_of_the_blank_the_passkey_was_asked(tmp_path):
    path = tmp_path / "r.jsonl"
    summary = records.PasskeySummary(256, 8, 1, 1, 1.0)
    made_up.record_rows(path, (made_up.BASE, records.Passkey(256, 8, 1, 1, 5), summary))
    assert "The prompts end" not in made_up.words(render(records.read([path])))
    made_up.record_rows(path, (made_up.BASE, dataclasses.replace(summary, after_blank=False)))
    assert "before the blank, which the tokenizer joins to the key." in made_up.words(render(records.read([path])))


def test_a_model_fine_tuned_on_pairs_does_not_pass_for_a_checkpoint_of_its_training(tmp_path):
    """It counts the steps of that fine-tuning alone: 12 steps here, after 200 of its training."""
    path = tmp_path / "r.jsonl"
    shape = (0.2, 0.1, 0.2, {}, 2, 1, 1, "greedy", 1024, 900, 100)
    made_up.record_rows(path, (made_up.extended(steps=12), records.Summary(*shape, trained_on="pairs/peps.jsonl")))
    made_up.record_rows(path, (made_up.extended(steps=200), records.Summary(*shape)))
    page = made_up.words(render(records.read([path])))
    table = page[page.index("ROUGE × 100") : page.rindex("What was run")]
    assert "PI ×4, fine-tuned on pairs/peps.jsonl" in table and "PI ×4, 200 steps" in table and "12 steps" not in table


def test_a_crowd_of_other_methods_alone_is_drawn(tmp_path):
    """Many states that were not trained have a figure of their own; the other, of what was trained, would be empty here."""
    path = tmp_path / "records.jsonl"
    for factor in (2, 4, 8, 16, 32):
        for method in ("ntk", "yarn"):
            recorder = Recorder(path, made_up.run(made_up.extended(factor, method=method), "perplexity"))
            recorder.add(made_up.perplexity(256 * factor, 1.5 + factor / 100))
    report([path], out=tmp_path / "report.html")
    assert "Before training: " in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_close_up_goes_with_its_figure_and_names_the_state(tmp_path):
    """On a wide page one stood above the figure that it is of."""
    path = tmp_path / "records.jsonl"
    for steps in (0, 8):
        for method, nll in (("linear", 5.5), ("ntk", 1.6), ("yarn", 1.5)):
            state = made_up.extended(4, steps, method=method)
            recorder = Recorder(path, made_up.run(state, "perplexity"))
            for window in (256, 512, 1024):
                recorder.add(made_up.perplexity(window, nll))
    figures = tmp_path / "figures"
    page = report([path], out=tmp_path / "report.html", figures=figures).read_text(encoding="utf-8")
    pairs = re.findall(r'<div class="pair">(.*?)</div>', page, re.DOTALL)
    captions = [re.findall("<figcaption>(.*?)</figcaption>", pair) for pair in pairs]
    assert [len(pair) for pair in captions] == [2, 2]
    for state, (whole, closeup) in zip(("Before training: ", "Trained: "), captions, strict=True):
        assert whole.startswith(state) and re.match(f"{state}[^;]*, close up;", closeup)
        assert closeup in (figures / "index.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("low", "high", "documents", "shown"),
    [(1.0, 43.827, 9, ""), (1.0, 4.0, 9, ""), (1.0, 3.9, 9, "1.00 to 3.90"), (2.2, 2.8, 2, ""), (2.2, 2.8, 3, "2.20 to 2.80")],
)  # fmt: skip
def test_an_interval_of_longppl_is_given_as_one_of_perplexity_is(tmp_path, capsys, low, high, documents, shown):
    """docs/evaluation.md: of 3 documents on, here those that have key tokens, and if its upper end is less than 4 times the lower."""
    losses = {"name": "a", "tokens": 100, "nll": 1.0, "short_nll": 2.0, "key_nll": 1.0, "text": ""}
    read = [{**losses, "key_tokens": int(at < documents)} for at in range(9)]
    row = dataclasses.replace(made_up.gain(1024, 0.25, 0.2, 0.3), longppl_low=low, longppl_high=high, per_document=read)
    page = made_up.words(render(records.read([made_up.record_rows(tmp_path / "r.jsonl", (made_up.BASE, row))])))
    assert f" 2.50 {shown} 0.8".replace("  ", " ") in page.split("What the context is worth")[-1].replace("\u202f", " ")
    show_gain(row)
    interval = f"({low:.3f} to {high:.3f})" if shown else "(no interval: too few documents)"
    assert f"LongPPL 2.500 {interval}, over" in " ".join(capsys.readouterr().out.split())


def test_context_gains_stand_side_by_side_under_one_evaluator_only(tmp_path):
    path = made_up.record_rows(
        tmp_path / "r.jsonl",
        (made_up.BASE, made_up.gain(256, 0.01, -0.02, 0.04)),
        (made_up.extended(4, 9), made_up.gain(1024, 0.25, 0.2, 0.3)),
        (made_up.extended(4, 9), dataclasses.replace(made_up.gain(1024, 0.25, 0.2, 0.3), evaluator="judge")),
    )
    page = made_up.words(render(records.read([path]))).split("What the context is worth")[-1]
    alone, judged = page.split("Key tokens were chosen by ")[0:2]
    assert "0.010 \u22120.020 to 0.040 5.00 5.05 2.50 2.20 to 2.80 0.8" in alone and "0.250 0.200 to 0.300" in alone
    assert judged.startswith("each model itself: such LongPPLs are not to be compared") and "0.250" in judged
    assert "Key tokens were chosen by judge." in page


@pytest.mark.parametrize("name", ["rep", "rep.txt"])
def test_a_name_that_is_no_page_s_is_refused_with_one_that_is(tmp_path, name):
    """A browser shows a file without an ending as text."""
    path = made_up.record_rows(tmp_path / "r.jsonl", (made_up.BASE, made_up.row(2.0)))
    with pytest.raises(UserError, match=r"is \.html or \.pdf.*write it as .*rep\.html"):
        report([path], tmp_path / name)
    assert [item.name for item in tmp_path.iterdir()] == ["r.jsonl"]
