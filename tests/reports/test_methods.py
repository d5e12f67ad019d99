"""Methods beside each other: what shares a row and what does not. Rows are made up, or those of the lab."""

from __future__ import annotations

import csv
import dataclasses
import functools
import math
import re
import shutil
import statistics
import subprocess
from pathlib import Path

import numpy as np
import pytest
from matplotlib import cbook
from PIL import ImageFont

import made_up
from grid_pages import page_of, table, trained
from ropewalk import records
from ropewalk.errors import UserError
from ropewalk.reports import render, report
from ropewalk.reports.comparable import groups
from ropewalk.reports.contests import contest
from ropewalk.reports.methods import RULE, Contest
from ropewalk.reports.rows import clean

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


def test_the_ablation_tells_of_the_columns_that_it_has_and_stays_narrow_in_latex(tmp_path):
    states = [trained("linear", "l", 2.1), trained("yarn", "y", 2.2)]
    bare = page_of(tmp_path / "bare.jsonl", *states).split("<caption>1M training tokens")[1].split("<h2")[0]
    assert "control" not in bare and "Benchmarks" not in bare and "k_max" not in bare
    for _, _, rows in states:
        rows += [records.Passkey(1024, k, 10, 10 * (k <= 512), 50 * (k <= 512)) for k in range(128, 1025, 128)]
        rows += [records.PasskeySummary(1024, 512, 8, 10, 0.5, 1.0), made_up.gain(1024, 0.25, 0.2, 0.3)]
    path = tmp_path / "r.jsonl"
    page = page_of(path, *states)
    shares = [cell.partition(" ")[0] for cell in table(page, "1M training tokens")["PI ×4, 20 steps"]]
    assert "50" in shares, "that decides a contest"
    report([path], tmp_path / "page.html", tables=tmp_path / "tables")
    latex = (tmp_path / "tables/ablation-1.tex").read_text(encoding="utf-8")
    assert r"\begin{tabular}[t]{@{}l@{}}PI $\times$4\\ 20 steps\end{tabular}" in latex


def test_latex_tables_are_no_larger_than_a_page_in_type_of_eight_points(tmp_path):
    """By the widths of Computer Modern's own glyphs; 345 points are the text of an article at 10 pt."""
    methods = ("linear", "ntk", "yarn")
    states = [trained(m, f"{m}{n}", 2.1 + n / 10, seed=n, learning_rate=1e-4) for m in methods for n in range(12)]
    for place, (_, _, rows) in enumerate(states):
        right = 10 - place % 3
        rows += [records.Passkey(1024, k, 10, right, 5 * right) for k in range(128, 1025, 128)]
        rows += [
            records.PasskeySummary(1024, 1024, 8, 10, 0.5, 1.0),
            made_up.gain(1024, -0.25 - place / 100, -0.3, -0.1),
        ]
    path = tmp_path / "r.jsonl"
    page_of(path, *states)
    report([path], tmp_path / "page.html", tables=tmp_path / "tables")
    latex = "".join(file.read_text(encoding="utf-8") for file in sorted((tmp_path / "tables").glob("*.tex")))
    floats = re.findall(
        r"\\label\{(.+)\}\n\\footnotesize\\setlength\{\\tabcolsep\}\{4pt\}\n.*\n(.*\n)*?\\end\{table\*\}", latex
    )
    assert len(floats) == latex.count("\\caption") > latex.count(" of Table~") > 0
    assert all(rf"\label{{{name}}}" in latex for name in re.findall(r"\\ref\{(.+?)\}", latex))
    font = ImageFont.truetype(cbook._get_data_path("fonts/ttf/cmr10.ttf"), 1000)

    def points(line: str) -> float:  # type of 8 pt is cut wider, by 1/16; a minus is as wide as a plus
        return font.getlength(re.sub(r"\$.+?\$", "+", line).replace("\\", "")) * 8 / 1000 * 17 / 16

    for tabular in re.findall(r"toprule\n([\s\S]*?)\\bottomrule", latex):
        rows = [row for row in tabular.split("\n") if row.endswith(r"\\")]
        cells = [[re.sub(r"\\(begin|end)\{tabular\}(\[t\]\{@\{\}[lr]@\{\}\})?|\\textbf|[{}]", "", cell).strip() for cell in row.removesuffix(r"\\").split(" & ")] for row in rows]  # fmt: skip
        lines = [[cell.split(r"\\ ") for cell in row] for row in cells]
        widths = [max(points(line) for cell in column for line in cell) for column in zip(*lines, strict=True)]
        assert sum(widths) + 8 * len(widths) <= 345, rows[0]
        assert 9.5 * sum(max(map(len, row)) for row in lines) <= 550 - 100, "and its caption"


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


