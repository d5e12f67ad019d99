"""What the lab never ran is named on its page until there is a record of it."""

from __future__ import annotations

import re
from types import SimpleNamespace

import never
import penalty
import results
import summaries

from lab_page import text_of_page


def test_what_was_never_run_is_larger_than_the_largest_record():
    assert "models of more than 135 million parameters (smollm2-135m, the largest of the records)" in text_of_page()


def test_what_no_record_is_of_is_named_as_never_run_until_there_is_one(tmp_path, monkeypatch):
    (said,) = re.findall(r"^\*\*Never run:\*\* .*", text_of_page(), re.MULTILINE)
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


def test_a_row_that_was_measured_in_part_is_not_counted_as_measured(tmp_path):
    path = results.RECORDS / "a/lab-2k/linear-x4-5M-3e-4-s0.jsonl"  # of level rates
    assert never._is_measured(path, {"measure": ["validation"]}) and not never._is_measured(path, {})
    assert not never._is_measured(tmp_path / "none.jsonl", {})
