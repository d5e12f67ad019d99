"""The lab's page, its README and the evidence that `auto` rests on are what the records say."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import pytest
import results

from lab_page import LAB, text_of_page
from ropewalk.records import evidence
from ropewalk.records.choice import settled
from ropewalk.records.format import share
from ropewalk.reports import report
from ropewalk.reports.paired import ratio
from ropewalk.rope.scaling import Abf, Plain


def test_the_page_is_drawn_from_the_records(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FIGURES", tmp_path)
    between = results.PAGE.read_text(encoding="utf-8").split(results.MARKS[0])[1].split(results.MARKS[1])[0]
    assert between.strip() == results.page(), "run `make results`"  # page() makes settings of every table in grids.toml


def test_what_is_said_of_methods_is_what_the_records_say():
    said = json.loads(results.EVIDENCE.read_text(encoding="utf-8"))
    assert said == json.loads(json.dumps(results.evidence())), "run `make results`"
    assert results.choice() in results.README.read_text(encoding="utf-8"), "run `make results`"


def _of_the_readme() -> dict[str, evidence.Case]:
    """By method, what was measured of SmolLM2 at factor 4."""
    there = ("smollm2-135m", 32768)
    return {case.model.method: case for case in evidence.cases() if (case.model.name, case.model.window) == there}


def test_the_rule_of_auto_is_what_the_records_of_the_model_that_it_names_say():
    """Of the methods that find more than half of the passkeys YaRN loses least in the old window, at every budget of several methods."""
    for tokens in (0, 5 * 2**20, 20 * 2**20):
        figures = {method: case.budgets[tokens] for method, case in _of_the_readme().items() if tokens in case.budgets}
        damages = {method: each.damage for method, each in figures.items() if each.passkeys > 0.5}
        assert len(damages) > 1 and min(damages, key=damages.__getitem__) == "yarn"


def test_auto_is_another_method_only_where_the_models_own_rows_are_paired_against_yarn():
    """Gemma 3: beyond chance in both windows untrained, on the same side trained. The other models with both at factor 4 have no such rows."""
    for model in ("gemma-3-270m", "smollm2-135m", "lab-2k", "hemp"):
        tried = results.full_rows(model)
        found = {(row.asked["method"], row.asked["tokens"]): row for row in tried if row.asked["seed"] == 0}
        budgets = {tokens for method, tokens in found if method == "linear"}
        above = {}
        for tokens in budgets:
            pi, yarn = (found[method, tokens] for method in ("linear", "yarn"))
            above[tokens] = [
                ratio(pi.perplexities[window], yarn.perplexities[window]).nats for window in (pi.window, pi.new_window)
            ]
        for_pi = all(value > 0 for each in above.values() for value, _, _ in each) and above[0][0][1] > 0
        info = next(iter(found["linear", 0].records.runs.values())).model
        base = replace(info, scaling=Plain(), window=info.original_window)
        assert settled("auto", {}, base, info.window) == ("linear" if for_pi else "auto"), model
        assert for_pi == (model == "gemma-3-270m")


def test_the_readme_names_the_recipe_that_its_table_was_measured_with():
    text = " ".join(results.README.read_text(encoding="utf-8").split())
    cases = _of_the_readme()
    for tokens, told in ((5, "20 steps of 8 windows"), (20, "--steps 40 --batch-size 16")):
        trained = [case.budgets[tokens * 2**20] for case in cases.values() if tokens * 2**20 in case.budgets]
        ((steps, batch_size),) = {(each.steps, each.batch_size) for each in trained}
        assert (
            told.startswith((f"{steps} steps of {batch_size}", f"--steps {steps} --batch-size {batch_size}"))
            and told in text
        )
    at_20 = {method: cases[method].budgets[20 * 2**20].learning_rate for method in ("yarn", "abf", "linear")}
    assert at_20 == {"yarn": 3e-4, "abf": 3e-4, "linear": 1e-3}
    assert "--window 32k --steps 40 --batch-size 16 --learning-rate 3e-4 " in text
    assert "(3e-4 for YaRN and ABF; Position Interpolation's is 1e-3" in text
    wider = {
        case.model.window: case.budgets[0].passkeys
        for case in evidence.cases()
        if str(case).startswith("smollm2") and case.model.method == "yarn"
    }
    found = [share(wider[8192 * factor]).replace("\u202f", " ") for factor in (8, 16)]
    assert f"By 8 and 16, untrained, YaRN finds {found[0]} and {found[1]} on SmolLM2" in text
    abf = cases["abf"].model
    assert (
        abf.scaling == Abf(4.0, Abf.usual(abf.rope)) == Abf(4.0, 5e6) and "`--method abf --rope-theta 5000000`" in text
    )


def test_what_others_models_are_is_said_as_the_files_that_are_fetched_have_it():
    """By the file that the hash in fetch.py is of: SmolLM2-135M-Instruct.Q4_1.gguf; gemma-3-270m-q4_k_m.gguf, whose instruct model is called -it."""
    fetch = (LAB.parent / "recipes/real_models/fetch.py").read_text(encoding="utf-8")
    files = dict(zip(results.WEIGHTS, (re.findall(r'/([\w.-]+?)\.gguf[".]', fetch)), strict=True))
    for model, file in files.items():
        tuned = "instruct" in file.lower() or "-it" in file
        bits = re.search(r"q4_\w+$", file, re.IGNORECASE)
        assert (
            bits and results.WEIGHTS[model] == f"{'instruct' if tuned else 'pretrained'}, from 4-bit {bits[0].upper()}"
        )
        assert f"{model} ({results.WEIGHTS[model]})" in text_of_page()
    assert {case.model.name: case.weights for case in evidence.cases()} == files | {
        "hemp": "",
        "lab-2k": "",
    } | results.WEIGHTS


def test_the_documents_have_yarns_damage_beside_the_control_from_the_rows():
    """Of the three seeds of 20 M tokens each, beside the control of the same seed."""
    read = {
        name: [
            math.log(entry["perplexity"])
            for path in sorted((results.RECORDS / "c/smollm2-135m").glob(f"{name}-x4-20M-3e-4-s*.jsonl"))
            for entry in map(json.loads, path.read_text(encoding="utf-8").splitlines())
            if entry["kind"] == "perplexity" and entry["window"] == 8192 and entry["data"] == "books/test.jsonl.xz"
        ]
        for name in ("yarn", "control")
    }
    assert len(read["yarn"]) == len(read["control"]) == 3
    above = f"{(sum(read['yarn']) - sum(read['control'])) / 3:.3f}"
    for path, around in (
        ("README.md", "{} nats beside a control that read the same tokens in it (three seeds)"),
        ("docs/guide.md", "in the old window {} and 0.12 nats"),
        ("docs/decisions/063-auto-is-the-default.md", "88 % by each of its three and {};"),
    ):
        assert around.format(above) in (LAB.parent / path).read_text(encoding="utf-8"), path


def test_records_name_no_place_on_the_machine_that_made_them():
    for path in results.RECORDS.glob("*/*/*.jsonl"):
        assert not any(
            word in path.read_text(encoding="utf-8") for word in ('"/', " /", "/home/", "/tmp/", "/root/")
        ), path


def test_the_page_that_the_results_name_is_drawn_from_records_that_are_here(tmp_path):
    (records,) = re.findall(r"^ +ropewalk report (lab/\S+)", results.PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    page = report([LAB.parent / records], tmp_path / "page.html", paper=False).read_text(encoding="utf-8")
    assert re.search(r"<h1>A longer window for smollm2-135m: \w+", page)


def test_the_tables_have_every_row_that_was_measured_in_full_at_the_chosen_rate():
    """YaRN's best rate on validation at 5 M tokens is 3e-4, which level a measured on validation alone, and read-plain in full with two seeds; by hand from these."""
    page = results.PAGE.read_text(encoding="utf-8").split("### Every method, smollm2-135m")[1]
    (line,) = re.findall(r"^\| 5 M \| YaRN \|.*", page.split("\n### ")[0], re.MULTILINE)
    seeds, losses, keys = results.RECORDS / "read-plain/smollm2-135m", [], []
    for path in sorted(seeds.glob("*.jsonl")):
        for entry in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            if entry["kind"] == "perplexity" and entry["window"] == 8192 and entry["data"] == "books/test.jsonl.xz":
                losses.append(math.log(entry["perplexity"]))
            if entry["kind"] == "passkey_summary" and entry["window"] == 32768:
                keys.append(entry["accuracy"])
    cells = line.split(" | ")
    assert cells[2] == "2" and len(losses) == len(keys) == 2
    assert float(cells[4]) == pytest.approx(math.exp(sum(losses) / 2), abs=0.006)
    assert share(sum(keys) / 2) in line and "| 0.0003 |" in line
    case = _of_the_readme()["yarn"].budgets[5 * 2**20]
    assert (case.learning_rate, case.seeds, case.passkeys) == (3e-4, 2, pytest.approx(sum(keys) / 2, abs=1e-4))
    told = re.search(r"worse on validation than at their best, in nats: (.*?)\. So", page)
    assert told and "YaRN" not in told[1] and "Llama 3 scaling 0.036" in told[1]


