"""A tenth of each kind of faults that bench.faults knows, drawn by a seed: what the table in docs/reliability.md promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# 90 seconds of CPU for both, most of it shared by two workers; a machine with other work on it may take several times as long.
pytestmark = pytest.mark.timeout(1200)

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = {
    "a tenth of each kind": ["faults", "--share", "0.1", "--seed", "1"],
    "inputs made up from the lines that they reach": ["fuzz", "--seconds", "1"],
}


@pytest.mark.parametrize("what", PROGRAMS)
def test_faults_end_as_promised(what: str) -> None:
    """In a process of its own: workers are forked from it, and the tests' own type checks are no part of what a user runs."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    name, *options = PROGRAMS[what]
    command = [sys.executable, "-m", f"bench.{name}", *options]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
