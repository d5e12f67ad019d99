"""Methods beside each other: what shares a row and what does not. Rows are made up, or those of the lab."""

from __future__ import annotations

import csv
import dataclasses
import functools
import math
import re
import statistics
from pathlib import Path

import pytest

import made_up
from grid_pages import page_of, passkeys, table, trained, with_keys
from ropewalk import records
from ropewalk.reports import render, report

LAB = Path(__file__).resolve().parents[2] / "lab/records/a/hemp"


@pytest.mark.parametrize(
    ("differs", "told"),
    [
        ({"data": "mathematics"}, ("(books)", "(mathematics)")),
        ({"learning_rate": 3e-4}, ("(learning rate 0.0001)", "(learning rate 0.0003)")),
        ({"tokens": 2**22}, ("(1M tokens)", "(4M tokens)")),
        ({}, ("(hemp/first)", "(hemp/second)")),
    ],
)
def test_runs_that_differ_never_share_a_row(tmp_path, differs, told):
    """Two runs of PI with as many steps each were one row."""
    page = page_of(tmp_path / "r.jsonl", trained("linear", "first", 2.1), trained("linear", "second", 2.2, **differs))
    lines = table(page, "Perplexity, ")
    for end, nll in zip(told, (2.1, 2.2), strict=True):
        assert lines[f"PI ×4, 20 steps {end}"][0].startswith(f"{math.exp(nll):.2f}")


def test_seeds_are_one_row_with_their_mean_its_interval_and_the_outermost(tmp_path):
    """Documents that do not scatter leave Student's interval of the three seeds: 4.303 standard errors to either side."""
    seeds = [trained("linear", f"s{seed}", nll, seed=seed) for seed, nll in enumerate((2.0, 2.1, 2.4))]
    page = page_of(tmp_path / "r.jsonl", *seeds, trained("yarn", "y", 2.2))
    lines = table(page, "Perplexity, ")
    nats = (2.0, 2.1, 2.4)  # their mean and its interval are those of losses
    values = [math.exp(nll) for nll in nats]
    mean, reach = statistics.fmean(nats), 4.302653 * statistics.stdev(nats) / math.sqrt(3)
    cells = lines["PI ×4, 20 steps, 3 seeds mean"]
    interval = f"{math.exp(mean - reach):.2f} to {math.exp(mean + reach):.2f}"
    assert cells[0] == f"{math.exp(mean):.2f} {interval} seeds {values[0]:.2f} to {values[2]:.2f}"
    assert len([label for label in lines if label.startswith("PI")]) == 1
    assert len(set(re.findall(r'<i style="background:(#\w+)"></i>PI ×4, 20 steps', page))) == 1, "one colour"


def test_a_figure_that_one_seed_alone_has_leaves_the_seeds_together(tmp_path):
    """Benchmarks were asked of one of three: a row of its own looked like another method."""
    seeds = [trained("linear", f"s{seed}", 2.1 + seed / 100, seed=seed) for seed in range(3)]
    seeds[0][2].append(made_up.benchmark("boolq", 0.58, 1))
    yarn = trained("yarn", "y", 2.2)
    path = tmp_path / "r.jsonl"
    page_of(path, *seeds, yarn)
    base = dataclasses.replace(made_up.BASE, name="hemp/none")
    made_up.record_rows(path, (base, made_up.benchmark("boolq", 0.58, 0)))
    lines = table(render(records.read([path])), "1M training tokens")
    (pi,) = [cells for label, cells in lines.items() if label.startswith("PI")]
    assert pi[3].endswith("1 of 3 seeds")
    report([path], tmp_path / "page.html", tables=tmp_path / "tables")
    with (tmp_path / "tables/ablation-1.csv").open(encoding="utf-8", newline="") as file:
        (line,) = [row for row in csv.DictReader(file) if row["method"].startswith("PI")]
    assert [line["benchmarks seeds"], line["perplexity at the window seeds"]] == ["1", "3"]