def keys(share: float, depths: int = 32, trials: int = 10) -> list[records.Passkey]:
    """A passkey test at 1024 tokens of which this share is right, the nearest keys."""
    reach = round(share * depths)
    return [records.Passkey(1024, 32 * (d + 1), trials, trials if d < reach else 0) for d in range(depths)]


def passkeys(share: float) -> list:
    return [*keys(share), records.PasskeySummary(1024, round(32 * share) * 32, 32, 10, round(32 * share) / 32)]


def with_keys(state, share: float):
    return (*state[:2], [*state[2], *passkeys(share)])


@pytest.mark.parametrize(
    ("yarn", "linear", "told"),
    [
        # (share of the keys, nll) of YaRN and of PI
        (
            (1.0, 2.3),
            (0.3, 2.1),
            r"YaRN ×4 wins by k_max: 1024 [^;]* against 320 [^;]*\. Yet PI ×4 reads better at 256 tokens \(8.17 against 9.97\) and at 1024 \(8.17 against 9.97\)\. Rule:",
        ),
        (
            (1.0, 2.1),
            (1.0, 2.3),
            r"YaRN ×4 wins by perplexity: −18.1 % [^;]*paired over 5 documents\); 8.17 .* against 9.97 .* of PI ×4\. Rule",
        ),
        ((1.0, 2.1), (1.0, 2.1), "No winner among 2 methods at 1024 tokens .*do not tell apart"),
        ((None, 2.1), (None, 2.3), "YaRN ×4 wins by perplexity"),
        ((1.0, 2.3), (None, 2.1), "PI ×4 wins by perplexity"),  # keys were asked of one alone
    ],
)
def test_the_winner_is_named_by_passkeys_then_perplexity_or_nobody_is(tmp_path, yarn, linear, told):
    states = [
        with_keys(trained(method, method, nll), share) if share is not None else trained(method, method, nll)
        for method, (share, nll) in (("yarn", yarn), ("linear", linear))
    ]
    page = made_up.words(page_of(tmp_path / "r.jsonl", *states))
    assert re.search(told, page)
    heading = page.split("ropewalk report")[0]
    won = told.split(":")[0]  # by what it won stands in the heading too
    assert ("no winner at 1024 tokens" if "No winner" in told else f"{won} at 1024 tokens") in heading
    assert heading.strip().startswith("A longer window for hemp:")


def test_a_measure_that_decides_among_those_an_earlier_one_left_is_named_with_it(tmp_path):
    """ "Of 9 methods ABF wins by perplexity" stood before five that read better: passkeys had set those behind."""
    shares = {"ntk": (1.0, 2.0), "yarn": (1.0, 2.2), "linear": (0.3, 1.8), "plain": (0.3, 1.9)}
    few = [*((trained(name, name, nll), share) for name, (share, nll) in shares.items())]
    page = page_of(tmp_path / "r.jsonl", *(with_keys(state, share) for state, share in few))
    text = made_up.words(page).replace("\u202f", " ")
    label = re.search(r"hemp: (NTK ×4|ABF ×4)", text)[1]
    heading = f"{label} wins by perplexity among those level by k_max at 1024 tokens of held-out"
    assert f"hemp: {heading}" in text
    assert (
        f"Of 4 methods at 1024 tokens of held-out after 1M training tokens, {label} wins by k_max, level with YaRN ×4, and of these 2 by perplexity: "
        in text
    )
    ours, theirs, best = (f"{math.exp(nll):.2f}" for nll in (2.0, 2.2, 1.8))
    assert re.search(rf"; {ours} [^,]*, against {theirs} .*? of YaRN ×4\. Yet PI ×4 reads better .*?{best}", text)
    three = [with_keys(state, 1.0 if place < 3 else share) for place, (state, share) in enumerate(few)]
    text = made_up.words(page_of(tmp_path / "three.jsonl", *three, with_keys(trained("cope", "c", 2.3), 1.0)))
    assert "PI ×4 wins by k_max, level with 3 others, and of these 4 by perplexity" in text