def test_the_readme_says_of_lab_2k_what_a_page_of_its_longest_rows_says(tmp_path):
    rows = [LAB / "records/a/lab-2k/none.jsonl", *LAB.glob("records/c/lab-2k/[yl]*-x4-100M-*.jsonl")]
    page = report(rows, tmp_path / "page.html", paper=False).read_text(encoding="utf-8")
    text = " ".join(results.README.read_text(encoding="utf-8").split())
    (said,) = re.findall(r"PI ×4 wins by perplexity: −(\S+) \(95\u202f% interval −(\S+) to −(\S+)\) nats", page)
    assert f"{said[0]} in the new one ({said[2]} to {said[1]})" in text and "a page names PI there" in text
    cases = {case.model.method: case for case in evidence.cases() if case.model.name == "lab-2k" and case.model.window == 8192}  # fmt: skip
    shares = [
        share(cases[method].budgets[100 * 2**20].passkeys).replace("\u202f", " ") for method in ("yarn", "linear")
    ]
    assert "(YaRN {}, PI {}; three seeds)".format(*shares) in text


def test_shares_are_written_alike_in_the_readme_and_on_the_page():
    """66 of 80 is 83 %, halves up, with a narrow blank."""
    rounded = re.findall(r"\d+[^\d|]?%", results.choice())
    assert (
        share(66 / 80) == "83\u202f%" and "79\u202f%" in rounded and all(each.endswith("\u202f%") for each in rounded)
    )