def test_rows_of_two_bases_are_named_by_their_bases_where_they_stand_together(tmp_path):
    """Two rows of one table were called alike, or by what they have alike."""
    states = [trained("linear", "l", 2.1), trained("yarn", "y", 2.2)]
    paths = [tmp_path / "r.jsonl", tmp_path / "alone.jsonl"]
    for path in paths:
        page_of(path, *states)
    other = dict(family="other", name="fern/l")
    row = {"name": "fern/l", "method": "linear", "tokens": 2**20, "learning_rate": 1e-4, "seed": 0, "data": "books"}
    two = dataclasses.replace(states[0][0], **other), {"row": row}, [made_up.row(2.4, 1024)]
    for state, settings, rows in (states[0], two):
        recorder = records.Recorder(paths[0], made_up.run(state, f"ropewalk passkey {state.name}", settings=settings))
        for each in [*rows, records.PasskeySummary(1024, 512, 8, 10, 0.5, 1.0)]:
            recorder.add(each)
    page, alone = (render(records.read([path])) for path in paths)
    assert {label.split(", 20 steps")[1] for label in table(page, "k_max by state")} == {" (hemp)", " (fern)"}
    assert "held-out, stride 64; hemp" in page and "(hemp)" not in alone and "; hemp" not in alone


def test_a_closeup_names_few_of_the_lines_that_it_leaves_out(tmp_path):
    far = [trained("yarn", f"y{place}", 3.0 + place / 10, learning_rate=place / 100) for place in range(1, 5)]
    near = [trained("linear", "l", 2.0), trained("ntk", "n", 2.05)]
    text = made_up.words(page_of(tmp_path / "r.jsonl", *near, *far))
    assert re.search(r"Not in this frame: YaRN[^;]*; YaRN[^;]* and 2 more\.", text)


def test_methods_that_a_config_has_as_factors_keep_their_names_and_colours(tmp_path):
    page = page_of(tmp_path / "r.jsonl", trained("cope", "c", 2.1), trained("p-rope", "p", 2.2))
    colours = dict(re.findall(r'<i style="background:(#\w+)"></i>((?:CoPE|p-RoPE) ×4, 20 steps)', page))
    assert sorted(colours.values()) == ["CoPE ×4, 20 steps", "p-RoPE ×4, 20 steps"]


def test_the_control_is_called_so_and_does_not_hide_the_base():
    lines = table(lab_page(), "Perplexity, ")
    assert {"base", "control, 16 steps"} <= lines.keys()


@functools.cache
def lab_page() -> str:
    return render(records.read(sorted(LAB.glob("*.jsonl"))))


def test_checkpoints_of_one_train_are_one_row_and_those_of_another_are_not(tmp_path):
    """The records of `train` say where it wrote; two runs there differ in their data."""
    path = tmp_path / "r.jsonl"
    made_up.record_rows(path, (made_up.BASE, made_up.row(2.0)))
    for place, data in (("runs/a", ["books"]), ("runs/b", ["code"])):
        settings = {"out": place, "data": data, "learning_rate": 2e-5, "batch_size": 2}
        header = made_up.run(made_up.extended(), f"ropewalk train {place}", settings=settings)
        made_up.steps(records.Recorder(path, header), 20)
        for steps, name in ((10, f"{place}/checkpoints/step-000010"), (20, place)):
            made_up.record_rows(path, (made_up.extended(4, steps, name=name), made_up.row(2.1 + steps / 100, 1024)))
    page = render(records.read([path]))
    assert {"PI ×4, 20 steps (books)", "PI ×4, 20 steps (code)"} <= table(page, "Perplexity, ").keys()
    assert len(table(page, "Perplexity by fine-tuning steps")) == 2
    assert {"PI ×4 to 1024 (books) cpu", "PI ×4 to 1024 (code) cpu"} <= table(page, "What each training").keys()


def test_trained_to_holds_to_and_the_short_window_in_a_sentence(tmp_path):
    state, settings, rows = with_keys(trained("yarn", "y", 2.1, windows=(256,)), 1.0)
    rows += [made_up.row(2.05, 512), made_up.row(2.3, 1024)]
    page = page_of(tmp_path / "r.jsonl", (state, settings, rows))
    sentence = re.search(r"Trained to .*?5 documents\)\.", made_up.words(page))[0]
    change = r"{} % \(95 % interval [^()]* to [^()]* %{}\)"
    assert re.match(
        r"Trained to 1024 tokens, it holds to 1024 by k_max \(95 % interval \d+ to 1024\) and to 512 by perplexity "
        rf"\(from 256: {change.format('−4.9', '')}\)\. At the short window of 256 tokens its perplexity went 7.39 → 8.17, "
        rf"{change.format(r'.10.5', ', paired over 5 documents')}\.",
        sentence.replace("\u202f", " ").replace("\u00a0", " "),
    )
    assert "reaches k_max 1024 of 1024 tokens." in made_up.words(page)


