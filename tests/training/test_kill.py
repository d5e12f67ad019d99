"""`kill -9` at random moments, resumed each time: weights and moments are those of the run that nobody killed, though nobody fixes the threads."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

import killing
from ropewalk import testing
from ropewalk.checkpoint.marks import MARK

#: Moments in 8 bits are torchao's, whose step each process compiles anew: seconds a start.
EIGHT_BIT = [
    pytest.mark.slow,
    pytest.mark.timeout(1000),
    pytest.mark.skipif(
        importlib.util.find_spec("torchao") is None, reason="torchao is not installed (ropewalk[low-bit])"
    ),
]


@pytest.mark.parametrize(
    "optimizer, kills, moments",
    [
        ("adamw", 20, "optimizer.safetensors"),
        pytest.param("adamw-8bit", 6, "optimizer.pt", marks=EIGHT_BIT),
    ],
)
def test_a_run_killed_time_and_again_ends_bit_identical(tmp_path, optimizer, kills, moments):
    testing.tiny_directory(tmp_path / "base", window=64)
    script = Path(killing.__file__)
    environment = {
        **os.environ,
        "OMP_WAIT_POLICY": "PASSIVE",  # on busy cores, threads that spin while they wait take them from each other
        "TOKENIZERS_PARALLELISM": "false",
        "ROPEWALK_CACHE": str(tmp_path / "cache"),
    }
    environment.pop("OMP_NUM_THREADS", None)  # nobody fixes it: each run finds what the first one found
    command = [sys.executable, str(script), str(tmp_path), str(kills), "0", optimizer]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["killed"] == kills
    # The kills were spread over the run, and none lost what an earlier one had reached.
    assert told["starts"] == sorted(told["starts"]) and len(set(told["starts"])) >= kills // 2
    once, killed = (safetensors.torch.load_file(tmp_path / name / "model.safetensors") for name in ("once", "killed"))
    assert once.keys() == killed.keys()
    assert all(torch.equal(once[name], killed[name]) for name in once)
    state = f"checkpoints/step-000120/state/{moments}"
    assert (tmp_path / "once" / state).read_bytes() == (tmp_path / "killed" / state).read_bytes()
    left = [path.name for path in (tmp_path / "killed").rglob(".*") if path.name != MARK]
    assert not left, left