def test_a_method_whose_seeds_scatter_over_another_wins_nothing(tmp_path):
    """Each seed by itself is paired with an interval of no width: it is the spread of seeds that leaves it open."""
    seeds = [trained("yarn", f"y{seed}", nll, seed=seed) for seed, nll in enumerate((2.0, 2.1, 2.3))]
    page = made_up.words(page_of(tmp_path / "r.jsonl", *seeds, trained("linear", "l", 2.2)))
    assert "No winner among 2 methods" in page


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


def test_tables_and_figures_are_written_for_a_paper(tmp_path):
    path = tmp_path / "r.jsonl"
    page_of(path, trained("yarn", "y_1|&", 2.1), trained("yarn", "z%$", 2.2))
    out, tables, figures = tmp_path / "page.html", tmp_path / "tables", tmp_path / "figures"
    report([path], out, tables=tables, figures=figures)
    rows = list(csv.DictReader((tables / "perplexity-1.csv").open(encoding="utf-8", newline="")))
    first = next(row for row in rows if row["state"] == "YaRN ×4, 20 steps (hemp/y_1|&)")
    own = made_up.row(2.1)
    at = [float(first[name]) for name in ("256 L", "256 L low", "256 L high")]
    assert at == [own.perplexity, own.low, own.high]
    latex = (tables / "perplexity-1.tex").read_text(encoding="utf-8")
    assert r"hemp/y\_1|\&" in latex and r"hemp/z\%\$" in latex and "×" not in latex and "−" not in latex
    caption = re.search(
        r"\\begin\{table\*\}\n\\centering\n\\caption\{(.+)\}\n\\label\{tab:[A-Za-z0-9.-]+-tables-[0-9a-f]{6}-perplexity-1\}\n\\footnotesize.+\n\\resizebox\{.*\\linewidth.*\}\{!\}\{%\n\\begin\{tabular\}\{lr+\}",
        latex,
    )[1]
    assert r"256\\ (L)" in latex and r"1024\\ (4 L)" in latex, "beneath, so that columns stay narrow"
    assert "256 (L)" in (tables / "perplexity-1.md").read_text(encoding="utf-8")
    assert r"In brackets: 95 \% interval" in caption and latex.endswith("\\end{tabular}}\n\\end{table*}\n")
    index = (tables / "index.md").read_text(encoding="utf-8") + (figures / "index.md").read_text(encoding="utf-8")
    for place in (*tables.glob("*.tex"), *figures.glob("*.pdf")):
        assert re.search(rf"^- `{place.stem}`: \w", index, re.MULTILINE)
    assert r"hemp/y_1\|&" in (tables / "perplexity-1.md").read_text(encoding="utf-8")
    starts = {path.suffix: path.read_bytes()[:5] for path in figures.glob("perplexity-1.*")}
    assert starts == {".svg": b"<?xml", ".pdf": b"%PDF-", ".png": b"\x89PNG\r"}
    with pytest.raises(UserError, match="overwrite"):
        report([path], tmp_path / "second.html", tables=tables)
    report([path], out, tables=tables, figures=figures, overwrite=True)


LABEL = re.compile(r"\\label\{tab:[A-Za-z0-9.-]*tables-([0-9a-f]{6})-")