def test_a_model_is_never_called_by_a_directory(tmp_path):
    path = made_up.record_rows(tmp_path / "r.jsonl", (made_up.extended(steps=9), made_up.row(2.0, 1024)))
    page = made_up.words(render(records.read([path])))
    assert "A longer window for a llama model of 3.41 M parameters" in page
    page = page.split("What was run")[0]
    assert page.count("step-000009") == page.count("ropewalk perplexity runs/hemp-linear-1024/checkpoints/step-000009 ") == 1, "but by a command"  # fmt: skip


def test_damage_and_cost_stand_beside_the_gain(tmp_path):
    state, settings, rows = trained("yarn", "y", 2.1)
    rows = [*rows, made_up.gain(1024, 0.25, 0.2, 0.3)]
    path = tmp_path / "r.jsonl"
    page_of(path, (state, settings, rows), trained("linear", "l", 2.0))
    header = made_up.run(dataclasses.replace(state, steps=0), "ropewalk ablate", settings=settings)
    made_up.steps(records.Recorder(path, header), 20)
    line = table(render(records.read([path])), "1M training tokens")["YaRN ×4, 20 steps"]
    assert line[1].startswith("+0.100") and line[3].startswith("0.250 0.200 to 0.300")
    assert line[4] == "1M" and line[5] == "80 s"  # 20 steps of 8192 tokens at 2048 a second


def test_a_table_of_one_text_has_no_context_gain_of_another(tmp_path):
    """Both texts were read by the same models at the same windows, and the gain is of one of them."""
    states = []
    for state, settings, rows in (trained("yarn", "y", 2.1), trained("linear", "l", 2.0)):
        others = [dataclasses.replace(row, data="mathematics") for row in rows]
        states.append((state, settings, [*rows, *others, made_up.gain(1024, 0.25, 0.2, 0.3)]))
    page = page_of(tmp_path / "r.jsonl", *states)
    heads = {text: re.search(rf"<caption>1M training tokens; {text}.*?</tr>", page, re.DOTALL)[0] for text in ("held-out", "mathematics")}  # fmt: skip
    assert "context gain" in heads["held-out"] and "context gain" not in heads["mathematics"]


LABEL = re.compile(r"\\label\{tab:[A-Za-z0-9.-]*tables-([0-9a-f]{6})-")


def test_what_was_measured_once_is_no_mean_of_seeds(tmp_path):
    """The untrained model has no seed: by steps it stood as 194.9 (194.9 to 194.9) of three."""
    seeds = [trained("linear", f"s{seed}", 2.1 + seed / 10, seed=seed) for seed in range(3)]
    once = (made_up.extended(4, 0, name="hemp/linear-0"), {"row": {"name": "hemp/linear-0", "method": "linear", "tokens": 0, "seed": 0}}, [made_up.row(2.5, 1024, reach=0.1)])  # fmt: skip
    page = page_of(tmp_path / "r.jsonl", once, *seeds)
    cells = table(page, "Perplexity by fine-tuning steps")["PI ×4, window 1024, 3 seeds mean"]
    assert "seeds" in cells[1] and cells[0].startswith(f"{math.exp(2.5):.2f}")
    assert (
        "seeds" not in cells[0] and f"{math.exp(2.4):.2f} to {math.exp(2.6):.2f}" in cells[0]
    )  # its own, over documents


def test_three_documents_have_their_paired_change_where_their_interval_says_nothing(tmp_path):
    """The page said three times that there were too few documents, and no change."""
    path = tmp_path / "r.jsonl"
    for state, nll in ((made_up.BASE, 2.0), (made_up.extended(), 2.1), (made_up.extended(4, 8), 2.05)):
        wide = made_up.row(nll, 128, documents=3, reach=1.5)
        made_up.record_rows(path, (state, wide))
    lines = table(render(records.read([path])), "Perplexity, held-out")
    # Student's 4.303 / sqrt(3) = 2.48 of a scatter of 1.5 / 2.48: of 7 documents 0.925 is 0.56, of 6 it is 0.63, of 5 0.75; log 2 = 0.69.
    assert lines["base"][0].endswith("too few documents; about 6 would do")
    assert lines["PI ×4, before training"][0].endswith("would do +10.5 % 95 % interval +10.5 % to +10.5 %")
    assert lines["PI ×4, 8 steps"][0].endswith("+5.1 % 95 % interval +5.1 % to +5.1 %")


