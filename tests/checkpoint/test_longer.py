"""What a plan says of a method is what `extend` writes, and transformers computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import ropewalk
from ropewalk import testing
from ropewalk.errors import UserError
from ropewalk.planner import plan

#: Family, what its config says beside, and by what it was extended first.
BASES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("llama", {}),
    "pi": ("llama", {"method": "linear"}),
    "ntk": ("llama", {"method": "ntk"}),
    "abf": ("llama", {"method": "abf", "rope_theta": 5e5}),
    "yarn with other thresholds": ("llama", {"method": "yarn", "beta_fast": 8.0}),
    "factors": ("llama", {"method": "factors", "factors": [1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]}),
    "a config that cannot say YaRN": ("phi3", {}),
    "the same, extended": ("phi3", {"method": "linear"}),
}


@pytest.mark.parametrize("method", ["auto", "linear", "yarn", "ntk"])
@pytest.mark.parametrize("name", BASES)
def test_a_plan_takes_the_method_that_extend_does_or_says_its_refusal(name: str, method: str, tmp_path: Path) -> None:
    family, first = BASES[name]
    base = testing.tiny_directory(tmp_path / "base", family, window=64)
    if first:
        ropewalk.extend(base, window=128, out=tmp_path / "first", **first)
        base = tmp_path / "first"
    planned = plan(base, window=256, gpus="H100", method=method).info
    try:
        made = ropewalk.extend(base, window=256, out=tmp_path / "made", method=method)
    except UserError as refusal:
        assert str(planned) == str(refusal)
    else:
        assert (planned.scaling, planned.original_window, planned.window) == (
            made.scaling,
            made.original_window,
            made.window,
        )
