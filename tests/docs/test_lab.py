"""The lab's page is what its records say, and its grids are grids that `ablate` takes."""

from __future__ import annotations

import functools
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from command_lines import parsed
from ropewalk.reports import report

LAB = Path(__file__).resolve().parents[2] / "lab"
sys.path.insert(0, str(LAB))
import cheaper  # noqa: E402
import claims  # noqa: E402
import conversations  # noqa: E402
import explain  # noqa: E402
import never  # noqa: E402
import penalty  # noqa: E402
import results  # noqa: E402
import rows  # noqa: E402
import run  # noqa: E402
import summaries  # noqa: E402
import ways  # noqa: E402

from ropewalk.cli.tables.theory import show_theory  # noqa: E402
from ropewalk.data.chat_tokens import encode_conversations  # noqa: E402
from ropewalk.data.conversations import Conversation  # noqa: E402
from ropewalk.errors import UserError  # noqa: E402
from ropewalk.model.load import load_tokenizer  # noqa: E402
from ropewalk.records import Recorder, Summary, evidence  # noqa: E402
from ropewalk.records.format import share  # noqa: E402
from ropewalk.rope.scaling import Abf  # noqa: E402
from ropewalk.suite.theory import theory  # noqa: E402


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


def test_a_rate_is_chosen_on_validation_alone(tmp_path):
    model = {
        "name": "m",
        "family": "llama",
        "original_window": 256,
        "window": 512,
        "scaling": {"method": "linear", "factor": 2.0},
    }
    for rate, validation, test in ((1e-4, 9.0, 5.0), (3e-4, 8.0, 6.0)):
        asked = {"name": f"{tmp_path.name}/{rate}", "method": "linear", "tokens": 1024, "seed": 0, "learning_rate": rate, "test": "t", "validation": "v"}  # fmt: skip
        head = {"kind": "run", "schema": 1, "id": "r", "command": "c", "started": "", "model": model, "seed": 0, "device": "cpu",
                "dtype": "float32", "versions": {}, "settings": {"row": asked}}  # fmt: skip
        figures = {"kind": "perplexity", "run": "r", "window": 256, "stride": 128, "low": 1.0, "high": 99.0, "documents": 1,
                   "skipped": 0, "tokens": 9, "bos": False}  # fmt: skip
        measured = [figures | {"perplexity": value, "data": data} for value, data in ((validation, "v"), (test, "t"))]
        (tmp_path / f"{rate}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (head, *measured)))
    assert rows.chosen_rates(tmp_path) == {"linear": 3e-4}
    (tmp_path / "0.0003.jsonl").unlink()
    assert rows.chosen_rates(tmp_path) == {}  # of one rate none was chosen


def test_rates_that_a_new_directory_cannot_choose_are_those_of_the_committed_rows_and_this_is_said(tmp_path, capsys):
    """The rates of docs/results.md: of Position Interpolation 1e-3 was best on both models, of YaRN 3e-4."""

    def parts(model: str) -> dict[str, float]:
        grid = {
            "out": tmp_path / "c" / model,
            "from": "a",
            "methods": ["none", "linear", "yarn"],
            "learning_rates": "chosen",
        }
        found = run.with_chosen_rates(grid, tmp_path)
        return {part["methods"][-1]: part["learning_rates"][0] for part in found if part["methods"] != ["none"]}

    for model in ("lab-2k", "smollm2-135m"):
        assert parts(model) == {"linear": 1e-3, "yarn": 3e-4}
        said = capsys.readouterr().out
        assert f"{tmp_path}/a/{model} has no two learning rates of linear and yarn" in said
        assert f"lab/records/a/{model} are taken" in said
    with pytest.raises(UserError, match="no two of linear and yarn; run the levels a, rates and other-rates first"):
        parts("gemma-3-270m")


def test_a_level_that_does_not_exist_is_refused_and_those_that_do_are_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run.py", "--dry-run", "--level", "nosuch"])
    with pytest.raises(SystemExit) as refused:
        run.main()
    said = capsys.readouterr().err
    assert refused.value.code == 2 and "nosuch" in said and "read-mixed" in said and "cpu" in said


def test_make_lab_hands_level_and_records_on():
    made = subprocess.run(["make", "-n", "lab", "LEVEL=a", "RECORDS=there"], cwd=LAB.parent, capture_output=True, text=True)  # fmt: skip
    assert "lab/run.py --level a --records there\n" in made.stdout


def test_the_commands_that_cannot_be_pasted_are_as_many_as_the_readme_says():
    commands = {path: json.loads(path.open(encoding="utf-8").readline())["command"] for path in results.RECORDS.glob("*/*/*.jsonl")}  # fmt: skip
    cut = [path for path, command in commands.items() if re.search(r" and \d+ more", command)]
    lacking = [path for path, command in commands.items() if "--out" not in command.split()]
    assert {path.parent.name for path in cut} == {"hemp"} and set(cut) <= set(lacking)
    said = (LAB / "README.md").read_text(encoding="utf-8")
    assert f"{len(lacking)} were made before commands were whole" in said
    assert f"{len(cut)} of these cannot be pasted" in said
    assert {path.parent.parent.name for path in cut} == {"a", "tuned-half", "tuned-at", "tuned-twice"}


def test_gpus_are_grouped_for_rows_that_several_run_together():
    assert run.groups(["0", "1", "2"], 1) == ["0", "1", "2"]
    assert run.groups(["0", "1", "2", "3", "4"], 2) == ["0,1", "2,3"]
    assert run.groups([""], 2) == [""]  # on a machine without any
    with pytest.raises(SystemExit, match="--together 4 takes as many GPUs, and there are 2"):
        run.groups(["0", "1"], 4)


def test_a_claim_is_held_or_not_by_its_interval_and_open_where_that_tells_nothing():
    def cell(low: float, high: float) -> str:
        claim = claims.Claim("t", "table 1", lambda model: ((low + high) / 2, low, high), "nats", most=0.02)
        return claim.cell(claims.Column([_column("lab-2k", 5).models[0]], [])).split(":")[0]

    assert [cell(-0.1, 0.02), cell(-0.1, 0.03), cell(0.021, 0.03), cell(float("nan"), float("nan"))] == [
        "**held**",
        "open",
        "**did not**",
        "open",
    ]


def test_what_a_longer_window_is_worth_is_read_from_rows_of_a_stride_that_tells():
    found = claims.columns(results.full_rows("lab-2k"), rows.rows_in(results.RECORDS / "slid/lab-2k"))
    (claim,) = (each for each in claims.CLAIMS if each.text.startswith("It makes use"))
    coarse = claims.columns(results.full_rows("lab-2k"))
    assert [claim.cell(column).split(":")[0] for column in coarse] == ["open"] * 3
    assert [claim.cell(column).split(":")[0] for column in found] == ["open", "**held**", "**held**"]
    (model, *_) = found[-1].slid
    here, there = (model.trained.perplexities[window] for window in (model.new, model.old))
    assert (here.stride, there.stride) == (256, 256)
    assert claim.measure(model)[0] == pytest.approx(math.log(here.perplexity / there.perplexity), abs=2e-3)


def test_a_correlation_over_rows_has_an_interval_that_is_narrow_only_where_ranks_agree():
    rho, low, high = explain.correlation([(float(x), 2.0**x) for x in range(20)])
    assert rho == 1 and low > 0.99
    rho, low, high = explain.correlation([(float(x), float(7 * x % 19)) for x in range(19)])
    assert low < 0 < high


def test_conversations_of_three_lengths_have_the_same_turns_and_fill_their_length(tmp_path, monkeypatch):
    """Every turn but its document is whole, and a conversation is as long as its file says, a twentieth at most apart."""
    pair = {"document": " ".join(f"item {n} is {n * n};" for n in range(400)), "summary": "Squares. They grow."}
    lines = [pair | {"document": f"list {n}: {pair['document']}"} for n in range(17)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = ["hemp", str(tmp_path / "pairs.jsonl"), "--window", "1024", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["conversations.py", *arguments])
    conversations.main()
    turns, tokenizer = [], load_tokenizer("hemp")
    for length in (512, 1024, 2048):
        rows = [json.loads(line) for line in (tmp_path / f"out/hemp-{length}.jsonl").read_text().splitlines()]
        turns.append([message for row in rows for message in row["messages"]])
        for row in rows:
            ((ids, _),) = encode_conversations(tokenizer, [Conversation("", row["messages"])])
            assert 0.95 * length <= len(ids) <= length
    assert turns[0] == turns[1] == turns[2] and len(turns[0]) == 2 * 16
    assert {message["content"] for message in turns[0][1::2]} == {"Squares. They grow."}


@functools.cache
def _page() -> str:
    """As it is, which another test holds against the records."""
    return results.PAGE.read_text(encoding="utf-8")


@functools.cache
def _columns(model: str) -> list[claims.Column]:
    return claims.columns(results.full_rows(model), rows.rows_in(results.RECORDS / "slid" / model))


def _column(model: str, tokens: int) -> claims.Column:
    return next(column for column in _columns(model) if column.models[0].tokens == tokens * 2**20)


def _claim(words: str) -> claims.Claim:
    return next(claim for claim in claims.CLAIMS if claim.text.startswith(words))


def test_passkeys_that_no_model_finds_in_its_own_window_decide_no_claim():
    """lab-2k finds none at 2048 before it has read 100 M tokens; SmolLM2 does from the start."""
    for words in ("Direct fine-tuning", "It finds the passkey"):
        for tokens in (5, 20):
            assert _claim(words).cell(_column("lab-2k", tokens)).startswith(claims.NOT_TESTABLE)
        for model, tokens in (("lab-2k", 100), ("smollm2-135m", 5), ("smollm2-135m", 20)):
            assert claims.NOT_TESTABLE not in _claim(words).cell(_column(model, tokens))
    assert "As it was, lab-2k finds 0\u202f% at 2048." in _page()


@pytest.mark.parametrize(
    ("found", "of_none", "told"),
    [
        (claims.HELD, claims.HELD, claims.NOT_TESTABLE),
        ("open", claims.HELD, claims.NOT_TESTABLE),
        ("**did not**", claims.HELD, "**did not**"),
    ],
)
def test_passkeys_that_are_found_beyond_count_whatever_the_base_finds(found, of_none, told):
    base = _column("lab-2k", 5).models[0].base
    assert claims.of_passkeys(found, of_none, [base, None]) == told
    assert claims.of_passkeys(found, of_none, [base, _column("smollm2-135m", 5).models[0].base]) == found


def test_a_claim_rests_on_the_seeds_that_it_names_and_on_an_interval_over_them():
    """Level slid has seeds 0, 1 and 2 of lab-2k at 20 M, the other rows seed 0 alone."""
    column = _column("lab-2k", 20)
    assert column.seeds == "seed 0"
    cell = _claim("Trained briefly").cell(column)
    assert re.fullmatch(r"\S+: −0\.\d{3} \(−0\.\d{3} to −0\.\d{3}\), level slid, seeds 0, 1, 2", cell)
    assert _claim("The old window").cell(column).endswith(")")
    # By hand: log(25.2825 / 25.3808), log(25.0643 / 25.2027), log(25.1871 / 25.2860) of the three seeds are −0.0039, −0.0055 and −0.0039. They are those
    # of the column's head, which are not named again.
    three = _claim("It makes use").cell(_column("smollm2-135m", 20))
    assert re.fullmatch(r"\*\*held\*\*: −0\.004 \(−0\.00[5-9] to −0\.00[0-3]\), level slid", three)
    for line in claims.lines([_column("smollm2-135m", 20)]):
        assert not line[3] or re.search(r"\(.+ to .+\)", line[3]), line


def test_what_the_readme_says_of_interpolation_is_in_the_records():
    (model,) = _column("smollm2-135m", 100).models
    figures = [
        _claim("And not because books").measure(model),
        _claim("The old window hardly suffers on math").measure(model),
    ]
    (above_control, *control), (above_base, *base) = ([f"{value:.2f}" for value in each] for each in figures)
    said = f"loses {above_base} nats there above the base ({' to '.join(base)}) and {above_control} above the control ({' to '.join(control)})"
    text = results.README.read_text(encoding="utf-8")
    key = model.trained.passkeys[model.new]
    found = f"finds {share(key.accuracy)} of the passkeys ({share(key.low)} to {share(key.high)})"
    assert said in text and found in text
    decision = (LAB.parent / "docs/decisions/063-auto-is-the-default.md").read_text(encoding="utf-8")
    assert f"finds {share(key.accuracy)} of the passkeys (2 of 80)".replace("\u202f", " ") in decision
    at_20 = {claim.what: claim.cell(_column("smollm2-135m", 20)).split(":")[0] for claim in claims.CLAIMS}
    assert at_20["nats up to 0"] == at_20["nats; held up to 0.02"] == claims.HELD
    assert at_20["nats at L' above the control's at L; held up to 0"] == "**did not**"
    assert at_20["nats above the control's; held up to 0.02"] == "**did not**"


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


def test_gpu_seconds_are_compared_on_as_many_gpus_of_one_kind_alone():
    smollm, lab = (cheaper.section(model, results.full_rows(model)) for model in ("smollm2-135m", "lab-2k"))
    assert "| GPU seconds of its |" not in smollm and "1816 GPU seconds are of H100 × 4" in smollm
    assert "| YaRN | 20 M | 0 | 20\u202f% | 19\u202f% |" in lab and "| YaRN | 20 M | 0 | 20\u202f% | **did" in smollm
    assert "| PI | 20 M | 0 | 20\u202f% | 19\u202f% |" in lab and f"{claims.NOT_TESTABLE}: 0" in lab
    assert "| 1816, H100 × 4 |" in _page()


def test_brackets_of_a_column_are_intervals_of_one_kind():
    """Over seeds and prompts, as the report's page has them: wider of three seeds that differ than of one."""
    page = _page()
    (line,) = re.findall(r"^\| PI \| 20 M \| 0.001 \| 3 .*", page, re.MULTILINE)
    assert "| 17\u202f% (0\u202f% to 81\u202f%) | 46\u202f%, 1\u202f%, 3\u202f% |" in line
    assert "(0\u202f% to 0\u202f%)" not in page


def test_a_figure_beside_the_control_says_its_seeds_and_rate_where_they_are_not_the_rows():
    """Of SmolLM2 there is one control of 5 M tokens that was measured in full, of seed 0 at 1e-4, and YaRN of two seeds at 3e-4; at 20 M all are at 3e-4."""
    yarn = [
        line.split(" | ") for line in _page().splitlines() if re.match(r"\| YaRN \| (5|20) M \| 0\.0003 \| [23] ", line)
    ]
    assert [(line[1], line[3], line[7].partition(")")[2]) for line in yarn] == [
        ("5 M", "2", ", seed 0, control at 0.0001"),
        ("20 M", "3", ""),
    ]
    assert "| control: at L | 5 M | 0.0001 (best on validation: 0.0003, not measured in full) | 1 |" in _page()
    assert "smollm2-135m, 20 M (at 0.001, the control at 0.0003)" in _page()


def test_what_was_never_run_is_larger_than_the_largest_record():
    assert "models of more than 135 million parameters (smollm2-135m, the largest of the records)" in _page()


def test_what_no_record_is_of_is_named_as_never_run_until_there_is_one(tmp_path, monkeypatch):
    (said,) = re.findall(r"^\*\*Never run:\*\* .*", _page(), re.MULTILINE)
    for words in (
        "×32 on smollm2-135m (at most ×16)",
        "1000 steps",
        "two steps on smollm2-135m",
        "table 6",
        "any row of gemma-3-270m",
        "penalty on |h_j|",
    ):
        assert words in said
    for words in ("PoSE", "LoRA", "lab-2k"):
        assert words not in said
    assert "(level, model): e, gemma-3-270m: 0 of 7" in said and "smollm2-135m: " not in said
    monkeypatch.setattr(summaries, "is_like_the_papers", lambda records, parameters: True)
    monkeypatch.setattr(penalty, "absent", lambda records: ())
    sizes = {"gemma-3-270m": 4, "smollm2-135m": 3, "lab-2k": 2, "hemp": 1, "gemma-3-270m-yarn-65536": 4}
    modes = ("full", "lora", "pose", "full", "full")
    there = [
        SimpleNamespace(
            name=name,
            parameters=size,
            asked={"factor": 32.0, "tokens": 2**29, "mode": mode},
            in_two_steps=size != 3 and "-yarn" in name,
        )
        for (name, size), mode in zip(sizes.items(), modes, strict=True)
    ]
    assert list(never._absent(there, tmp_path)) == []
    assert list(never._absent([each for each in there if each.asked["mode"] != "lora"], tmp_path))[-1] == "LoRA"
    assert list(never._absent(there[:4], tmp_path)) == ["windows in two steps on gemma-3-270m"]
    smaller = [
        *there[1:4],
        SimpleNamespace(**vars(there[0]) | {"asked": {"factor": 16.0, "tokens": 2**20, "mode": "full"}}),
    ]
    assert list(never._absent(smaller, tmp_path))[:2] == [
        "the paper's ×32 on gemma-3-270m (at most ×16)",
        "the paper's 1000 steps of 500 M tokens in all on gemma-3-270m (at most 1 M)",
    ]


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


def test_no_records_are_told_in_a_sentence(tmp_path, monkeypatch, capsys):
    assert f"{tmp_path} holds none" in _refused(tmp_path, monkeypatch, capsys)


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


@pytest.mark.parametrize(
    ("parameters", "documents", "tokens", "like"),
    [(135, 100, 15000, True), (134, 100, 15000, False), (135, 3, 15000, False), (135, 100, 196, False)],
)
def test_summaries_of_a_smaller_model_of_few_documents_or_of_short_ones_are_not_the_paper_s(
    parameters, documents, tokens, like, tmp_path, monkeypatch
):
    (tmp_path / "summaries").mkdir()
    (tmp_path / "summaries/a.jsonl").touch()
    model = SimpleNamespace(parameters=parameters, original_window=8192)
    row = SimpleNamespace(documents=documents, document_tokens=tokens, decoding="greedy")
    read = SimpleNamespace(of=lambda kind: [SimpleNamespace(run=SimpleNamespace(model=model), row=row)])
    monkeypatch.setattr(summaries, "whole_records", lambda path: read)
    assert summaries.is_like_the_papers(tmp_path, 135) is like
    row.decoding = "first 250 words"
    assert not summaries.is_like_the_papers(tmp_path, 135)


def test_harder_retrieval_has_as_many_families_as_a_whole_row():
    from ropewalk.evals.retrieval import FAMILIES

    assert len(FAMILIES) == rows.FAMILIES


def test_a_row_that_was_measured_in_part_is_not_counted_as_measured(tmp_path):
    path = results.RECORDS / "a/lab-2k/linear-x4-5M-3e-4-s0.jsonl"  # of level rates
    assert never._is_measured(path, {"measure": ["validation"]}) and not never._is_measured(path, {})
    assert not never._is_measured(tmp_path / "none.jsonl", {})


def test_what_is_said_of_the_mixtures_retrieval_is_the_verdict_over_its_seeds():
    """The figure of the table's own line, and a verdict that its interval bears out."""
    said = re.search(
        r"Of four fifths whole.* it is open whether retrieval is more than a point below the plain rows' over 4 seeds: (.+) \((.+) to (.+)\) points\.",
        _page(),
    )
    assert said and f"| 4 seeds |  |  | open: {said[1]} ({said[2]} to {said[3]}) |" in _page()
    low, high = (float(end.replace("−", "-")) for end in said.groups()[1:])
    assert low < -1 < high


def test_the_theory_is_said_to_have_told_what_the_records_bear_out(capsys):
    page, said = _page(), theory_in_words(capsys)
    assert "Not in the new window: of the 4 correlations there with angles never seen none" in page
    assert "neither count of unseen angles said which lose more there" in said
    assert "blurred went with the loss in the old window" in said
    assert "2 can: angular resolution lost with damage in the old window" in page
    for column in ("smollm2-135m", "lab-2k"):
        assert _claim("A model breaks").cell(_column(column, 20)).startswith(claims.HELD)
    assert explain.cell(-0.6, -0.7, -0.4, 9, 0)[0] != "*" == explain.cell(-0.6, -0.7, -0.4, 9, -1)[0]
    assert explain.cell(-0.6, -0.7, -0.4, 9, 1)[0] != "*"


def theory_in_words(capsys) -> str:
    show_theory(theory("hemp", window=1024))
    return " ".join(capsys.readouterr().out.split())


def _shifted(source: Path, target: Path, nats: dict[int, float], **asked) -> None:
    """A row's file written again under its new name: asked for otherwise, and its losses so many nats higher, by window."""
    lines = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    window = asked.pop("new_window", None)
    for line in lines:
        if line["kind"] == "run":
            line["settings"]["row"] |= {"name": f"{target.parent.name}/{target.stem}"} | asked
            line["model"]["window"] = window or line["model"]["window"]
        elif line["kind"] == "perplexity" and (shift := nats.get(line["window"])):
            line |= {name: line[name] * math.exp(shift) for name in ("perplexity", "low", "high")}
            for document in line["per_document"]:
                document["nll"] += shift * document["tokens"]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def test_other_ways_to_a_window_are_lines_of_their_own_below_the_whole_windows(tmp_path):
    """A PoSE row 0.1 nats above at L', a second step of half of the tokens 0.2 nats above: each in its line, also where all lie in one directory."""
    whole = results.RECORDS / "a/lab-2k/linear-x4-5M-1e-3-s0.jsonl"
    for name in ("none.jsonl", whole.name):
        _shifted(whole.with_name(name), tmp_path / "a/lab-2k" / name, {})
    assert ways.section("lab-2k", tmp_path) == ""
    pose, second = tmp_path / "pose/lab-2k" / whole.name, tmp_path / "steps/lab-2k-linear-4096/linear-x2.jsonl"
    _shifted(whole, pose, {8192: 0.1}, mode="pose")
    _shifted(
        whole,
        second,
        {8192: 0.2},
        windows="prompts",
        prompt_windows=[2048, 8192],
        factor=2.0,
        tokens=5 * 2**19,
        learning_rate=3e-4,
    )
    lines = [line for line in ways.section("lab-2k", tmp_path).splitlines() if line.startswith("| PI |")]
    assert [line.split(" | ")[1:4] for line in lines] == [
        ["whole windows, one step", "5 M", "0.001"],
        ["PoSE", "5 M", "0.001"],
        ["two steps", "5 M", "0.0003"],
    ]
    assert "| 0.100 (0.100 to 0.100) |" in lines[1] and "| 0.200 (0.200 to 0.200) |" in lines[2]
    _shifted(whole, tmp_path / "a/lab-2k/other.jsonl", {}, mode="lora")
    together = rows.at_chosen_rate(rows.rows_in(tmp_path / "a/lab-2k", second.parent), {})
    assert {row.method for row in together} == {"base", "PI", "PI, LoRA", "PI, second step"}
    (row,) = rows.rows_in(second.parent)
    assert (row.new_window, row.in_two_steps) == (8192, True)


def test_the_rates_of_lora_are_on_the_page_and_only_ways_that_were_run_are_explained():
    """Of lab-2k's PI the higher of two rates was best, of its YaRN the lower; of SmolLM2 nothing was made in two steps."""
    lab, smollm = (ways.section(model, results.RECORDS) for model in ("lab-2k", "smollm2-135m"))
    assert lab.startswith("### PoSE, LoRA and two steps, lab-2k\n") and "Two steps are half" in lab
    assert "| PI, LoRA | 5 M | 3.8729 | **3.4814** |" in lab and "| YaRN, LoRA | 5 M | 3.3586 | **3.3300** |" in smollm
    assert (
        "The highest rate that was tried was the best of PI, LoRA. The lowest rate that was tried was the best of YaRN, LoRA."
        in lab
    )
    assert smollm.startswith("### PoSE and LoRA, smollm2-135m\n") and "wo steps" not in smollm


def test_the_paper_s_largest_factor_is_a_table_of_its_own(tmp_path):
    source = results.RECORDS / "b/lab-2k"
    for name, word in (("none", "none"), ("linear-x16-0", "linear")):
        _shifted(source / f"{name}.jsonl", tmp_path / f"x32/lab-2k/{word}.jsonl", {}, factor=16.0)
    found = ways.widest("lab-2k", tmp_path)
    assert "2048 → 32768" in found and re.search(r"^\| none \| PI \| 16 \|", found, re.MULTILINE)
    assert ways.widest("smollm2-135m", tmp_path) == ""


def test_the_penalty_is_judged_beside_the_model_of_the_same_seed_without_it(tmp_path):
    """By hand: 0.1 nats lower at 4 L with the penalty in every seed, and 0.03 higher at L."""
    source = results.RECORDS / "a/hemp"
    for seed in range(3):
        for weight in (0, 0.01):
            out = tmp_path / f"penalty/hemp-3000-h{weight}-s{seed}"
            shift = {256: 0.03 * bool(weight) + 0.5 * seed, 1024: -0.1 * bool(weight) + 0.5 * seed}
            _shifted(source / "none.jsonl", out / "none.jsonl", shift)
            for factor in (2, 4):
                lost = {1024: 0.05 * bool(weight)}
                kept = dict(windows="prompts", prompt_windows=[256, 1024], factor=float(factor))
                _shifted(source / "linear-x4-0.jsonl", out / f"linear-x{factor}-0.jsonl", lost, **kept)
            shutil.copytree(tmp_path / f"penalty/hemp-3000-h{weight}-s{seed}", tmp_path / f"smoke/penalty/hemp-2-h{weight}-s{seed}")  # fmt: skip
    assert {weight: list(models) for weight, models in penalty.models_in(tmp_path).items()} == {
        0: [0, 1, 2],
        0.01: [0, 1, 2],
    }
    assert penalty.section(tmp_path / "smoke") == ""  # of two steps
    assert list(penalty.absent(tmp_path)) == ["the penalty on |h_j| of weight 0.001 by seeds 0, 1 and 2"]
    found = penalty.section(tmp_path)
    assert "the same rows in 3000 steps, " in found
    answers = {line.split(":")[0].strip("| "): line.split(" | ")[1] for line in found.splitlines() if "nats at" in line}
    assert answers["Extrapolation to four times is better"].startswith("**held**: −0.100 (−0.100 to −0.100)")
    assert answers["Its own window hardly suffers"].startswith("**did not**: 0.030")
    assert answers["Interpolation to four times, untrained, is better"].startswith("**did not**: 0.050")
    (tmp_path / "penalty/hemp-3000-h0.01-s2/linear-x4-0.jsonl").unlink()
    assert penalty.section(tmp_path) == penalty.section(tmp_path / "nothing") == ""
    (never_run,) = penalty.absent(tmp_path)
    assert never_run.endswith("open question (models of weight 0.001 and 0.01 by seeds 0, 1 and 2 are not all there)")


def test_the_first_words_are_scored_beside_the_summaries_of_the_same_documents(tmp_path):
    """The first three words of each document are its summary, so that all of it is found; one more word of them is a word too many."""
    pairs, out = tmp_path / "pairs.jsonl", tmp_path / "summaries/m.jsonl"
    texts = [("one two three four five", "one two three"), ("red green blue gray", "red green blue")]
    pairs.write_text("".join(json.dumps({"document": d, "summary": s}) + "\n" for d, s in texts), encoding="utf-8")
    names = [pair.name for pair in summaries.first([str(pairs)], None)]
    half = {"rouge_1": 0.5, "rouge_2": 0.5, "rouge_l": 0.5, "rouge_l_plain": 0.5}
    row = Summary(**half, intervals=dict.fromkeys(half, [0.4, 0.6]), documents=2, cut=0, unfinished=1, decoding="greedy", window=64, document_tokens=32,
                  summary_tokens=16, per_document=[{"name": name, "tokens": 3, **half} for name in names], data="pairs.jsonl")  # fmt: skip
    run_header = next(iter(rows.rows_in(results.RECORDS / "a/hemp")[0].records.runs.values()))
    out.parent.mkdir()
    Recorder(out, run_header).add(row)
    assert summaries.add_first_words(out, [str(pairs)], 3).rouge_1 == 1.0
    found = summaries.section(tmp_path)
    assert "| greedy | 50.0 (40.0 to 60.0) |" in found and "| first 3 words | 100.0 " in found
    assert "| −50.0 (−50.0 to −50.0) | 1 of 2 |" in found
    assert summaries.add_first_words(out, [str(pairs)], 4).rouge_1 == pytest.approx(6 / 7)  # F of 3/4 and 1
    before = out.read_text(encoding="utf-8")
    assert summaries.add_first_words(out, [str(pairs)], 3).rouge_1 == 1.0
    assert out.read_text(encoding="utf-8") == before  # it is there
    found = summaries.section(tmp_path)
    assert "| ROUGE-1 above the first 3 words |" in found and found.count("| −50.0 (") == 1
    (line,) = [line for line in found.splitlines() if line.startswith("| first 4 words |")]
    assert line.endswith(" |  |  |")  # nothing is cut of it, and it is beside no other
    pairs.write_text(json.dumps({"document": "a b", "summary": "a"}) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="summaries of other documents"):
        summaries.add_first_words(out, [str(pairs)], 3)
    with pytest.raises(UserError, match="got 0; give other --words"):
        summaries.add_first_words(out, [str(pairs)], 0)
    out.write_text(before[:-9], encoding="utf-8")
    for damaged in (lambda: summaries.section(tmp_path), lambda: summaries.add_first_words(out, [str(pairs)], 3)):
        with pytest.raises(UserError, match=re.escape(str(out))):
            damaged()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (summaries, ["no.jsonl", "--data", "no.jsonl"]),
        (conversations, ["hemp", "no.jsonl", "--window", "1k", "--out", "o"]),
    ],
)
def test_a_missing_file_is_told_in_a_sentence(script, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script.__file__, *words])
    with pytest.raises(SystemExit) as refused:
        script.main()
    assert refused.value.code == 2 and "no.jsonl" in capsys.readouterr().err


def test_commands_of_the_readme_are_commands():
    """Of what stands outside the grids: training in steps, summaries, the paper's largest factor and steps."""
    text = (
        (LAB / "README.md").read_text(encoding="utf-8").replace("${method%:*}", "yarn").replace("${method#*:}", "3e-4")
    )
    told = [
        line.partition("ropewalk ")[2] for line in text.splitlines() if re.match(r" {4,}(ropewalk|torchrun) ", line)
    ]
    commands = [parsed(shlex.split(line)) for line in told if "$(" not in line and "…" not in line]
    assert [each["command"] for each in commands] == ["train", "train", "summarize", "ablate", "ablate"]
    assert commands[0]["window"] * 64 * 10 == 5 * 2**19  # half of the 5 M
    assert (commands[3]["factors"], max(commands[4]["tokens"])) == ([32.0], 1000 * 64 * 8192)
