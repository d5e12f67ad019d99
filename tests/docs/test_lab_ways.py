"""Sections of the lab's page on other ways to a window: PoSE, LoRA, two steps, the largest factor, the penalty on |h_j|."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import penalty
import results
import rows
import ways


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
    pose, second = (
        tmp_path / "pose/lab-2k" / whole.name,
        tmp_path / "steps/lab-2k-linear-4096/linear-x2-2560k-1e-3-s0.jsonl",
    )
    _shifted(whole, pose, {8192: 0.1}, mode="pose")
    _shifted(
        whole,
        second,
        {8192: 0.2},
        windows="prompts",
        prompt_windows=[2048, 8192],
        factor=2.0,
        tokens=5 * 2**19,
    )
    lines = [line for line in ways.section("lab-2k", tmp_path).splitlines() if line.startswith("| PI |")]
    assert [line.split(" | ")[1:4] for line in lines] == [
        ["whole windows, one step", "5 M", "0.001"],
        ["PoSE", "5 M", "0.001"],
        ["two steps", "5 M", "0.001"],
    ]
    assert "| 0.100 (0.100 to 0.100) |" in lines[1] and "| 0.200 (0.200 to 0.200) |" in lines[2]
    _shifted(whole, tmp_path / "lora/lab-2k" / whole.name, {}, mode="lora")
    directories = (tmp_path / "a/lab-2k", tmp_path / "lora/lab-2k", second.parent)
    together = rows.at_chosen_rate([row for directory in directories for row in rows.rows_in(directory)], {})
    assert {row.method for row in together} == {"base", "PI", "PI, LoRA", "PI, second step"}
    (row,) = rows.rows_in(second.parent)
    assert (row.new_window, row.in_two_steps) == (8192, True)


def test_the_rates_of_lora_are_on_the_page_and_only_ways_that_were_run_are_explained(tmp_path):
    """Of lab-2k's PI the higher of two rates was best, of its YaRN the lower; without its rows in two steps nothing is said of them."""
    lab, smollm = (ways.section(model, results.RECORDS) for model in ("lab-2k", "smollm2-135m"))
    assert lab.startswith("### PoSE, LoRA and two steps, lab-2k\n") and "Two steps are half" in lab
    assert "| PI, LoRA | 5 M | 3.8729 | **3.4814** |" in lab and "| YaRN, LoRA | 5 M | 3.3586 | **3.3300** |" in smollm
    assert (
        "The highest rate that was tried was the best of PI, LoRA. The lowest rate that was tried was the best of YaRN, LoRA."
        in lab
    )
    for level in ("a", "read-plain", "pose", "lora"):
        shutil.copytree(results.RECORDS / level / "smollm2-135m", tmp_path / level / "smollm2-135m")
    without = ways.section("smollm2-135m", tmp_path)
    assert without.startswith("### PoSE and LoRA, smollm2-135m\n") and "wo steps" not in without


def test_the_paper_s_largest_factor_is_a_table_of_its_own(tmp_path):
    source = results.RECORDS / "b/lab-2k"
    for name in ("none", "linear-x16-0"):
        _shifted(source / f"{name}.jsonl", tmp_path / f"x32/lab-2k/{name}.jsonl", {}, factor=16.0)
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
