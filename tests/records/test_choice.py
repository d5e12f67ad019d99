"""Which method `auto` takes, and why, by the figures of docs/results.md."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import ropewalk
from ropewalk import testing
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.planner import plan
from ropewalk.records import ModelInfo, evidence
from ropewalk.records.choice import choice, settled
from ropewalk.records.evidence import Case, Figures
from ropewalk.rope.scaling import Linear, Plain, Scaling, Yarn

SMOLLM2 = ModelInfo("here", "llama", 8192, 8192, Plain(), 100_000.0, 64, 134_515_008)
LAB_2K = ModelInfo("here", "llama", 2048, 2048, Plain(), 10_000.0, 64, 24_388_992)
GEMMA = ModelInfo("here", "gemma3_text", 32768, 32768, Plain(), 1e6, 256, 268_098_176)
QWEN3_8B = ModelInfo("here", "qwen3", 40960, 40960, Plain(), 1e6, 128, 8_190_735_360)


def longer(info: ModelInfo, scaling: Scaling) -> ModelInfo:
    return replace(info, scaling=scaling, window=round(info.window * scaling.factor))


@pytest.mark.parametrize(
    ("info", "factor", "method"),
    [
        (GEMMA, 4, "linear"),
        (GEMMA, 2, "linear"),
        (replace(GEMMA, parameters=999_885_952), 4, "auto"),  # Gemma 3 1B has the same windows and bases
        (replace(GEMMA, parameters=0), 4, "auto"),  # weights that nobody counted
        (longer(GEMMA, Yarn(2.0)), 2, "auto"),  # goes on with what it has
        (QWEN3_8B, 4, "auto"),
        (SMOLLM2, 4, "auto"),
        (SMOLLM2, 1.125, "auto"),
        (LAB_2K, 4, "auto"),
    ],
)
def test_auto_is_interpolation_on_the_model_that_was_measured_to_do_better_by_it_alone(info, factor, method):
    assert settled("auto", {}, info, round(info.window * factor)) == method
    assert settled("yarn", {}, info, 4 * info.window) == "yarn"
    assert settled("auto", {"beta_fast": 16.0}, info, 4 * info.window) == "auto"


def test_the_sentence_is_of_a_model_of_the_same_config_or_says_that_the_nearest_one_is_against_it():
    gemma = "+0.025 and 38\u202f% against +0.186 and 20\u202f% untrained and −0.093 and 30\u202f% against −0.086 and 20\u202f% after 5M training tokens; of one seed"
    told = choice("auto", longer(GEMMA, Linear(4.0)))
    assert told.startswith(
        "linear, which auto takes here (gemma-3-270m, a model of this config, did better by linear than by yarn: "
    )
    assert gemma in told and "smollm2" not in told
    assert choice("linear", longer(GEMMA, Linear(4.0))) == "linear"
    told = choice("yarn", longer(GEMMA, Yarn(4.0)))
    assert told.startswith("yarn (gemma-3-270m, a model of this config, did better by linear") and gemma in told
    told = choice("auto", longer(QWEN3_8B, Yarn(4.0)))
    assert told.startswith("yarn, which auto takes here (on smollm2-135m at factor 4")
    assert "on gemma-3-270m, which is nearest, linear did better, so that it is not decided here" in told


def test_the_rule_of_auto_is_said_of_the_model_and_the_factor_that_it_is_from():
    told = choice("auto", longer(SMOLLM2, Yarn(4.0)))
    assert told == (
        "yarn, which auto takes here (on smollm2-135m at factor 4, of those that find most of the passkeys, it loses least in the old window; "
        "the paper's Position Interpolation is --method linear)"
    )
    assert choice("yarn", longer(SMOLLM2, Yarn(4.0))) == "yarn"
    assert choice("auto", longer(SMOLLM2, Linear(4.0))) == "linear"  # it had that


@pytest.mark.parametrize(
    ("pi", "yarn", "method"),
    [((0.1, 0.5), (0.2, 0.5), "linear"), ((0.1, 0.4), (0.2, 0.5), "yarn"), ((0.2, 0.9), (0.1, 0.5), "yarn")],
)
def test_extend_and_plan_and_theory_heed_the_same_figures(pi, yarn, method, tmp_path: Path, monkeypatch):
    base = testing.tiny_directory(tmp_path / "base", "llama", window=64)
    info = Checkpoint.open(base).info
    cases = tuple(
        Case(longer(info, scaling), 1.0, 1.0, {0: Figures(damage, 1.0, keys, keys, keys, 1)})
        for scaling, (damage, keys) in ((Linear(4.0), pi), (Yarn(4.0), yarn))
    )
    monkeypatch.setattr(evidence, "cases", lambda: cases)
    assert ropewalk.extend(base, window=256, out=tmp_path / "made").method == method
    assert plan(base, window=256, gpus="H100").info.method == method
    assert ropewalk.theory(base, window=256).own == method
