"""docs/plan.md: its tables are what the planner says of what was measured."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from ropewalk.planner.memory import PLAN_ERROR

ROOT = Path(__file__).resolve().parents[2]


def _page_maker():
    spec = importlib.util.spec_from_file_location("make_plan", ROOT / "docs/make_plan.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_plan"] = module
    spec.loader.exec_module(module)
    return module


def test_planned_memory_is_within_ten_percent_and_speed_within_fifteen_at_every_point() -> None:
    """Of what plans know; memory by less than a plan says that it may be wrong by, where it fits closely."""
    checks = [found for found in _page_maker().checks() if found.point["role"] != "beyond"]
    assert {found.point.get("mode") for found in checks} >= {None, "lora"}  # of adapters too
    assert sum(found.memory_error is not None and found.speed_error is not None for found in checks) >= 8
    for found in checks:
        assert found.memory_error is None or abs(found.memory_error) <= PLAN_ERROR <= 0.10, found.point
        assert found.speed_error is None or abs(found.speed_error) <= 0.15, found.point
        if found.speed_error is not None:  # of one sign with memory's: what is planned above what was measured
            assert (found.speed_error > 0) == (found.tokens_per_second > found.point["tokens_per_second"])


def test_the_page_is_what_the_planner_says_of_the_points() -> None:
    maker = _page_maker()
    text = maker.PAGE.read_text(encoding="utf-8")
    assert maker.page(text) == text, "run `python docs/make_plan.py`"


def test_a_file_of_timings_becomes_points() -> None:
    turns = [
        dict(
            who="ropewalk",
            batch=1,
            tokens=32768,
            seconds=[99.0, 4.0, 4.2, 4.1],
            peak=120.0,
            kept="8 x [0, 3], 24 x [3]",
            error="",
        ),
        dict(who="liger", batch=1, tokens=32768, seconds=[99.0, 5.0], peak=54.7, kept="", error=""),
        dict(who="transformers", batch=1, tokens=32768, seconds=[], peak=0.0, kept="", error="OutOfMemoryError"),
    ]
    found = dict(turns=turns, matrix_rate=7.8e14, versions={"torch": "2.13.0"}, command=["bench/train.py"])
    ours, liger = _page_maker().measured(found, 1.2)
    assert ours["tokens_per_second"] == round(32768 / 4.1, 1)  # the first step is not timed
    assert ours["keep"] == {"q": 0.25, "attention": 1.0}
    assert liger["keep"] == "full"
    assert ours["rates"]["attention_forward"] > liger["rates"]["attention_forward"]
