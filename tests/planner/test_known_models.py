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
    counts |= {"llama-2-7b": 6_738_415_616, "llama-2-13b": 13_015_864_320, "llama-2-70b": 68_976_648_192}
    counts |= {"llama-3.1-8b": 8_030_261_248, "llama-3.1-405b": 405_853_388_800, "llama-3.2-1b": 1_235_814_400}
    counts |= {"llama-3.2-3b": 3_212_749_824, "qwen2.5-0.5b": 494_032_768, "qwen2.5-1.5b": 1_543_714_304}
    counts |= {"qwen2.5-3b": 3_085_938_688, "qwen2.5-14b": 14_770_033_664, "qwen2.5-32b": 32_763_876_352}
    counts |= {"qwen2.5-72b": 72_706_203_648, "qwen3-0.6b": 596_049_920, "qwen3-1.7b": 1_720_574_976}
    counts |= {"qwen3-4b": 4_022_468_096, "qwen3-14b": 14_768_307_200, "qwen3-32b": 32_762_123_264}
    counts |= {"mistral-nemo-12b": 12_247_782_400, "phi-3-mini-4k": 3_821_079_552, "phi-4": 14_659_507_200}
    counts |= {"smollm2-360m": 361_821_120, "smollm2-1.7b": 1_711_376_384, "tinyllama-1.1b": 1_100_048_384}
    counts |= {"gemma-3-270m": 268_098_176, "gemma-3-1b": 999_885_952}
    # What the files have, less SigLIP's and the projector's, which has a vision width times the model's, and a norm.
    whole = {
        "gemma-3-4b": (4_300_079_472, 2560),
        "gemma-3-12b": (12_187_325_040, 3840),
        "gemma-3-27b": (27_432_406_640, 5376),
    }
    counts |= {name: files - 416_866_032 - 1152 * (width + 1) for name, (files, width) in whole.items()}
    assert {name: shape_of(name).parameters for name in counts} == counts
    planned = plan("llama-3-70b", window=32768, gpus="64xH100", batch_size=64)
    assert planned.fits and planned.job.shape.window == 8192


def test_a_llama_that_is_not_the_papers_is_told_from_a_directory() -> None:
    with pytest.raises(
        UserError,
        match=r"llama-70b is no directory here and none of .* known by name; did you mean .*llama-3-70b.*\? .*, or one of hemp, llama-7b, llama-13b, ",
    ):
        shape_of("llama-70b")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("llama3-8", r"did you mean llama-3-8b or .*\? Else name a directory, a hub id"),
        ("qwen-7b", r"did you mean .*qwen2.5-7b .*\? Else"),
        ("bloom-176", "known by name; name a directory, a hub id such as owner/name, or one of hemp, llama-7b, "),
        ("llama27b", r"did you mean llama-2-7b or .*\? Else"),  # neither that nor a size of 27b is guessed
        ("qwen2.5-9b", r"did you mean qwen2.5-.*\? Else"),
        ("70b", "may be any of llama-2-70b, llama-3-70b, llama-3.1-70b, llama-3.3-70b, which"),
        ("qwen3", "may be any of qwen3-0.6b, qwen3-1.7b, qwen3-4b, qwen3-8b, qwen3-14b, qwen3-32b, which"),
        ("8b", "may be any of llama-3-8b, llama-3.1-8b, qwen3-8b, which"),
        ("llama3", "may be any of llama-3-8b, llama-3-70b, which"),
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


@pytest.mark.parametrize(
    ("typed", "known"),
    [
        ("7b", "llama-7b"),
        ("mistral-7b", "mistral-7b-v0.3"),
        ("Qwen2.5-7B", "qwen2.5-7b"),
        ("llama3.2-1b", "llama-3.2-1b"),
        ("llama-3.1-8b", "llama-3.1-8b"),
        ("llama3.1:8b", "llama-3.1-8b"),
        ("qwen3:0.6b", "qwen3-0.6b"),
        ("mistral-nemo", "mistral-nemo-12b"),
        ("phi3-mini", "phi-3-mini-4k"),
        ("tinyllama", "tinyllama-1.1b"),
        ("27b", "gemma-3-27b"),
        ("gemma3-1b", "gemma-3-1b"),
    ],
)
def test_parts_that_tell_a_model_from_the_rest_are_its_name(typed: str, known: str) -> None:
    assert shape_of(typed).name == known


def test_llama_3_1_was_made_longer_by_its_own_method_from_8192_tokens() -> None:
    """Of Meta's model card and config: 8192 tokens of pretraining, 131072 since, factor 8 (3.2: 32)."""
    for name, factor in (("llama-3.1-8b", 8), ("llama-3.2-3b", 32)):
        rope = shape_of(name).known_rope
        assert (rope.original_window, rope.window, rope.scaling.factor) == (8192, 131072, factor)
    assert shape_of("gemma-3-1b").sliding == 22  # of 26, five of six
