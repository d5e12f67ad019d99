"""Tables and figures as files for a paper: CSV, LaTeX, Markdown. Rows are made up, or those of the lab."""

from __future__ import annotations

import csv
import math
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from matplotlib import cbook
from PIL import ImageFont

import made_up
from grid_pages import page_of, table, trained
from ropewalk import records
from ropewalk.errors import UserError
from ropewalk.reports import report

LAB = Path(__file__).resolve().parents[2] / "lab/records/a/hemp"
LABEL = re.compile(r"\\label\{tab:[A-Za-z0-9.-]*tables-([0-9a-f]{6})-")


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


def test_tables_and_figures_are_written_for_a_paper(tmp_path):
    path = tmp_path / "r.jsonl"
    page_of(path, trained("yarn", "y_1|&", 2.1), trained("yarn", "z%$", 2.2))
    out, tables, figures = tmp_path / "page.html", tmp_path / "tables", tmp_path / "figures"
    report([path], out, tables=tables, figures=figures)
    rows = list(csv.DictReader((tables / "perplexity-1.csv").open(encoding="utf-8", newline="")))
    first = next(row for row in rows if row["state"] == "YaRN ×4, 20 steps (hemp/y_1|&)")
    own = made_up.row(2.1)
    at = [float(first[name]) for name in ("256 L", "256 L low", "256 L high")]
    assert at == pytest.approx(
        [own.perplexity, own.low, own.high], rel=1e-12
    )  # drawn from the documents again: to rounding
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