def test_labels_of_directories_of_one_name_differ_by_what_was_measured_and_stay(tmp_path, monkeypatch):
    """Two reports of `--tables tables` collided in one paper."""

    def label(place: str, method: str, nll: float) -> str:
        (tmp_path / place).mkdir()
        monkeypatch.chdir(tmp_path / place)
        path = made_up.record_rows(Path("r.jsonl"), (made_up.BASE, made_up.row(2.0)))
        made_up.record_rows(path, (made_up.extended(method=method), made_up.row(nll, 1024)))
        report([path], "page.html", tables="tables")
        assert (
            f"(tab:tables-{LABEL.search(Path('tables/perplexity-1.tex').read_text())[1]}-perplexity-1)"
            in Path("tables/index.md").read_text()
        )
        return LABEL.search(Path("tables/perplexity-1.tex").read_text())[1]

    assert label("a", "linear", 2.1) == label("again", "linear", 2.2) != label("b", "yarn", 2.1)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX on this machine")
def test_latex_takes_the_tables_of_two_reports(tmp_path, monkeypatch):
    """Their labels differ, whatever the directories are called."""
    monkeypatch.chdir(tmp_path)
    written, inputs = made_up.write(tmp_path / "r.jsonl"), ""
    for place, label in (("a_1%#é/tables", "a-1--e9-tables"), ("b/tables", "b-tables")):
        report([written], f"{place[0]}.html", tables=place)
        names = sorted(path.stem for path in Path(place).glob("*.tex"))
        label += f"-{LABEL.search(Path(place, f'{names[0]}.tex').read_text(encoding='utf-8'))[1]}"
        shutil.copytree(place, place[0] + "-copy")  # LaTeX reads no file with % in its path
        inputs += "\n".join(
            rf"\input{{{place[0]}-copy/{name}}} Table~\ref{{tab:{label}-{name}}}.\clearpage" for name in names
        )
    preamble = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}"
    (tmp_path / "paper.tex").write_text(f"{preamble}\n{inputs}\n\\end{{document}}\n", encoding="utf-8")
    for _ in range(2):  # references need a second run
        done = subprocess.run(
            ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"], cwd=tmp_path, capture_output=True
        )
        assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    log = (tmp_path / "paper.log").read_text(encoding="utf-8", errors="replace")
    assert len(names) >= 8 and "undefined" not in log and "multiply defined" not in log
    assert not re.findall(r"Overfull \\hbox.*|Float too large.*", log)  # no table is larger than the page


@pytest.mark.parametrize(
    ("out", "tables", "figures"), [("d/page.html", "d", None), ("page.html", "d", "d"), ("page.html", "d", "d/figures")]
)
def test_a_directory_of_tables_swallows_nothing(tmp_path, out, tables, figures):
    path = made_up.record_rows(tmp_path / "r.jsonl", (made_up.BASE, made_up.row(2.0)))
    with pytest.raises(UserError, match="directories of their own"):
        report([path], tmp_path / out, tables=tmp_path / tables, figures=figures and tmp_path / figures)
    assert [item.name for item in tmp_path.iterdir()] == ["r.jsonl"]


