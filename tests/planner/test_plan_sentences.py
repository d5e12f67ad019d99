"""What a plan says beside its figures: nights, the paper's recipe and a measured one, refusals, what fits instead."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from on_paper import config_of
from ropewalk import cli, testing
from ropewalk.cli.tables.plan import show_plan
from ropewalk.cli.tables.plan_sentences import verdict
from ropewalk.planner import chips, plan, planner
from ropewalk.planner.measured_recipe import measured_recipe
from ropewalk.planner.memory import GIB


@pytest.mark.parametrize(
    "family, said", [("phi-3-mini-4k", "compute what they see alone"), ("gemma2", "save no time"), ("llama", "")]
)
def test_a_plan_says_what_layers_that_slide_cost(
    family: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = testing.tiny_config(family, window=64)
    (tmp_path / "config.json").write_text(config.to_json_string(use_diff=False), encoding="utf-8")
    show_plan(plan(str(tmp_path), window=256, gpus="H100"))
    out = " ".join(capsys.readouterr().out.split())
    assert ("layers that slide" in out) == bool(said) and said in out


def test_a_run_of_days_on_one_chip_is_told_what_a_night_does(capsys) -> None:
    """`--batch-size` and the steps of it that eight hours have, by the plan's own time; nothing where a day suffices, or where it is a cluster's."""
    options = dict(window=32768, gpus="H200", mode="lora")
    long = plan("llama-7b", steps=1000, **options)
    show_plan(long)
    steps, windows = map(
        int, re.search(r"in a night of 8 hours: (\d+) steps of (\d+) windows?, ", capsys.readouterr().out).groups()
    )
    night = plan("llama-7b", steps=steps, batch_size=windows, **options)
    assert night.hours == pytest.approx(8, rel=0.1) and steps >= 20
    for other in (
        plan("llama-7b", steps=20, batch_size=1, **options),
        plan("llama-7b", window=32768, gpus="8xH200", steps=10000),
    ):
        show_plan(other)
        assert "in a night" not in capsys.readouterr().out


def test_the_default_recipe_is_said_to_be_the_papers_and_a_measured_one_stands_beside_it(capsys) -> None:
    """lab-2k has LLaMA's base and window: its longest training by YaRN, as it was run (lab/records/c/lab-2k), and as much of the time as of the tokens."""
    options = dict(window=32768, gpus="H100", price=2.5)
    planned = plan("llama-7b", **options)
    beside = measured_recipe(planned)
    assert (beside.steps, beside.batch_size, beside.learning_rate, beside.tokens) == (200, 64, 3e-4, 200 * 64 * 32768)
    assert beside.cost == pytest.approx(planned.cost * beside.tokens / planned.tokens)
    show_plan(planned)
    printed = capsys.readouterr().out
    assert "1000 steps of 128 windows (6.4 days) are the recipe of Chen et al." in printed
    assert "train --steps 200 --batch-size 64 --learning-rate 0.0003, here 419 million tokens, about" in printed
    assert (
        "(lab-2k, 2048 to 8192 tokens, " in printed
        and "28\u202f% (3 seeds, by seed from 21\u202f% to 31\u202f%) in" in printed
    )
    assert "factor 16 (measured: 4); Chen et al. train 7B and 13B at a rate of 2e-05" in printed
    assert f", which cost {beside.cost:.0f} by the price given (" in printed
    dear = plan("llama-7b", **{**options, "price": 25.0})
    show_plan(dear)
    assert f", which cost {measured_recipe(dear).cost:.0f} by the price given (" in capsys.readouterr().out
    assert measured_recipe(plan("llama-7b", window=32768, gpus="128xH100", cp=1)).batch_size == 128  # shared out evenly
    assert measured_recipe(plan("llama-7b", window=32768, gpus="4090")).hours is None  # does not fit
    assert measured_recipe(plan("llama-7b", window=2048, gpus="H100")) is None  # no longer window


def test_steps_that_are_named_are_told_what_was_measured_too(capsys) -> None:
    show_plan(plan("llama-7b", window=32768, gpus="H100", steps=200, batch_size=2))
    printed = capsys.readouterr().out
    assert "the recipe of Chen et al." not in printed
    assert "measured in the lab with YaRN, which --method auto takes: train --steps 200 --batch-size 64" in printed
    assert "training tokens 12.5M (measured: 5M, 20M and 100M)" in printed
    for steps, batch_size in ((1000, 1), (16, 32)):
        beside = measured_recipe(plan("hemp", window=1024, gpus="H100", steps=steps, batch_size=batch_size))
        assert (beside.steps, beside.batch_size, beside.learning_rate) == (16, 32, 1e-4)
        assert "extrapolation" not in beside.evidence


