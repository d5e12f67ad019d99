"""What tests of the planner share: models' shapes, small configs of every family, a training run on paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ropewalk import testing
from ropewalk.planner.job import FULL, Job
from ropewalk.planner.named import shape_of
from ropewalk.settings.recipe import Recipe

LLAMA = {name: shape_of(name) for name in ("llama-7b", "llama-13b", "llama-33b", "llama-65b")}
#: Small models of every family that is counted exactly, and keys that no published config sets.
CONFIGS = {name: testing.tiny_config(name) for name in testing.PUBLISHED} | {
    "llama with biases": testing.tiny_config("llama", 64, attention_bias=True, mlp_bias=True, num_key_value_heads=2),
    "llama tied": testing.tiny_config("llama", 64, tie_word_embeddings=True),
    "gpt_oss without biases": testing.tiny_config("gpt_oss", 64, attention_bias=False),
}


def job_of(shape="llama-7b", window=32768, batch=1, *, activations=FULL, fused=True, **rest) -> Job:
    """A job; `rest` are its layout, or options of the recipe."""
    shape = LLAMA[shape] if isinstance(shape, str) else shape
    layout = {name: rest.pop(name) for name in ("gpus", "cp", "micro", "replicas") if name in rest}
    recipe = Recipe(
        window=window, batch_size=batch, **{"precision": "bfloat16-stochastic", "optimizer": "adamw"} | rest
    )
    return Job(shape, recipe, activations=activations, fused=fused, **{"micro": batch} | layout)


def config_of(directory: Path, family: str, **keys: Any) -> str:
    """A directory with a config.json alone, which is enough for a plan."""
    directory.mkdir()
    config = testing.tiny_config(family, window=64, **keys)
    (directory / "config.json").write_text(config.to_json_string(use_diff=False), encoding="utf-8")
    return str(directory)
