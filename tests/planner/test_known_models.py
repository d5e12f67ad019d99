"""Models that are known by name, offline: their weights as published; their rotation is what the theory is about."""

from __future__ import annotations

from pathlib import Path

import pytest

from ropewalk import cli
from ropewalk.errors import UserError
from ropewalk.planner import plan
from ropewalk.planner.named import shape_of
from ropewalk.suite.theory import theory


def test_models_of_today_are_known_by_name_and_have_the_weights_that_their_makers_files_have() -> None:
    """Parameters by the safetensors headers on the hub's pages: meta-llama/Meta-Llama-3-8B, -70B, Qwen/Qwen3-8B, Qwen2.5-7B, mistralai/Mistral-7B-v0.3, …"""
    counts = {"llama-3-8b": 8_030_261_248, "llama-3-70b": 70_553_706_496, "qwen3-8b": 8_190_735_360}
    counts |= {"qwen2.5-7b": 7_615_616_512, "mistral-7b-v0.3": 7_248_023_552, "smollm2-135m": 134_515_008}
    assert {name: shape_of(name).parameters for name in counts} == counts
    planned = plan("llama-3-70b", window=32768, gpus="64xH100", batch_size=64)
    assert planned.fits and planned.job.shape.window == 8192


def test_a_llama_that_is_not_the_papers_is_told_from_a_directory() -> None:
    with pytest.raises(
        UserError,
        match="llama-70b is no directory here, and hemp, llama-7b, llama-13b, .* llama-3-70b, .* smollm2-135m are the models",
    ):
        shape_of("llama-70b")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("llama3-8", r"did you mean llama-3-8b or .*\? Else name a directory, or a hub id"),
        ("qwen-7b", r"did you mean qwen2.5-7b or qwen3-8b\? Else"),
        ("phi-3", "known by name; name one of them, a directory, or a hub id"),
    ],
)
def test_a_name_that_is_near_to_known_ones_is_told_the_nearest(name: str, meant: str) -> None:
    with pytest.raises(UserError, match=meant):
        shape_of(name)


def test_theory_takes_a_known_model_as_plan_does(tmp_path: Path, capsys) -> None:
    """rope_theta 500000 and 8192 tokens: not LLaMA's, which every known name once had here."""
    forecast = theory("llama-3-8b", window=32768, out=tmp_path / "python")
    assert (forecast.rope.rope_theta, forecast.rope.window, forecast.rope.head_dim) == (500000.0, 8192, 128)
    assert "grouped keys" in " ".join(forecast.hurdles)
    cli.main(["theory", "llama-7b", "--window", "4096", "--out", str(tmp_path / "typed")])
    assert "llama-7b, window 2048 → 4096" in capsys.readouterr().out


def test_a_hub_id_that_cannot_be_fetched_is_known_here_by_its_own_name(monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="or plan for qwen3-8b, whose config is known here"):
        shape_of("Qwen/Qwen3-8B")
    assert shape_of("llama3_8b").parameters == shape_of("llama-3-8b").parameters


def test_parts_that_tell_a_model_from_the_rest_are_its_name_and_others_are_none() -> None:
    names = {name: shape_of(name).name for name in ("70b", "7b", "mistral-7b", "qwen3", "Qwen2.5-7B", "smollm2")}
    assert list(names.values()) == [
        "llama-3-70b",
        "llama-7b",
        "mistral-7b-v0.3",
        "qwen3-8b",
        "qwen2.5-7b",
        "smollm2-135m",
    ]
    with pytest.raises(UserError, match="8b is no directory here"):  # two have it
        shape_of("8b")