def test_seeds_that_were_asked_the_same_prompts_are_not_as_many_prompts_more(tmp_path):
    """All of the keys by one seed and half by the other: that says next to nothing of a third, however many prompts they were asked."""
    yarn = [with_keys(trained("yarn", f"y{n}", 2.1, seed=n), share) for n, share in enumerate((1.0, 0.5))]
    linear = [with_keys(trained("linear", f"l{n}", 2.2, seed=n), 0.0) for n in range(2)]
    page = page_of(tmp_path / "r.jsonl", *yarn, *linear)
    text = made_up.words(page)
    (both,) = [each for each in contest_of(tmp_path / "r.jsonl").contenders if each.label.startswith("YaRN")]
    assert both.figures["passkeys found"] == (0.75, 0.0, 1.0)
    assert "YaRN ×4 wins by perplexity" in text and RULE in text
    assert "In a line of several seeds: their mean, its interval" in text
    report([tmp_path / "r.jsonl"], tmp_path / "page.html", tables=tmp_path / "tables")
    with (tmp_path / "tables/passkey-1.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    (seeds,) = [row for row in rows if next(iter(row.values())).startswith("YaRN")]
    names = ("k_max low", "k_max high", "k_max least", "k_max largest", "k_max seeds")
    assert [float(seeds[name]) for name in names] == [0, 1024, 512, 1024, 2]


def test_a_winner_that_training_made_worse_is_said_so_and_the_second_is_by_the_same_rule(tmp_path):
    """Before training YaRN found all and PI nothing; afterwards YaRN finds a quarter, and PI and NTK nothing, NTK at the lower perplexity."""
    before = [
        (made_up.extended(4, 0, method, name=f"hemp/{method}-0"), {"row": {"name": f"hemp/{method}-0", "method": method}},
         [made_up.row(nll), made_up.row(nll, 1024), *passkeys(share)])
        for method, nll, share in (("yarn", 2.1, 1.0), ("linear", 2.4, 0.0))
    ]  # fmt: skip
    after = [
        with_keys(trained(method, method[0], nll), share)
        for method, nll, share in (("yarn", 2.2, 0.25), ("linear", 2.3, 0.0), ("ntk", 2.15, 0.0))
    ]
    text = made_up.words(page_of(tmp_path / "r.jsonl", *before, *after))
    assert "YaRN ×4 wins by k_max at 1024 tokens after 1M training tokens, worse than before its training" in text
    assert re.search(r"Training made YaRN ×4 worse at 1024 tokens: k_max 256 .*?, before it 1024 ", text)
    assert re.search(r"wins by k_max: 256 [^,]*, against 0 .*? of NTK", text)


def contest_of(path: Path) -> Contest:
    page = clean(records.read([path]))
    (group,) = groups(page)
    compared = contest(page, group.lineage)
    assert compared is not None
    return compared


def _on(text: str, shift: float):
    """PI and YaRN, trained on a text: YaRN is ahead by 0.1 nats."""
    return [
        trained(method, f"{method}-{text}", nll + shift, data=text) for method, nll in (("linear", 2.2), ("yarn", 2.1))
    ]


def test_methods_are_compared_among_those_of_one_training_text(tmp_path):
    """Two methods by two texts were four methods, none of which won."""
    page = page_of(tmp_path / "r.jsonl", *_on("a/books", 0.0), *_on("b/code", 0.05))
    said = made_up.words(page)
    assert "Of 2 methods at 1024 tokens of held-out after 1M training tokens of a/books, YaRN ×4 wins" in said
    assert "With 1M training tokens of b/code: YaRN ×4 wins by perplexity at 1024 tokens." in said
    assert "States were trained on different texts (a/books, b/code)" in said
    assert len(re.findall(r"<caption>Against the winner, YaRN ×4", page)) == 1
    for text in ("a/books", "b/code"):
        assert len(table(page, f"1M training tokens of {text}")) == 2


def test_rows_of_two_machines_whose_texts_have_one_name_never_meet(tmp_path, caplog):
    """The base of the one was dropped for that of the other, and damage was computed across texts."""
    path, digests = tmp_path / "r.jsonl", {}
    for machine, level in (("first", 2.0), ("second", 3.0)):
        digests = {"model": "m", "test": f"{machine} test", "data": f"{machine} data"}
        named = {"test": "data/b.jsonl", "data": "data/a.jsonl", "digests": digests}
        base = (
            dataclasses.replace(made_up.BASE, name="hemp/none"),
            {"row": {"name": "hemp/none", "method": "none", **named}},
        )
        for state, settings, rows in (
            (*base, [made_up.row(level)]),
            trained("linear", f"pi-{machine}", level + 0.2, seed=len(machine), **named),
            trained("yarn", f"yarn-{machine}", level + 0.1, seed=len(machine), **named),
        ):
            recorder = records.Recorder(
                path, made_up.run(state, f"ropewalk ablate {state.name} {machine}", settings=settings)
            )
            for row in rows:
                recorder.add(dataclasses.replace(row, data="data/b.jsonl"))
    page = report([path], tmp_path / "page.html").read_text()
    for letter, level in (("A", 2.0), ("B", 3.0)):
        lines = table(page, rf"Perplexity, data/b.jsonl\[{letter}\]")
        assert lines["base"][0].startswith(f"{math.exp(level):.2f}")
        nats = [cells[1] for label, cells in table(page, rf"1M training tokens; data/b.jsonl\[{letter}\]").items()]
        assert nats == ["+0.200 +0.200 to +0.200", "+0.100 +0.100 to +0.100"]
    warned = "different texts are called data/b.jsonl (data/b.jsonl[A], data/b.jsonl[B])"
    assert warned in made_up.words(page) and warned in caplog.text and "digest first" not in page


def test_a_text_that_has_two_names_is_one_text(tmp_path):
    """The rows of two grids of one user, whose paths were relative and then absolute, and of a training that named its data a third way."""
    path, digests = tmp_path / "r.jsonl", {"model": "m", "test": "tttt", "data": "dddd"}
    for place, methods in (("x/", ["linear"]), ("", ["yarn", "ntk"])):
        named = {"test": f"{place}test", "data": f"{place}train", "digests": digests}
        for shift, method in enumerate(methods):
            state, settings, rows = trained(method, f"{method}-s0", 2.2 - shift / 10, **named)
            recorder = records.Recorder(path, made_up.run(state, f"ropewalk ablate {place}", settings=settings))
            for row in rows:
                recorder.add(dataclasses.replace(row, data=f"{place}test"))
    base = {"row": {"name": "hemp/none", "method": "none", "test": "test", "digests": {"test": "tttt"}}}
    recorder = records.Recorder(
        path, made_up.run(dataclasses.replace(made_up.BASE, name="hemp/none"), "x", settings=base)
    )
    recorder.add(made_up.row(2.0, data="test"))
    state = made_up.extended(4, 20, "linear", name="runs/long")
    settings = {"out": "runs/long", "learning_rate": 1e-4, "batch_size": 1, "data": ["/home/me/x/train/"], "digests": {"data": "dddd"}}  # fmt: skip
    made_up.steps(records.Recorder(path, made_up.run(state, "ropewalk train", settings=settings)), 20)
    page = report([path], tmp_path / "page.html").read_text()
    words = made_up.words(page)
    assert "not all states were measured" not in words.lower() and "different texts" not in words and "[A]" not in page
    assert "Of 3 methods at 1024 tokens of test" in words
    assert page.count("<caption>Perplexity, test, ") == 1 and "x/test" not in words and "x/train" not in words


@pytest.mark.parametrize(
    "one, two, names",
    [
        (["r12"], ["r12"], {"books"}),  # the same documents were read
        (["r1", "r12"], ["r1"], {"books", "my/books"}),  # of a directory, and of one file that lies in it
        (["r12"], ["r8"], {"books", "my/books"}),
    ],
)
def test_texts_without_digests_are_one_if_the_same_was_read(tmp_path, one, two, names):
    path = tmp_path / "r.jsonl"
    for name, readings in (("my/books", one), ("books", two)):
        for window, reading in zip((256, 1024), readings, strict=False):
            row = dataclasses.replace(made_up.row(2.0, window, data=name), texts=reading)
            made_up.record_rows(path, (made_up.extended(name=name), row))
    assert {m.row.data for m in clean(records.read([path])).measurements} == names


def test_what_was_measured_once_is_no_mean_of_seeds(tmp_path):
    """The untrained model has no seed: by steps it stood as 194.9 (194.9 to 194.9) of three."""
    seeds = [trained("linear", f"s{seed}", 2.1 + seed / 10, seed=seed) for seed in range(3)]
    once = (made_up.extended(4, 0, name="hemp/linear-0"), {"row": {"name": "hemp/linear-0", "method": "linear", "tokens": 0, "seed": 0}}, [made_up.row(2.5, 1024, low=11.0, high=13.0)])  # fmt: skip
    page = page_of(tmp_path / "r.jsonl", once, *seeds)
    cells = table(page, "Perplexity by fine-tuning steps")["PI ×4, window 1024, 3 seeds mean"]
    assert "seeds" in cells[1] and cells[0].startswith(f"{math.exp(2.5):.2f}")
    assert "seeds" not in cells[0] and "11.00 to 13.00" in cells[0]  # its own, over documents


def test_files_of_tables_hold_numbers_with_units_and_no_markup(tmp_path):
    path, state = tmp_path / "r.jsonl", made_up.extended(name="hemp")
    settings = {"out": "first", "learning_rate": 1e-4, "batch_size": 1, "steps": 40, "data": ["a"]}
    made_up.steps(records.Recorder(path, made_up.run(state, "train", settings=settings)), 20)
    again = settings | {"out": "again", "data": ["<b>"]}
    made_up.steps(records.Recorder(path, made_up.run(state, "train again", settings=again)), 20)
    report([path], tmp_path / "page.html", tables=tmp_path / "tables")
    text = (tmp_path / "tables/training-1.md").read_text()
    assert "&lt;b>" in text and "<" not in text
    with (tmp_path / "tables/training-1.csv").open(newline="") as file:
        head, line, *_ = csv.reader(file)
    row = dict(zip(head, line, strict=True))
    assert float(row["time, s"]) == pytest.approx(80) and float(row["peak memory, bytes"]) == 3 * 2**30
    assert [float(row[name]) for name in ("steps", "tokens", "tokens/s")] == [20, 20 * 8192, 2048]
    assert float(row["loss first step, nats a token"]) > float(row["loss last tenth, nats a token"])
    with (tmp_path / "tables/cost-1.csv").open(newline="") as file:
        head, line, *_ = csv.reader(file)
    assert float(line[head.index("device time, s")]) == pytest.approx(160)


def test_three_documents_have_their_paired_change_where_their_interval_says_nothing(tmp_path):
    """The page said three times that there were too few documents, and no change."""
    path = tmp_path / "r.jsonl"
    for state, nll in ((made_up.BASE, 2.0), (made_up.extended(), 2.1), (made_up.extended(4, 8), 2.05)):
        wide = made_up.row(nll, 128, documents=3, low=math.exp(nll - 1.5), high=math.exp(nll + 1.5))
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
            of_two = made_up.row(
                nll, window, documents=documents, low=math.exp(nll - width), high=math.exp(nll + width)
            )
            made_up.record_rows(path, (made_up.BASE, of_two))
        text = render(records.read([path]))
        assert "An interval is given from 3 documents on, if its upper end is less than 4 times the lower." in text
        return table(text, "Perplexity, held-out")["base"][:4]

    assert [("too few documents" in cell, "7.03" in cell) for cell in cells(2)] == [(True, False)] * 4
    assert all("too few documents; 3 are the fewest" in cell for documents in (1, 2) for cell in cells(documents))
    assert [("too few documents" in cell, "7.03" in cell) for cell in cells(3)] == [(False, True), *[(True, False)] * 3]


def test_who_is_ahead_by_another_measure_stands_in_the_winners_sentence(tmp_path):
    """The page named ABF by passkeys and the README YaRN by its loss at the old window, on the same records, and neither said of the other."""
    abf, yarn = (
        with_keys(trained(name, name, nll, windows=(256,)), share)
        for name, nll, share in (("ntk", 2.2, 1.0), ("yarn", 2.1, 0.5))
    )
    abf[2].append(made_up.row(2.3, 1024))
    yarn[2].append(made_up.row(2.25, 1024))
    path = tmp_path / "r.jsonl"
    text = made_up.words(page_of(path, abf, yarn))
    ahead = "YaRN ×4 reads better at 256 tokens (8.17 against 9.03) and at 1024 (9.49 against 9.97)"
    sentence = re.search(r"Of 2 methods.*?Rule: [^.]*\.", text)[0]
    assert re.search(rf"NTK[^;]* wins by k_max: 1024 [^;]*\. Yet {re.escape(ahead)}\. Rule: k_max, then", sentence)
    for (state, settings, _), seconds in ((abf, 20.0), (yarn, 10.0)):
        recorder = records.Recorder(path, made_up.run(state, f"ablate {state.name}", settings=settings))
        for step in range(1, 21):
            recorder.add(records.Step(step, 3.0, 1e-4, 0.5, 2**20 // 20, 100.0, seconds))
    text = made_up.words(render(records.read([path])))
    assert f"{ahead}. Rule" in text and "faster" not in text  # methods do the same arithmetic: the machine was busier


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


def test_the_winners_interval_over_seeds_is_that_of_the_table_and_of_losses(tmp_path):
    """It began at 0.00, where the table's began at 1.00; documents do not scatter, so that Student's of two seeds is all of it."""
    nats = np.array([2.0, 2.3])
    seeds = [trained("ntk", f"n{seed}", nll, seed=seed) for seed, nll in enumerate(nats)]
    page = page_of(tmp_path / "r.jsonl", *seeds, trained("yarn", "y", 4.9))
    reach = 12.7062 * nats.std(ddof=1) / np.sqrt(2)
    mean, low, high = np.exp(nats.mean()), max(np.exp(nats.mean() - reach), 1), np.exp(nats.mean() + reach)
    interval = f"{low:.2f} to {high:.2f}"
    text = made_up.words(page).replace("\u202f", " ")
    assert f"; {mean:.2f} (2 seeds, 95 % interval {interval})" in text
    assert table(page, "Perplexity, ")["NTK ×4, 20 steps, 2 seeds mean"][0].startswith(f"{mean:.2f} {interval}")
    assert "YaRN ×4 was trained with one seed: by how much another would differ is not known" in text
    assert "NTK ×4 and" not in text.split("Not known")[1]


def test_what_training_made_worse_by_perplexity_has_the_paired_difference(tmp_path):
    """Two intervals that overlap stood beside "worse", which rests on the difference of pairs."""
    nats, before = np.array([2.30, 2.31]), 2.1
    untrained = (made_up.extended(4, 0, "yarn", name="hemp/yarn-0"), {"row": {"name": "hemp/yarn-0", "method": "yarn"}}, [made_up.row(before, 1024)])  # fmt: skip
    other = (made_up.extended(4, 0, "linear", name="hemp/l-0"), {"row": {"name": "hemp/l-0", "method": "linear"}}, [made_up.row(2.9, 1024)])  # fmt: skip
    seeds = [trained("yarn", f"y{seed}", nll, seed=seed) for seed, nll in enumerate(nats)]
    text = made_up.words(page_of(tmp_path / "r.jsonl", untrained, other, *seeds, trained("linear", "l", 2.9)))
    change, reach = nats.mean() - before, 12.7062 * nats.std(ddof=1) / np.sqrt(2)
    figures = f"perplexity {np.exp(nats.mean()):.2f}, before it {np.exp(before):.2f}: {change:+.3f} (95 % interval {change - reach:+.3f} to {change + reach:+.3f}) nats a token"
    assert f"Training made YaRN ×4 worse at 1024 tokens: {figures}." in text.replace("\u202f", " ")


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


def test_a_csv_has_the_changes_that_the_page_shows_small(tmp_path):
    """exp of the difference of two losses: 2.0 nats of the base, 2.3 and 2.1 of the extended model."""
    path, untrained, trained_one = tmp_path / "r.jsonl", made_up.extended(), made_up.extended(steps=20)
    states = ((made_up.BASE, made_up.row(2.0)), (untrained, made_up.row(2.3)), (trained_one, made_up.row(2.1)))
    report([made_up.record_rows(path, *states)], tmp_path / "page.html", tables=tmp_path / "tables")
    with (tmp_path / "tables/perplexity-1.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["note"] != "paper"]
    changes = [row["256 L beside"] for row in rows if float(row["256 L"] or 0) in (math.exp(2.3), math.exp(2.1))]
    assert changes == [f"{100 * (math.exp(more) - 1):+.1f}\u202f%" for more in (0.3, 0.1)]
    assert [name for name in rows[0] if "beside" in name] == ["256 L beside"]
