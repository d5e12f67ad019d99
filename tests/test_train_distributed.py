"""Training on two processes is training on one: losses, weights, resuming with another number, and how it stops."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

import many_processes
from ropewalk import record, testing
from ropewalk.train import train

SHARED = many_processes.SHARED


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Everything that two processes do, done; what one process does beside it is done here."""
    place = tmp_path_factory.mktemp("many")
    testing.tiny_directory(place / "base", window=64)
    (place / "poisoned").mkdir()
    poisoned = testing.tiny(window=64)
    tokenizer = testing.byte_tokenizer(64)
    with torch.no_grad():
        poisoned.model.embed_tokens.weight[tokenizer.convert_tokens_to_ids(".")] = float("nan")
    poisoned.save_pretrained(place / "poisoned/base")
    tokenizer.save_pretrained(place / "poisoned/base")
    before = dict(os.environ)
    os.environ["ROPEWALK_CACHE"] = str(place / "cache")
    try:
        train(place / "base", out=place / "alone", steps=5, **SHARED)
        train(place / "base", out=place / "grown", steps=2, **SHARED)
        for name, options in [
            ("documents", {"mask_documents": True}),
            ("adapted", {"mode": "lora"}),
            ("skipped", {"mode": "pose"}),
        ]:
            train(place / "base", out=place / f"{name}-alone", steps=2, **SHARED, **options)
        script = Path(many_processes.__file__)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run([*command, str(place)], env=environment, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr[-3000:]
        train(place / "base", out=place / "moved", steps=5, resume=True, **SHARED)
    finally:
        os.environ.clear()
        os.environ.update(before)
    return place


def losses(out):
    """By step; a step taken again after resuming counts once."""
    found = {row["step"]: row["loss"] for row in record.read([out / "records.jsonl"]).of("step")}
    return [loss for _, loss in sorted(found.items())]


def assert_same_weights(left, right):
    left, right = (safetensors.torch.load_file(path / "model.safetensors") for path in (left, right))
    assert left.keys() == right.keys()
    for name, value in left.items():
        # Sums in another order are off by 1e-7 or so; Adam turns that into a part of one update (1e-3 at most) only where a
        # gradient is itself that small.
        assert (value - right[name]).abs().max() < 2e-5, name


def test_two_then_two_on_one_window_then_one_is_one_run(place):
    assert losses(place / "moved") == pytest.approx(losses(place / "alone"), rel=1e-5)
    assert_same_weights(place / "moved", place / "alone")


def test_one_then_two_is_one_run(place):
    assert losses(place / "grown") == pytest.approx(losses(place / "alone")[:4], rel=1e-5)


@pytest.mark.parametrize("name", ["documents", "adapted", "skipped"])
def test_every_mode_is_the_same_on_two_processes(place, name):
    assert losses(place / name) == pytest.approx(losses(place / f"{name}-alone"), rel=1e-5)
    assert_same_weights(place / name, place / f"{name}-alone")


def test_what_cannot_be_divided_is_refused(place):
    said = json.loads((place / "said.json").read_text())
    assert "--batch-size is a multiple of 2 here, got 3" in said["batch"]
    assert "multiple of 2 x cp = 4, got 97" in said["window"]


def test_nan_on_one_process_stops_all_and_names_the_rank(place):
    said = json.loads((place / "said.json").read_text())["nan"]
    assert "step 1 was not taken: the loss is nan" in said
    assert "rank 0: nan on" in said and "rank 1: nan on" in said


def test_a_sharded_checkpoint_holds_every_ranks_part_and_a_hash_of_each(place):
    manifest = json.loads((place / "grown/checkpoints/step-000004/state/manifest.json").read_text())
    assert {"state/__0_0.distcp", "state/__1_0.distcp"} <= set(manifest["sha256"])
