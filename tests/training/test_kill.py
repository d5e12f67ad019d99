"""`kill -9` at twenty random moments, resumed each time: the weights are those of the run that nobody killed, though nobody fixes the threads."""

import json
import os
import subprocess
import sys
from pathlib import Path

import safetensors.torch
import torch

import killing
from ropewalk import testing
from ropewalk.checkpoint.guard import MARK


def test_a_run_killed_twenty_times_ends_bit_identical(tmp_path):
    testing.tiny_directory(tmp_path / "base", window=64)
    script = Path(killing.__file__)
    environment = {
        **os.environ,
        "OMP_WAIT_POLICY": "PASSIVE",  # on busy cores, threads that spin while they wait take them from each other
        "TOKENIZERS_PARALLELISM": "false",
        "ROPEWALK_CACHE": str(tmp_path / "cache"),
    }
    environment.pop("OMP_NUM_THREADS", None)  # nobody fixes it: each run finds what the first one found
    command = [sys.executable, str(script), str(tmp_path), "20", "0"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=840)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["killed"] == 20
    # The kills were spread over the run, and none lost what an earlier one had reached.
    assert told["starts"] == sorted(told["starts"]) and len(set(told["starts"])) >= 10
    once, killed = (safetensors.torch.load_file(tmp_path / name / "model.safetensors") for name in ("once", "killed"))
    assert once.keys() == killed.keys()
    assert all(torch.equal(once[name], killed[name]) for name in once)
    state = "checkpoints/step-000120/state/optimizer.safetensors"
    assert (tmp_path / "once" / state).read_bytes() == (tmp_path / "killed" / state).read_bytes()
    left = [path.name for path in (tmp_path / "killed").rglob(".*") if path.name != MARK]
    assert not left, left
