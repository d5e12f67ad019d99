"""The lab's page is what its records say, and its grids are grids that `ablate` takes."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path

import pytest

from ropewalk.reports import report

LAB = Path(__file__).resolve().parents[2] / "lab"
sys.path.insert(0, str(LAB))
import claims  # noqa: E402
import conversations  # noqa: E402
import explain  # noqa: E402
import results  # noqa: E402
import rows  # noqa: E402
import run  # noqa: E402

from ropewalk.data.chat_tokens import encode_conversations  # noqa: E402
from ropewalk.data.conversations import Conversation  # noqa: E402
from ropewalk.model.load import load_tokenizer  # noqa: E402


def test_the_page_is_drawn_from_the_records(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FIGURES", tmp_path)
    between = results.PAGE.read_text(encoding="utf-8").split(results.MARKS[0])[1].split(results.MARKS[1])[0]
    assert between.strip() == results.page(), "run `make results`"  # page() makes settings of every table in grids.toml


def test_what_is_said_of_methods_is_what_the_records_say():
    said = json.loads(results.EVIDENCE.read_text(encoding="utf-8"))
    assert said == json.loads(json.dumps(results.evidence())), "run `make results`"
    assert results.choice() in results.README.read_text(encoding="utf-8"), "run `make results`"


def test_records_name_no_place_on_the_machine_that_made_them():
    for path in results.RECORDS.glob("*/*/*.jsonl"):
        assert not any(
            word in path.read_text(encoding="utf-8") for word in ('"/', " /", "/home/", "/tmp/", "/root/")
        ), path


def test_the_page_that_the_results_name_is_drawn_from_records_that_are_here(tmp_path):
    (records,) = re.findall(r"^ +ropewalk report (lab/\S+)", results.PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    page = report([LAB.parent / records], tmp_path / "page.html", paper=False).read_text(encoding="utf-8")
    assert re.search(r"<h1>A longer window for smollm2-135m: \w+", page)


def test_a_rate_is_chosen_on_validation_alone(tmp_path):
    model = {
        "name": "m",
        "family": "llama",
        "original_window": 256,
        "window": 512,
        "scaling": {"method": "linear", "factor": 2.0},
    }
    for rate, validation, test in ((1e-4, 9.0, 5.0), (3e-4, 8.0, 6.0)):
        asked = {"method": "linear", "tokens": 1024, "seed": 0, "learning_rate": rate, "test": "t", "validation": "v"}
        head = {"kind": "run", "schema": 1, "id": "r", "command": "c", "started": "", "model": model, "seed": 0, "device": "cpu",
                "dtype": "float32", "versions": {}, "settings": {"row": asked}}  # fmt: skip
        figures = {"kind": "perplexity", "run": "r", "window": 256, "stride": 128, "low": 1.0, "high": 99.0, "documents": 1,
                   "skipped": 0, "tokens": 9, "bos": False}  # fmt: skip
        measured = [figures | {"perplexity": value, "data": data} for value, data in ((validation, "v"), (test, "t"))]
        (tmp_path / f"{rate}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (head, *measured)))
    assert rows.chosen_rates(tmp_path) == {"linear": 3e-4}
    grid = {"out": tmp_path, "methods": ["linear", "yarn"], "learning_rates": "chosen", "model": "m"}
    assert [part["learning_rates"] for part in run.with_chosen_rates(grid, tmp_path)] == [[3e-4], [1e-4]]


def test_gpus_are_grouped_for_rows_that_several_run_together():
    assert run.groups(["0", "1", "2"], 1) == ["0", "1", "2"]
    assert run.groups(["0", "1", "2", "3", "4"], 2) == ["0,1", "2,3"]
    assert run.groups([""], 2) == [""]  # on a machine without any
    with pytest.raises(SystemExit, match="--together 4 takes as many GPUs, and there are 2"):
        run.groups(["0", "1"], 4)


def test_a_claim_is_held_or_not_by_its_interval_and_open_where_that_tells_nothing():
    def cell(low: float, high: float) -> str:
        claim = claims.Claim("t", "table 1", lambda model: ((low + high) / 2, low, high), "nats", most=0.02)
        return claim.cell([None]).split(":")[0]

    assert [cell(-0.1, 0.02), cell(-0.1, 0.03), cell(0.021, 0.03), cell(float("nan"), float("nan"))] == [
        "**held**",
        "open",
        "**did not**",
        "open",
    ]


def test_what_a_longer_window_is_worth_is_read_from_rows_of_a_stride_that_tells():
    found = claims.models_of(results.full_rows("lab-2k"), rows.rows_in(results.RECORDS / "slid/lab-2k"))
    (claim,) = (each for each in claims.CLAIMS if each.text.startswith("It makes use"))
    coarse = [[model] for (model, *_) in claims.models_of(results.full_rows("lab-2k"))]
    assert [claim.cell(models).split(":")[0] for models in coarse] == ["open"] * 3
    assert [claim.cell(models).split(":")[0] for models in found] == ["open", "**held**", "**held**"]
    (model, *_) = found[-1]
    here, there = (model.by_window.trained.perplexities[window] for window in (model.new, model.old))
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
