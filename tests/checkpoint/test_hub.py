"""The hub where there is no network: one sentence, and nobody asks again and again."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ASKED = {
    "a plan": ("from ropewalk.planner.named import shape_of", "shape_of('owner/name')"),
    "documents": (
        "from ropewalk.data.documents import read_documents",
        "list(read_documents('owner/name:config:train'))",
    ),
    "summaries": ("from ropewalk.evals.downstream.pairs import pairs", "list(pairs('owner/name:test'))"),
    "benchmarks": ("from ropewalk.evals.downstream.tasks import build", "build(['piqa'])"),
}


@pytest.mark.parametrize("asked", ASKED)
def test_without_a_network_nothing_is_asked_for_twice(asked: str, tmp_path: Path) -> None:
    with socket.socket() as nobody:  # bound and not listening: whoever connects is refused
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        there = {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}
        start, question = ASKED[asked]
        code = f"{start}\nfrom ropewalk.errors import UserError\ntry:\n    {question}\nexcept UserError as error:\n    print(error)"
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            env={**os.environ, **there},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
    # The hub's client warns of each further attempt.
    assert "Retrying" not in done.stderr and done.stdout.count("\n") == 1, done.stderr
    assert "the hub could not be reached" in done.stdout
