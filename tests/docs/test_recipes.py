"""Recipes, run with a stand-in for `ropewalk` that writes down what it is told: each command is one that the command line takes."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

from command_lines import parsed

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
STAND_IN = """#!/usr/bin/env python3
import pathlib, shlex, sys
with open({said!r}, "a") as file:
    file.write(shlex.join(sys.argv[1:]) + "\\n")
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
if sys.argv[1] == "train":
    out.mkdir(parents=True)
    (out / "config.json").touch()
if sys.argv[1] == "attention":
    out.touch()
"""


def told(folder: Path, recipe: str, **environment: str) -> list[dict]:
    """What each command of a recipe would be called with."""
    said, program = folder / "said", folder / "bin" / "ropewalk"
    program.parent.mkdir(exist_ok=True)
    program.write_text(STAND_IN.format(said=str(said)))
    program.chmod(0o755)
    said.write_text("")
    path = f"{program.parent}:{os.environ['PATH']}"
    subprocess.run(
        ["bash", str(RECIPES / recipe)], env={"PATH": path, **environment}, cwd=folder, check=True, timeout=200
    )
    return [parsed(shlex.split(line)) for line in said.read_text().splitlines()]


def test_each_real_model_is_one_command(tmp_path):
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/said\n')
    program.chmod(0o755)
    for name in ("smollm2", "gemma3"):
        subprocess.run(
            ["bash", RECIPES / f"models/{name}.sh", "--index-url", "u"],
            env=os.environ | {"PYTHON": str(program), "MODELS": "m"},
            check=True,
        )
    fetch = f"{RECIPES}/models/../real_models/fetch.py"
    said = (tmp_path / "said").read_text().splitlines()
    assert said == [f"{fetch} m --only {model} --index-url u" for model in ("smollm2-135m", "gemma-3-270m")]


def test_the_lab_trains_measures_everything_and_goes_on_where_it_was(tmp_path):
    needed = {"MODEL": "small", "WINDOW": "8192", "TRAIN": "books/train.jsonl", "TEST": "books/test.jsonl"}
    train, evaluate, attention = told(tmp_path, "lab.sh", **needed)
    assert (train["command"], train["window"], train["save_every"]) == ("train", 8192, 20)
    assert (evaluate["command"], evaluate["base"], evaluate["math"]) == ("evaluate", "small", None)
    assert (attention["command"], attention["window"]) == ("attention", 32768)
    asked = {"MATH": "m.jsonl", "BENCHMARKS": "sets", "PAIRS": "p.jsonl", "TRAIN_PAIRS": "a.jsonl b.jsonl"}
    (evaluate,) = told(tmp_path, "lab.sh", **needed, **asked)
    assert [str(path) for path in evaluate["train_pairs"]] == ["a.jsonl", "b.jsonl"]
    assert all(evaluate[name] is not None for name in ("math", "benchmarks", "pairs"))