def test_a_recipe_is_of_the_method_that_makes_the_model_longer() -> None:
    asked = dict(window=1024, gpus="H100")
    assert measured_recipe(plan("hemp", **asked)).method == "YaRN"
    assert measured_recipe(plan("hemp", method="pi", **asked)).method == "PI"
    assert measured_recipe(plan("hemp", method="yarn", beta_fast=4.0, beta_slow=3.0, **asked)) is None


@pytest.mark.parametrize(
    "words",
    ["--method linear", "--method abf --rope-theta 500000", "--method plain", "--method llama3", "--method yarn", ""],
)
def test_the_recipe_that_a_plan_prints_is_typed_and_trains_by_the_method_that_was_planned(words, capsys) -> None:
    cli.main(["plan", "hemp", "--window", "1024", "--gpus", "H100", *words.split()])
    printed = " ".join(capsys.readouterr().out.split())
    line = re.search(r"measured in the lab with [^:]*: train (.*?), here ", printed)[1]
    assert line.startswith(f"{words} --steps 16 " if words else "--steps 16 ")
    asked = f"train hemp --window 1024 --data books --out here {line}"
    _, options = cli.parse(asked.split())
    planned = plan("hemp", window=1024, gpus="H100", method=options.method, rope_theta=options.rope_theta)
    assert measured_recipe(planned).method in printed.partition("measured in the lab with ")[2]
    assert ("which --method auto takes" in printed) == (not words) == ("which auto takes here" in printed)
    assert f"{planned.info.method}{', which auto takes here' * (not words)}" in printed


def test_what_no_training_takes_is_said_beside_a_plan_and_its_figures_stay(capsys) -> None:
    usual = plan("hemp", window=1024, gpus="H100")
    for options, sentence in (
        (dict(method="abf"), "abf scaling needs a --rope-theta above the model's own 10000"),
        (dict(method="yarn", rotated_share=0.5), "yarn scaling has no --rotated-share"),
        (dict(method="longrope"), "longrope scaling needs --factors"),
    ):
        planned = plan("hemp", window=1024, gpus="H100", **options)
        assert sentence in str(planned.info) and measured_recipe(planned) is None
        assert (planned.memory, planned.time) == (usual.memory, usual.time)
    assert status_of("plan hemp --window 256 --gpus H100 --beta-fast 8".split()) == 1
    assert "train would refuse this: --beta-fast says how a model is extended, and nothing is" in " ".join(
        capsys.readouterr().out.split()
    )


def status_of(words: list[str]) -> int:
    """With which a command ends."""
    try:
        return cli.main(words) or 0
    except SystemExit as ended:
        return int(ended.code or 0)


@pytest.mark.parametrize(
    ("family", "said"),
    [("mistral-v0.1", "slides in every layer"), ("cohere2", "only layers rotate that see a part"), ("llama", "")],
)
def test_a_plan_says_what_extend_refuses_of_a_model_without_a_layer_to_scale(family, said, tmp_path, capsys) -> None:
    path = config_of(tmp_path / "a", family)
    for words, is_said in (("", bool(said)), ("--method plain", False)):
        typed = ["plan", path, "--window", "256", "--gpus", "H100", *words.split()]
        assert status_of(typed) == is_said
        printed = " ".join(capsys.readouterr().out.split())
        assert ("train would refuse this: " in printed) == is_said and (not is_said or said in printed)
        assert "--raise-sliding-window" not in printed or "add --raise-sliding-window" in printed
        assert ("which auto takes here" in printed) == (not said and not words)
        assert not is_said or printed.startswith("train would refuse this: ")
        assert status_of([*typed, "--json"]) == is_said
        row = json.loads(capsys.readouterr().out)
        assert row["fits"] and (said in row["refused"] if is_said else row["refused"] is None)
        assert "refuse" not in row["measured"]
    if family == "mistral-v0.1":
        cli.main(["plan", path, "--window", "256", "--gpus", "H100", "--raise-sliding-window"])
        printed = " ".join(capsys.readouterr().out.split())
        assert "refuse" not in printed and "train --raise-sliding-window --steps" in printed


