"""From records that are cut, damaged, copied or absent the lab draws nothing, and says which they are."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import committed
import pytest
import results
import rows
from scipy import stats

from ropewalk.errors import UserError


@pytest.mark.parametrize(
    ("row", "cut", "told"),
    [
        ("x32/lab-2k/none", lambda text: text[:3000], "cut or no record"),
        ("x32/lab-2k/none", lambda text: text.rstrip("\n"), "cut or no record"),
        ("x32/lab-2k/none", lambda text: text.partition("\n")[2], "the header of its run is missing or damaged;"),
        ("x32/lab-2k/none", lambda text: "XX" + text[2:], "the header of its run is missing or damaged;"),
        ("x32/lab-2k/none", lambda text: _until(text, "passkey_summary", 2), "lacks passkey at 65536;"),
        ("c/smollm2-135m/linear-x4-20M-1e-3-s0", lambda text: _until(text, "retrieval", 8), "lacks retrieval at 32768;"),
        ("c/smollm2-135m/linear-x4-20M-1e-3-s1", lambda text: _until(text, "benchmark", 3), "lacks benchmarks;"),
        ("slid/lab-2k/none", lambda text: _until(text, "perplexity", 2), "lacks perplexity at 2048;"),
        ("slid/lab-2k/none", lambda text: text.replace('"row":', '"other":'), "lacks the line that says"),
        ("slid/lab-2k/none", lambda text: text.replace('"row":', '"row":{},"other":', 1), "lacks the line that says"),
        ("a/lab-2k/linear-x4-5M-1e-3-s0", lambda text: text * 2, "holds its row more than once"),
        ("a/lab-2k/linear-x4-5M-1e-3-s0", lambda text: re.sub(r'{"kind":"step".*\n', "", text, count=1), "has 19 of the 20 steps"),
        ("a/lab-2k/linear-x4-5M-1e-3-s0", lambda text: text + '{"kind":"unheard","run":"of"}\n', "cut or no record"),
        ("slid/lab-2k/none", lambda text: _edited(text, lambda number: 1.01 * number, r'(?<="nll":)[\d.]+'), "none.jsonl, line 2: the loss in all and by part differ"),
        ("x32/lab-2k/none", lambda text: _edited(text, lambda number: 1 - number, r'(?<="successes":)[01](?=,"digits)'), "passkeys found in all and by part differ"),
        ("x32/lab-2k/none", lambda text: _without_the_fifth(text, "passkey"), "depths in all and by part differ, 16 and 15"),
        ("slid/lab-2k/none", lambda text: _edited(text, lambda number: 0.9 * number, r'(?<="low":)[\d.]+'), "has an interval of a perplexity that its documents do not give;"),
        ("a/lab-2k/linear-x4-5M-1e-3-s0", lambda text: re.sub('("tokens":5242880,"learning_rate":)0.001', r"\g<1>0.003", text), "has the settings of linear-x4-5M-3e-3-s0;"),
        ("a/lab-2k/ntk-x4-0", lambda _: _text("a/lab-2k/abf-x4-0"), "holds lab-2k/abf-x4-0;"),
        ("a/lab-2k/ntk-x4-0", lambda _: _text("a/hemp/ntk-x4-0"), "holds hemp/ntk-x4-0;"),
    ],
)  # fmt: skip
def test_a_row_that_is_cut_is_named_and_nothing_is_drawn_from_it(row, cut, told, tmp_path, monkeypatch, capsys):
    source, there = results.RECORDS / f"{row}.jsonl", tmp_path / "a" / f"{row.partition('/')[2]}.jsonl"
    there.parent.mkdir(parents=True)
    shutil.copy(source, there)
    assert len(rows.rows_in(there.parent)) == 1
    there.write_text(cut(source.read_text(encoding="utf-8")), encoding="utf-8")
    os.utime(there, (1, 1))  # rows are read again when their file has changed
    said = _refused(tmp_path, monkeypatch, capsys)
    assert told in said and str(there) in said


def test_a_file_is_read_once_to_refuse_copies_and_to_be_drawn(tmp_path, monkeypatch):
    (tmp_path / "lab-2k").mkdir()
    shutil.copy(results.RECORDS / "x32/lab-2k/none.jsonl", tmp_path / "lab-2k")
    times, whole = [], rows.read
    monkeypatch.setattr(rows, "read", lambda paths: (times.append(paths), whole(paths))[1])
    rows.refuse_copies(tmp_path)
    assert len(rows.rows_in(tmp_path / "lab-2k")) == len(times) == 1


def _refused(records: Path, monkeypatch, capsys) -> str:
    """What `make results` says of records from which it draws nothing."""
    monkeypatch.setattr(results, "RECORDS", records)
    for written in ("EVIDENCE", "PAGE", "README"):  # should it draw
        shutil.copy(getattr(results, written), records / written)
        monkeypatch.setattr(results, written, records / written)
    monkeypatch.setattr(results, "FIGURES", records / "FIGURES")
    monkeypatch.setattr(sys, "argv", ["results.py"])
    with pytest.raises(SystemExit) as refused:
        results.main()
    assert refused.value.code == 2 and not (records / "FIGURES").exists()
    return capsys.readouterr().err


def test_a_row_that_lies_in_another_level_too_is_named_by_both_places(tmp_path, monkeypatch, capsys):
    name = "smollm2-135m/yarn-x4-20M-3e-4-s1.jsonl"
    for level in ("a", "c"):
        (tmp_path / level / "smollm2-135m").mkdir(parents=True)
        shutil.copy(results.RECORDS / "c" / name, tmp_path / level / name)
    said = " ".join(_refused(tmp_path, monkeypatch, capsys).split())
    assert f"{tmp_path / 'a' / name} and {tmp_path / 'c' / name} hold the same run" in said


@pytest.mark.parametrize("page", ["PAGE", "README"])
@pytest.mark.parametrize("left", [None, "a page without marks\n", results.MARKS[0]])
def test_a_page_without_a_place_for_the_results_is_told_in_a_sentence(page, left, tmp_path, monkeypatch, capsys):
    (tmp_path / "a/lab-2k").mkdir(parents=True)
    shutil.copy(results.RECORDS / "a/lab-2k/none.jsonl", tmp_path / "a/lab-2k")
    damaged = tmp_path / "page.md"
    if left is not None:
        damaged.write_text(left, encoding="utf-8")
    monkeypatch.setattr(results, "refuse_copies", lambda records: monkeypatch.setattr(results, page, damaged))
    said = _refused(tmp_path, monkeypatch, capsys)
    assert f"between two marks of {damaged}" in said and f"git checkout {damaged} restores it" in said


def test_every_committed_record_is_listed_as_it_is():
    """By the program that the list is for, not by what reads it here."""
    check = subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=results.RECORDS, capture_output=True, text=True)  # fmt: skip
    assert check.returncode == 0, check.stdout
    assert committed.refuse_altered(results.RECORDS) == []


@pytest.mark.parametrize(
    ("figure", "other"),
    [('"window":8192,"scaling"', '"window":4096,"scaling"'), ('"factor":4.0', '"factor":4.5'), ("NVIDIA", "nvidia"), (r'(?<="seconds":)\d', "7")],
)  # fmt: skip
def test_a_figure_that_nothing_else_repeats_cannot_be_altered(figure, other, tmp_path, monkeypatch, capsys):
    name = "a/lab-2k/linear-x4-5M-1e-3-s0.jsonl"
    altered = tmp_path / name
    altered.parent.mkdir(parents=True)
    text = re.sub(figure, other, (results.RECORDS / name).read_text(encoding="utf-8"), count=1)
    altered.write_text(text, encoding="utf-8")
    assert committed.refuse_altered(tmp_path) == [altered]  # a row of one's own, as long as no list has it
    (tmp_path / committed.SUMS).write_text(next(line for line in _sums() if line.endswith(name)), encoding="utf-8")
    assert f"1 file is not: {altered} differs" in _refused(tmp_path, monkeypatch, capsys)
    altered.unlink()
    with pytest.raises(UserError, match="1 file is not: .* is not there; git checkout restores it"):
        committed.refuse_altered(tmp_path)


def test_a_broken_line_of_the_list_is_named_and_not_taken_for_a_missing_file(tmp_path):
    (tmp_path / committed.SUMS).write_text(f"{_sums()[0]}\n<<<<<<< HEAD\n", encoding="utf-8")
    with pytest.raises(
        UserError, match="SHA256SUMS is a digest .* but line 2 is '<<<<<<< HEAD'; git checkout restores"
    ):
        committed.refuse_altered(tmp_path)


def test_the_readme_says_how_many_passkey_tests_hold_the_ends_of_an_older_formula():
    """By scipy, of all committed records."""
    tests = [json.loads(line) for path in results.RECORDS.glob("*/*/*.jsonl") for line in path.read_text(encoding="utf-8").splitlines() if '"kind":"passkey_summary"' in line]  # fmt: skip
    found = [stats.binomtest(round(t["accuracy"] * t["depths"] * t["trials"]), t["depths"] * t["trials"]) for t in tests]  # fmt: skip
    kinds = {method: [each.proportion_ci(method=method) for each in found] for method in ("exact", "wilson")}
    exact, wilson = (sum(abs(ends.low - t["low"]) + abs(ends.high - t["high"]) < 1e-6 for ends, t in zip(each, tests, strict=True)) for each in kinds.values())  # fmt: skip
    assert exact + wilson == len(tests)
    assert f"{wilson} of the {len(tests)} passkey tests" in (results.ROOT / "lab/README.md").read_text(encoding="utf-8")
    assert [round(stats.binomtest(12, 12).proportion_ci(method=method).low, 4) for method in kinds] == [0.7354, 0.7575]


def test_rows_of_ones_own_are_drawn_beside_them_and_named(tmp_path, monkeypatch, capsys):
    row = tmp_path / "a/lab-2k/none.jsonl"
    shutil.copytree(results.RECORDS / "a/lab-2k", row.parent)
    before = [getattr(results, each).read_bytes() for each in ("EVIDENCE", "PAGE", "README")]
    for name in ("RECORDS", "FIGURES"):  # are put back
        monkeypatch.setattr(results, name, getattr(results, name))
    monkeypatch.setattr(sys, "argv", ["results.py", "--records", str(tmp_path)])
    results.main()
    said = capsys.readouterr().out
    assert f"not committed, by SHA256SUMS: {len([*row.parent.iterdir()])} files, " in said
    assert "### Every method, lab-2k" in (tmp_path / "results.md").read_text(encoding="utf-8")
    assert [getattr(results, each).read_bytes() for each in ("EVIDENCE", "PAGE", "README")] == before


def test_a_page_of_ones_own_rows_says_of_them_alone_what_they_bear(tmp_path, monkeypatch):
    """Two rows of SmolLM2, in a directory with a blank in its name: their page names it, links to what is there, and has no correlation over one method."""
    own = tmp_path / "my rows"
    (own / "a/smollm2-135m").mkdir(parents=True)
    for row in ("none", "yarn-x4-0"):
        shutil.copy(results.RECORDS / f"a/smollm2-135m/{row}.jsonl", own / "a/smollm2-135m")
    for name in ("RECORDS", "FIGURES"):  # are put back
        monkeypatch.setattr(results, name, getattr(results, name))
    results._draw_beside(own)
    page = (own / "results.md").read_text(encoding="utf-8")
    assert f"Drawn from `{own}` by `make results RECORDS='{own}'`;" in page and "| none | YaRN |" in page
    for words in ("lab/records", "lab-2k", "older records", "below, say", "Never run", "theory say", "1 rows"):
        assert words not in page, words
    links = re.findall(r"\]\(([^)]+)\)", page)
    assert links and all((own / link).resolve().exists() for link in links)


def test_no_records_are_told_in_a_sentence(tmp_path, monkeypatch, capsys):
    assert f"{tmp_path} holds none" in _refused(tmp_path, monkeypatch, capsys)


def _sums() -> list[str]:
    return (results.RECORDS / committed.SUMS).read_text(encoding="utf-8").splitlines()


def _text(row: str) -> str:
    return (results.RECORDS / f"{row}.jsonl").read_text(encoding="utf-8")


def _edited(text: str, edit, figure: str) -> str:
    """With the first such figure made another."""
    return re.sub(figure, lambda found: str(edit(float(found[0]) if "." in found[0] else int(found[0]))), text, count=1)


def _without_the_fifth(text: str, kind: str) -> str:
    lines = text.splitlines(keepends=True)
    gone = [at for at, line in enumerate(lines) if f'"kind":"{kind}"' in line][4]
    return "".join(lines[:gone] + lines[gone + 1 :])


def _until(text: str, kind: str, number: int) -> str:
    """The lines before the so manieth of a kind."""
    lines = text.splitlines(keepends=True)
    return "".join(lines[: [at for at, line in enumerate(lines) if f'"kind":"{kind}"' in line][number - 1]])


def test_harder_retrieval_has_as_many_families_as_a_whole_row():
    from ropewalk.evals.retrieval import FAMILIES

    assert len(FAMILIES) == rows.FAMILIES


def test_a_page_is_drawn_by_the_choice_that_its_own_rows_make(tmp_path, monkeypatch):
    """What `--method auto` takes is read from evidence.json: the page was drawn by that of the rows before."""
    for each in ("EVIDENCE", "PAGE", "README"):
        copy = tmp_path / each
        copy.write_bytes(getattr(results, each).read_bytes())
        monkeypatch.setattr(results, each, copy)
    drawn = []
    monkeypatch.setattr(results, "page", lambda: drawn.append(results.EVIDENCE.read_text(encoding="utf-8")) or "")
    monkeypatch.setattr(results, "choice", str)
    monkeypatch.setattr(results, "evidence", list)
    monkeypatch.setattr(sys, "argv", ["results.py"])
    results.main()
    assert drawn[-1] == "[\n\n]\n" and len(drawn) == 2
    results.main()
    assert len(drawn) == 3  # nothing has changed
