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
    assert "models of more than 268 million parameters (gemma-3-270m, the largest of the records)" in text_of_page()


def test_what_no_record_is_of_is_named_as_never_run_until_there_is_one(tmp_path, monkeypatch):
    (said,) = re.findall(r"^\*\*Never run:\*\* .*", text_of_page(), re.MULTILINE)
    for words in (
        "×32 on a model that others made (at most ×16, smollm2-135m)",
        "1000 steps of 500 M tokens in all on one (at most 100 M, smollm2-135m)",
        "table 6) by one, of 100 documents or more that are known to be longer than its old window (at most 2)",
    ):
        assert words in said
    for words in ("PoSE", "LoRA", "two steps", "lab-2k", "any row of", "penalty", "(level, model)"):
        assert words not in said
    assert "penalty on |h_j|" in " ".join(penalty.absent(tmp_path))
    monkeypatch.setattr(summaries, "most_documents", lambda records, parameters: summaries.DOCUMENTS)
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
    assert list(never._absent(there[:4], tmp_path)) == ["windows in two steps on one"]
    smaller = [
        *there[2:4],
        SimpleNamespace(**vars(there[0]) | {"asked": {"factor": 16.0, "tokens": 2**20, "mode": "full"}}),
    ]
    assert list(never._absent(smaller, tmp_path))[:2] == [
        "the paper's ×32 on a model that others made (at most ×16, gemma-3-270m)",
        "the paper's 1000 steps of 500 M tokens in all on one (at most 1 M, gemma-3-270m)",
    ]


def test_a_row_that_was_measured_in_part_is_not_counted_as_measured(tmp_path):
    path = results.RECORDS / "a/lab-2k/linear-x4-5M-3e-4-s0.jsonl"  # of level rates
    assert never._is_measured(path, {"measure": ["validation"]}) and not never._is_measured(path, {})
    assert not never._is_measured(tmp_path / "none.jsonl", {})