def test_two_documents_have_an_interval_in_no_cell_and_three_in_each(tmp_path):
    """One cell gave an interval, since its two documents happened to be alike, where the three others said that there were too few."""

    def cells(documents: int) -> list[str]:
        path, widths = tmp_path / f"{documents}.jsonl", (0.05, 1.5, 1.5, 1.5)
        for width, nll, window in zip(widths, (2.0, 2.1, 2.2, 2.3), (128, 256, 512, 1024), strict=True):
            of_two = made_up.row(nll, window, documents, reach=width)
            made_up.record_rows(path, (made_up.BASE, of_two))
        text = render(records.read([path]))
        assert "An interval is given from 3 documents on, if its upper end is less than 4 times the lower." in text
        return table(text, "Perplexity, held-out")["base"][:4]

    assert [("too few documents" in cell, "7.03" in cell) for cell in cells(2)] == [(True, False)] * 4
    assert all("too few documents; 3 are the fewest" in cell for documents in (1, 2) for cell in cells(documents))
    assert [("too few documents" in cell, "7.03" in cell) for cell in cells(3)] == [(False, True), *[(True, False)] * 3]


def test_a_verdict_of_several_seeds_is_of_all_of_them(tmp_path):
    """It began with one seed's figures."""
    seeds = [trained("yarn", f"y{seed}", 2.0 + seed / 10, windows=(256,), seed=seed) for seed in (2, 0, 1)]
    for state, seed in zip(seeds, (2, 0, 1), strict=True):
        state[2].extend([made_up.row(2.0 + seed / 20, 1024), *passkeys((1.0, 0.75, 0.5)[seed])])
    text = made_up.words(page_of(tmp_path / "r.jsonl", *seeds)).replace("\u00a0", " ").replace("\u202f", " ")
    assert ", by 3 seeds: figures are means, brackets 95 % intervals or, after “seeds”, least and largest." in text
    means = [math.exp(2.1), math.exp(2.05)]  # of losses
    assert f"its perplexity went {math.exp(2):.2f} → {means[0]:.2f}" in text
    assert f"At 1024 tokens: {means[1]:.2f} (seeds {math.exp(2):.2f} to {math.exp(2.1):.2f})" in text
    # In nats 0, 0.1 and 0.2 above the base's: their mean is 0.1, Student's of three 4.303 × 0.1 / √3 to either side; documents do not scatter.
    ends = [
        f"{100 * math.expm1(0.1 + sign * 4.3027 * 0.1 / math.sqrt(3)):+.1f} %".replace("-", "−") for sign in (-1, 1)
    ]
    assert f"+10.5 % (95 % interval {ends[0]} to {ends[1]}, paired over 5 documents; seeds +0.0 % to +22.1 %)" in text
    assert (
        "Passkey retrieval reaches a mean k_max 768 (seeds 512 to 1024) of 1024 tokens" in text
        and "mean k_max 768 of 1024; 10 trials a depth; seeds 512 to 1024" in re.sub(r"\s+", " ", text)
        and "training seeds 0, 1, 2." in text
    )


def test_two_trainings_of_one_method_that_ended_at_other_steps_are_no_seeds_of_each_other(tmp_path):
    """5M tokens at one rate and 100M at another were "1 of 2 seeds" of one line, which lost the steps that told them apart."""
    once = (made_up.extended(4, 0, name="hemp/linear-0"), {"row": {"name": "hemp/linear-0", "method": "linear", "tokens": 0, "seed": 0}}, [made_up.row(2.5, 1024)])  # fmt: skip
    short = trained("linear", "short", 2.4, seed=0)
    model, settings, rows = trained("linear", "long", 2.1, tokens=2**22, learning_rate=1e-3, seed=0)
    page = page_of(
        tmp_path / "r.jsonl", once, short, (made_up.extended(4, 80, "linear", name=model.name), settings, rows)
    )
    lines = {label: cells for label, cells in table(page, "Perplexity by fine-tuning steps").items() if "PI" in label}
    assert len(lines) == 2 and not any("seeds" in text for label, cells in lines.items() for text in (label, *cells))
    assert lines.keys() == {"PI ×4, window 1024 (1M tokens)", "PI ×4, window 1024 (4M tokens)"}
    by_steps = [made_up.words(figure) for figure in page.split("<figure") if "fine-tuning steps" in figure]
    assert any("PI ×4 (1M tokens)" in figure and "PI ×4 (4M tokens)" in figure for figure in by_steps)
