"""A tenth of all faults that bench.faults knows, drawn anew for each seed: what the table in docs/reliability.md promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # minutes on two busy cores; not yet timed within `make test`

ROOT = Path(__file__).resolve().parents[1]


TENTH = ["faults", "--share", "0.1", "--seed", "1"]
PROGRAMS = {
    "files, streams, disks, limits, kills": [*TENTH, "--without", "options"],
    "options": [*TENTH, "--only", "options"],
    "every argument in Python": ["faults", "--only", "Python"],
    "inputs made up from the lines that they reach": ["fuzz", "--seconds", "2"],
}


@pytest.mark.parametrize("what", PROGRAMS)
def test_faults_end_as_promised(what: str) -> None:
    """In a process of its own: workers are forked from it, and the tests' own type checks are no part of what a user runs."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    name, *options = PROGRAMS[what]
    command = [sys.executable, "-m", f"bench.{name}", *options]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
