"""What ropewalk computes is what it computed when the reference was made: losses, weights, perplexity, passkey.

On the processor, torch and number of threads of the reference: equal to the last bit. On any other: to 1e-5, since kernels
add up in another order there; a warning then says so, for a difference in the last bits would pass unseen.
"""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

REFERENCES = Path(__file__).with_name("references")
REFERENCE = json.loads((REFERENCES / "cpu.json").read_text(encoding="utf-8"))
#: Measured between AVX-512, AVX2 and SSE kernels of one processor, over 20 steps of every run: at most 3e-7.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same computed now, by a process of its own: what other tests set in torch does not reach it."""
    out = tmp_path_factory.mktemp("golden") / "computed.json"
    command = [sys.executable, str(REFERENCES / "make.py"), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=840)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(out.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def exact(computed: dict[str, Any]) -> bool:
    """Whether every bit must be the same; a warning where it need not."""
    then, now = REFERENCE["environment"], computed["environment"]
    differences = [f"{name} {now[name]!r}, recorded with {then[name]!r}" for name in then if now[name] != then[name]]
    if differences:
        warnings.warn(
            f"golden values compared to {TOLERANCE:g} only, not to the last bit: {'; '.join(differences)}", stacklevel=1
        )
    return not differences


@pytest.mark.parametrize("name", REFERENCE["runs"])
def test_training_goes_as_it_went(name: str, computed: dict[str, Any], exact: bool):
    now, then = computed["runs"][name], REFERENCE["runs"][name]
    for figure in ("loss", "grad_norm"):
        assert now[figure] == (then[figure] if exact else pytest.approx(then[figure], rel=TOLERANCE)), figure
    assert not exact or now["weights"] == then["weights"]


def test_perplexity_is_what_it_was(computed: dict[str, Any], exact: bool):
    now, then = computed["measured"]["perplexity"], REFERENCE["measured"]["perplexity"]
    assert len(now) == len(then)
    for row, recorded in zip(now, then, strict=True):
        assert row == (recorded if exact else pytest.approx(recorded, rel=TOLERANCE))


def test_passkey_is_what_it_was(computed: dict[str, Any]):
    for name in ("passkey", "passkey_summary"):
        assert computed["measured"][name] == REFERENCE["measured"][name]


def test_nothing_is_computed_that_has_no_reference(computed: dict[str, Any]):
    assert computed["runs"].keys() == REFERENCE["runs"].keys()
    assert computed["measured"].keys() == REFERENCE["measured"].keys()
