"""hemp's pretraining with a penalty on |h_j|: what is penalised is the paper's h_j, and nothing else differs."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "recipes/hemp"))  # after lab, which has a penalty.py too
import pretrain  # noqa: E402

SHAPE = "32,2,2,16,48"


def test_the_ridge_is_that_of_the_papers_h_over_all_pairs_of_a_query_and_a_key():
    """By complex numbers, pair by pair; and a(s) = Re sum_j h_j exp(i s theta_j) of these h_j is the score of the turned vectors."""
    torch.manual_seed(0)
    model = pretrain.build(*map(int, SHAPE.split(",")), vocabulary=50).double()
    attention, inputs = model.model.layers[0].self_attn, torch.randn(3, 7, 32, dtype=torch.float64)
    with torch.no_grad():
        attention.q_proj.weight *= 30
        query, key = (project(inputs).view(3, 7, 2, 2, 8) for project in (attention.q_proj, attention.k_proj))
        complex_query, complex_key = (torch.complex(each[..., 0, :], each[..., 1, :]) for each in (query, key))
        h = torch.einsum("bmhj,bnhj->bmnhj", complex_query, complex_key.conj())
        expected = (h.abs() ** 2).sum(-1).mean() / 16
        assert torch.allclose(pretrain.squared_h(attention, inputs).double(), expected, rtol=1e-5)
        # Position 6 meets position 2 in the first head of the first row.
        cosine, sine = model.model.rotary_emb(inputs, torch.arange(7)[None])
        score = _turned(query, cosine, sine)[0, 6, 0] @ _turned(key, cosine, sine)[0, 2, 0]
        theta = 10000.0 ** (-torch.arange(8, dtype=torch.float64) / 8)
        assert torch.allclose((h[0, 6, 2, 0] * torch.exp(4j * theta)).sum().real, score, rtol=1e-4)


def _turned(vectors: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """[rows, tokens, heads, 16], as transformers turns them."""
    whole = vectors.flatten(-2)
    swapped = torch.cat([-vectors[..., 1, :], vectors[..., 0, :]], dim=-1)
    return whole * cosine[:, :, None] + swapped * sine[:, :, None]


def test_models_of_one_seed_differ_by_the_penalty_alone(tmp_path, monkeypatch):
    shutil.copy(ROOT / "src/ropewalk/assets/hemp/tokenizer.json", tmp_path)
    tokens = np.random.default_rng(0).integers(2, 2000, 4000).astype(np.uint16)
    np.save(tmp_path / "train.npy", tokens)
    np.save(tmp_path / "recall.npy", tokens[: 257 * 8].reshape(8, 257))

    def weights(name: str, *options: str) -> dict[str, torch.Tensor]:
        command = ["pretrain.py", "--corpus", str(tmp_path), "--out", str(tmp_path / name), "--shape", SHAPE]
        command += ["--batch", "5", "--steps", "3", "--eager", *options]
        monkeypatch.setattr(sys, "argv", command)
        pretrain.main()
        assert json.loads((tmp_path / name / "pretraining.json").read_text())["steps"] == 3
        return load_file(tmp_path / name / "model.safetensors")

    without, again = weights("without"), weights("again", "--penalty", "0")
    with_it = weights("with", "--penalty", "1e6")
    names = [name for name in without if "q_proj" in name or "k_proj" in name]
    assert names and all(torch.equal(without[name], again[name]) for name in without)
    sizes = [sum(float(each[name].float().square().sum()) for name in names) for each in (without, with_it)]
    assert sizes[1] < sizes[0]


def test_a_corpus_without_exercises_is_told_in_a_sentence(tmp_path, monkeypatch):
    for name in ("tokenizer.json", "train.npy"):
        (tmp_path / name).touch()
    for recipe in ("penalty", "pretrain"):
        command = [sys.executable, ROOT / f"recipes/hemp/{recipe}.py", "--corpus", tmp_path, "--out", tmp_path / recipe]
        told = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert told.returncode and "Traceback" not in told.stderr
        assert "recall.npy is not there; make it: python recipes/hemp/exercises.py --corpus" in told.stderr


def _recipe():
    spec = importlib.util.spec_from_file_location("hemp_penalty", ROOT / "recipes/hemp/penalty.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    return recipe


@pytest.mark.parametrize(
    ("given", "seen", "trained_on"), [(None, 2, ["0", "1", "0"]), ("3", 1, ["3"] * 3), (None, 0, [""] * 3)]
)
def test_models_are_trained_on_the_gpus_that_the_user_lets_it_see(given, seen, trained_on, tmp_path, monkeypatch):
    recipe = _recipe()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    monkeypatch.setattr(recipe.torch.cuda, "is_available", lambda: seen > 0)
    monkeypatch.setattr(recipe.torch.cuda, "device_count", lambda: seen)
    monkeypatch.setattr(recipe, "refuse_missing", lambda corpus: None)
    monkeypatch.setattr(recipe.shutil, "copy", lambda source, target: None)
    begun = []

    def begin(command, env):
        begun.append(env["CUDA_VISIBLE_DEVICES"])
        return SimpleNamespace(wait=lambda: 0)

    monkeypatch.setattr(recipe.subprocess, "Popen", begin)
    arguments = SimpleNamespace(corpus=tmp_path, steps=1, together=9, pretrain="")
    recipe.train(arguments, {tmp_path / str(seed): (0.0, seed) for seed in range(3)})
    assert begun == trained_on


def test_a_smoke_run_leaves_nothing_that_the_page_would_take(tmp_path, monkeypatch):
    """The names of lab/penalty.py are hemp-3000-hWEIGHT-sSEED in lab/records/penalty."""
    recipe = _recipe()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recipe, "standard_library", lambda split: [])
    monkeypatch.setattr(recipe, "train", lambda arguments, models: None)
    ablated = []
    monkeypatch.setattr(recipe.ropewalk, "ablate", lambda model, **asked: ablated.append(asked))

    def rows_of(*options: str) -> list[str]:
        ablated.clear()
        monkeypatch.setattr(sys, "argv", ["penalty.py", "--corpus", "c", *options])
        recipe.main()
        return [str(asked["out"]) for asked in ablated]

    smoke = rows_of("--smoke")
    assert smoke == [f"build/penalty-smoke/records/smoke-2-h{weight}-s0" for weight in ("0", "0.01")]
    assert {(asked["documents"], *asked["measure"]) for asked in ablated} == {(1, "perplexity")}
    assert rows_of("--smoke", "--steps", "3000", "--records", "r", "--weights", "0") == ["r/smoke-3000-h0-s0"]
    whole = rows_of()
    assert len(whole) == 9 and "lab/records/penalty/hemp-3000-h0.001-s2" in whole
