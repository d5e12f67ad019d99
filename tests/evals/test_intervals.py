"""Intervals and the paired test, against scipy, published figures and simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ropewalk.evals.intervals import Paired, bootstrap_mean, bootstrap_ratio, wilson

counts = st.integers(0, 60)


@given(st.integers(1, 500), st.data())
def test_wilson_is_scipys(trials, data):
    successes = data.draw(st.integers(0, trials))
    theirs = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    # Both evaluate one closed form in float64.
    assert wilson(successes, trials) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@given(counts, counts)
def test_the_paired_test_is_the_exact_binomial(lost, gained):
    ours = Paired(10, lost, gained, 10).p_value()
    theirs = stats.binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
    assert ours == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize(
    "table, low, high, source",
    [
        # Newcombe 1998, Statistics in Medicine 17, 2635: method 10 on his example; first treatment minus second.
        ((36, 12, 2, 0), 0.0569, 0.3404, "Newcombe 1998"),
        # Fagerland, Lydersen, Laake 2014, airway reactivity before and after stem cell transplantation.
        ((1, 1, 7, 12), -0.507, -0.026, "Fagerland 2014"),
        # The R package contingencytables on Cavo et al. 2012; its test suite holds these figures.
        ((59, 6, 16, 80), -0.1186, -0.0046, "contingencytables"),
    ],
)
def test_the_interval_of_a_paired_difference_is_the_published_one(table, low, high, source):
    found = Paired(*table).interval()
    # They subtract the second share from the first, we the first from the second.
    digits = 0.5 * 10 ** -max(len(str(low).split(".")[1]), len(str(high).split(".")[1]))
    assert (-found[1], -found[0]) == pytest.approx((low, high), abs=digits), source


@given(counts, counts, counts, counts)
def test_the_interval_holds_the_difference_and_stays_in_range(both, lost, gained, neither):
    if both + lost + gained + neither == 0:
        return
    pair = Paired(both, lost, gained, neither)
    low, high = pair.interval()
    assert -1 <= low <= pair.difference + 1e-12 and pair.difference - 1e-12 <= high <= 1


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(0)
    shares, truth = [0.5, 0.12, 0.06, 0.32], -0.06
    covered = 0
    for draw in random.multinomial(300, shares, size=2000):
        low, high = Paired(*map(int, draw)).interval()
        covered += low <= truth <= high
    # 2000 draws at 95 % have a standard error of 0.5 points; allow 4 of them.
    assert covered / 2000 == pytest.approx(0.95, abs=0.02)


def test_pairs_are_counted_item_by_item():
    assert Paired.of([1, 1, 0, 0, 1], [1, 0, 1, 0, 1]) == Paired(both=2, lost=1, gained=1, neither=1)
    with pytest.raises(ValueError, match="equal lengths"):
        Paired.of([1], [1, 0])


def test_many_changed_items_do_not_underflow():
    assert Paired(0, 5000, 5000, 0).p_value() == 1.0
    assert 0 < Paired(0, 900, 1100, 0).p_value() < 1e-4


def test_the_bootstrap_interval_is_close_to_the_normal_one():
    values = np.random.default_rng(1).normal(3.0, 2.0, size=400)
    low, high = bootstrap_mean(values, resamples=4000)
    half = 1.96 * values.std() / math.sqrt(values.size)
    # A quantile of 4000 resamples of a mean of 400 wobbles by a few per cent of the half width.
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


@pytest.mark.parametrize("items", [0, 1])
def test_one_item_says_nothing_of_others_and_has_no_interval(items):
    """An interval of no width would claim certainty; a mean and a ratio are alike in this."""
    values = np.full(items, 0.5)
    assert all(math.isnan(bound) for bound in bootstrap_mean(values))
    assert all(math.isnan(bound) for bound in bootstrap_ratio(values, np.ones(items)))