def test_brackets_of_a_column_are_intervals_of_one_kind():
    """Over seeds and prompts, as the report's page has them: wider of three seeds that differ than of one."""
    page = text_of_page()
    (line,) = re.findall(r"^\| PI \| 20 M \| 0.001 \| 3 .*", page, re.MULTILINE)
    assert (
        "| 17\u202f% (0\u202f% to 81\u202f%), digits 61\u202f% | 46\u202f%, 1\u202f%, 3\u202f%; digits 81\u202f%, 47\u202f%, 53\u202f% |"
        in line
    )
    assert "(0\u202f% to 0\u202f%)" not in page


def test_a_figure_beside_the_control_says_its_seeds_and_rate_where_they_are_not_the_rows():
    """Of SmolLM2 there is one control of 5 M tokens that was measured in full, of seed 0 at 1e-4, and YaRN of two seeds at 3e-4; at 20 M all are at 3e-4."""
    yarn = [
        line.split(" | ")
        for line in text_of_page().splitlines()
        if re.match(r"\| YaRN \| (5|20) M \| 0\.0003 \| [23] ", line)
    ]
    assert [(line[1], line[3], line[7].partition(")")[2]) for line in yarn] == [
        ("5 M", "2", ", seed 0, control at 0.0001"),
        ("20 M", "3", ""),
    ]
    assert "| control: at L | 5 M | 0.0001 (best on validation: 0.0003, not measured in full) | 1 |" in text_of_page()
    assert "smollm2-135m, 20 M (at 0.001, the control at 0.0003)" in text_of_page()
