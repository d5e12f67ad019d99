"""What `bench.compare` calls the same, slower and larger, on made-up turns."""

from __future__ import annotations

import pytest

from bench.compare import Limits, collect, complaints, difference, tree_of
from ropewalk.errors import UserError

LIMITS = Limits(tolerance=0.0, slower=0.02, memory=0.02)


def turns(figures=(2.5, 2.25), rates=(100.0, 90.0), peak=1000):
    return [dict(rows=[dict(what="train", figures=list(figures), rates=list(rates), peak=peak)]) for _ in range(2)]


def judge(limits=LIMITS, **changes):
    return complaints(collect(turns()), collect(turns(**changes)), limits)


def test_the_same_passes_and_so_does_the_better():
    assert judge() == []
    assert judge(rates=(120.0, 110.0), peak=900) == []


def test_a_figure_off_in_its_last_bit_fails_unless_a_tolerance_allows_it():
    off = (2.5, 2.25 + 2**-51)
    assert "figures may be 0 apart" in judge(figures=off)[0]
    assert judge(Limits(1e-12, 0.02, 0.02), figures=off) == []


@pytest.mark.parametrize("figures", [(2.5, float("nan")), (2.5,)])
def test_what_is_not_a_number_or_lacks_is_infinitely_apart(figures):
    assert difference(collect(turns())["train"], collect(turns(figures=figures))["train"]) == float("inf")


def test_turns_of_one_version_that_differ_are_told():
    unsteady = turns()[:1] + turns(figures=(2.5, 3.0))[:1]
    assert difference(collect(unsteady)["train"], collect(turns())["train"]) == pytest.approx(0.25)


def test_slower_is_what_is_slower_by_its_median_and_by_its_fastest_step():
    assert "B may be 2.0% slower, it is 5.0%" in judge(rates=(95.0, 85.5))[0]
    assert judge(rates=(100.0, 60.0)) == []  # something else ran during one step


def test_more_memory_than_allowed_fails():
    assert "it takes 3.0%" in judge(peak=1030)[0]
    assert judge(peak=1019) == []


def test_what_is_neither_a_checkout_nor_a_commit_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds src/ropewalk"):
        tree_of(str(tmp_path), tmp_path / "a")
    with pytest.raises(UserError, match="neither a directory nor a commit"):
        tree_of("no-such-commit", tmp_path / "a")