def test_on_a_cpu_what_a_night_does_comes_before_what_the_papers_recipe_would_take(monkeypatch, capsys) -> None:
    cpu = replace(chips.cpu_of_memory(64.0, "this machine"), memory=64.0)
    rates = replace(
        chips.datasheet_rates(cpu), matrix=5e10, attention_forward=3e10, attention_backward=3e10, known=True
    )
    monkeypatch.setattr(planner, "_gpus_here", lambda: 0)
    monkeypatch.setattr(planner, "_measured", lambda job: (cpu, rates))
    monkeypatch.setattr(planner, "memory_here", lambda: 64 * GIB)
    show_plan(plan("hemp", window=16384))
    printed = capsys.readouterr().out
    night, recipe, days = (
        printed.index(words) for words in ("in a night of 8 hours", "the recipe of Chen et al.", " days")
    )
    assert night < recipe and night < days and "1000 steps, the paper's" in printed
    assert re.search(r"1000 steps of 128 windows \([\d.]+ days\) are the recipe of Chen et al.", printed)
    assert "are no run for a CPU: GPUs that are not here are planned for with --gpus, as in --gpus 8xH100\n" in printed
    show_plan(plan("hemp", window=1024, steps=100, batch_size=1))
    assert "no run for a CPU" not in capsys.readouterr().out


def test_a_way_that_takes_more_memory_says_why(capsys) -> None:
    """Skipped positions were offered at more memory than whole windows take, without a word."""
    tight, roomy = (plan("7b", window=16384, batch_size=2, cpu_memory=size) for size in ("140GB", "512GB"))
    assert tight.memory.total < tight.others[0].memory.total and roomy.memory.total > roomy.others[0].memory.total
    show_plan(tight)
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.count("kept, since") == 1 and re.search(r"--mode pose \(all activations kept, since", shown)
    show_plan(roomy)
    assert "kept, since" not in capsys.readouterr().out


def test_sentences_are_wrapped_at_words_on_a_terminal_and_whole_in_a_pipe(monkeypatch, capsys) -> None:
    asked = ["plan", "7b", "--gpus", "8xH100", "--window", "32768"]
    cli.main(asked)
    whole = capsys.readouterr().out
    assert any(line.startswith("it fits by ") and line.endswith("how much there is)") for line in whole.splitlines())
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # what rich takes for a terminal
    cli.main(asked)
    wrapped = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert max(map(len, wrapped.splitlines())) <= 80
    verdict_line = next(line for line in whole.splitlines() if line.startswith("it fits by "))
    assert " ".join(verdict_line.split()) in " ".join(wrapped.split())  # which splits at blanks that do not break too


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (dict(gpu_memory="24GB", window=131072, mode="lora", base_bits=4), "done again with less kept, down to"),
        (dict(gpus="H100", window=131072), "done again with less kept, down to"),
        (dict(gpus="2xH200", window=32768, batch_size=4), "a step that runs out of memory ends the run, its last checkpoint whole"),
        (dict(gpus="H200", window=8192, activations="full"), ""),
    ],
)  # fmt: skip
def test_a_plan_that_fits_by_less_than_it_may_be_wrong_by_says_so(asked: dict, said: str, capsys) -> None:
    """ "It fits, 1.7 GiB to spare" stood where a step had been seen to run out of memory."""
    planned = plan("7b", **{"batch_size": 1} | asked)
    show_plan(planned)
    printed = " ".join(capsys.readouterr().out.split())
    assert planned.fits and planned.to_dict()["close"] == bool(said)
    assert ("less than plans may be too low by (10 %)" in printed) == bool(said) and said in printed
    if "down to" in said:  # and what is left then is less than is planned, by more than a plan may be wrong by
        least = float(re.search(r"down to ([\d.]+) GiB by plan", printed)[1])
        assert least < planned.memory.total / GIB and least * 1.1 < planned.chip.memory


def test_a_way_that_fits_by_less_than_plans_are_wrong_by_says_so_on_more_chips_too() -> None:
    told = verdict(plan("qwen3-8b", gpus="8x3060", window=65536))
    assert (
        "what fits: --gpus 16x3060 --mode pose" in told
        and "the first leaves 0.0 GiB, less than plans may be too low by" in told
    )
