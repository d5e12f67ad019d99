"""Figures that were altered, and parts that were taken out, of committed rows: what is left of the row says otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from made_up import words
from ropewalk.records import LeftOut, Records, read
from ropewalk.reports import render

LAB = Path(__file__).resolve().parents[2] / "lab/records"
YARN, RULER = LAB / "c/smollm2-135m/yarn-x4-20M-3e-4-s1.jsonl", LAB / "ruler/smollm2-135m.jsonl"


def edited(path: Path, source: Path, kind: str, edit: Callable[[dict[str, Any]], object]) -> Records:
    """The records of a file in which the fifth row of a kind (or its last) is another; without it where the edit says False."""
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    own = [row for row in rows if row["kind"] == kind]
    if edit(own[:5][-1]) is False:
        rows.remove(own[:5][-1])
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return read([path])


def scaled(row: dict[str, Any], name: str) -> None:
    row["per_document"][2][name] *= 1.01


def flipped(row: dict[str, Any]) -> None:
    trial = row["per_trial"][3]
    trial["right"] = not trial["right"]


@pytest.mark.parametrize(
    ("source", "kind", "edit", "told"),
    [
        (YARN, "perplexity", lambda row: scaled(row, "nll"), "the loss in all and by part"),
        (YARN, "perplexity", lambda row: row.update(perplexity=row["perplexity"] * 0.99), "the loss in all and by part"),
        (YARN, "perplexity", lambda row: row["per_document"].pop(2), "documents in all and by part"),
        (YARN, "context_gain", lambda row: scaled(row, "short_nll"), "the gain in all and by part"),
        (YARN, "perplexity", lambda row: row.update(high=row["high"] / 5), "is not within its interval"),
        (YARN, "context_gain", lambda row: row.update(low=row["high"]), "is not within its interval"),
        (YARN, "retrieval", lambda row: row.update(low=row["high"], high=1.0), "is not within its interval"),
        (YARN, "benchmark", lambda row: row.update(high=row["low"]), "is not within its interval"),
        (RULER, "long_task", lambda row: row.update(high=row["score"] - 0.01), "is not within its interval"),
        (YARN, "retrieval", flipped, "right answers in all and by part"),
        (YARN, "retrieval", lambda row: row["per_trial"].pop(3), "trials in all and by part"),
        (YARN, "benchmark", lambda row: row.update(answers=row["answers"].replace("1", "0", 1)), "right answers in all"),
        (YARN, "benchmark", lambda row: row.update(accuracy=row["accuracy"] + 0.01), "the accuracy in all and by part"),
        (RULER, "long_task", lambda row: row["scores"].pop(2), "items in all and by part"),
        (RULER, "long_task", lambda row: row.update(score=row["score"] / 2), "the score in all and by part"),
    ],
)  # fmt: skip
def test_a_row_that_is_at_odds_with_its_parts_is_left_out_and_told(tmp_path, source, kind, edit, told):
    whole, records = read([source]), edited(tmp_path / "r.jsonl", source, kind, edit)
    assert whole.left_out == LeftOut() and records.left_out.malformed == {kind: 1}
    assert told in records.left_out.reasons[kind] and "r.jsonl, line " in records.left_out.reasons[kind]
    assert len(records.measurements) == len(whole.measurements) - 1


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda row: False, "depths in all and by part differ, 16 and 15"),
        (lambda row: row.update(successes=(row["successes"] + 1) % 5), "passkeys found in all and by part differ"),
        (lambda row: row.update(digits_right=24), "5 of 5 keys found have 25 to 25 digits right, got 24"),
    ],
)
def test_a_passkey_test_that_lacks_a_depth_is_left_out_whole(tmp_path, edit, told):
    """k_max of the others could be any; the other window stays."""
    records = edited(tmp_path / "r.jsonl", YARN, "passkey", edit)
    reason = records.left_out.reasons["passkey_summary"]
    assert records.left_out.malformed == {"passkey_summary": 1} and told in reason
    assert reason.startswith(f"{tmp_path.name}/r.jsonl, line ")
    windows = {m.row.window for m in records.measurements if m.row.kind.startswith("passkey")}
    assert windows == {32768}


@pytest.mark.parametrize("altered", [dict(low=0.99, high=1.0), dict(k_high=1024)])
def test_a_passkey_test_of_which_an_interval_was_altered_is_left_out_whole(tmp_path, altered):
    records = edited(tmp_path / "r.jsonl", YARN, "passkey_summary", lambda row: row.update(altered))
    assert records.left_out.malformed == {"passkey_summary": 1}
    assert "is not within its interval" in records.left_out.reasons["passkey_summary"]
    assert len({m.row.window for m in records.measurements if m.row.kind.startswith("passkey")}) == 1


def test_a_k_max_that_its_depths_do_not_give_is_left_out(tmp_path):
    records = edited(tmp_path / "r.jsonl", YARN, "passkey_summary", lambda row: row.update(k_max=row["k_max"] // 2))
    assert "k_max in all and by part differ" in records.left_out.reasons["passkey_summary"]
    assert len({m.row.window for m in records.measurements if m.row.kind.startswith("passkey")}) == 1


def test_a_page_names_what_was_altered(tmp_path):
    """Of rows that do not say how many they are, as those of `ropewalk perplexity`."""
    rows = [json.loads(line) for line in YARN.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row.get("settings", {}).pop("row", None)
    scaled(next(row for row in rows if row["kind"] == "perplexity"), "nll")
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    page = words(render(read([tmp_path / "r.jsonl"])))
    assert (
        "1 row of kind “perplexity” with a field missing, of the wrong type or at odds with others was left out" in page
    )
    assert "the loss in all and by part differ" in page
