"""The interval of k_max, against what it covers by simulation and the exact interval of a share."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.evals.reach import enough_trials, reach_interval

_DEPTHS = np.arange(1, 33) / 32
_CHANCES = {
    "fades": 1 - _DEPTHS,
    "fades slowly": 1 - 0.9 * _DEPTHS,
    "fades in the middle": 1 / (1 + np.exp((_DEPTHS - 0.5) / 0.1)),
    "breaks off": np.where(_DEPTHS <= 0.25, 1.0, 0.0),
    "breaks off and comes back": np.where(np.abs(_DEPTHS - 0.5) < 0.1, 0.05, 0.9),
    "nearly breaks off": np.where(_DEPTHS <= 0.25, 0.25, 0.15),
    "never gets there": np.full(32, 0.19),
    "just gets there": np.full(32, 0.2),
}


@pytest.mark.parametrize("trials", [2, 10, 40])
@pytest.mark.parametrize("chances", _CHANCES.values(), ids=_CHANCES)
def test_the_interval_of_a_reach_covers_however_success_ends(chances, trials):
    """300 draws at 95 % have a standard error of 1.3 points; 3.3 of them are allowed, for each test is discrete and mostly stricter."""
    random, depths = np.random.default_rng(0), range(1, 33)
    truth = int((chances >= 0.2).cumprod().sum())
    covered = 0
    for _ in range(300):
        low, high = reach_interval(depths, random.binomial(trials, chances).tolist(), [trials] * 32, threshold=0.2)
        covered += low <= truth <= high
    assert covered / 300 >= 0.907


@pytest.mark.parametrize("right", range(6))
def test_no_reach_is_surer_than_the_exact_interval_of_a_depth(right):
    """It cannot be ruled out that success breaks off at a depth whose own interval holds the threshold."""
    least = scipy.stats.binomtest(right, 5).proportion_ci(0.95, method="exact").low
    low, _ = reach_interval([10, 20], [5, right], [5, 5], threshold=0.2)
    assert (low >= 20) == (least > 0.2)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=9))
def test_the_interval_of_a_reach_holds_what_was_seen(successes):
    depths = list(range(10, 10 * len(successes) + 1, 10))
    seen = 0
    while seen < len(successes) and successes[seen] / 5 >= 0.2:
        seen += 1
    low, high = reach_interval(depths, successes, [5] * len(depths), threshold=0.2)
    assert low <= 10 * seen <= high


def test_one_trial_a_depth_leaves_every_reach_possible_and_a_cliff_leaves_few():
    depths = list(range(32, 1025, 32))
    assert reach_interval(depths, [1] * 32, [1] * 32, threshold=0.2) == (0, 1024)
    assert reach_interval(depths, [2] * 32, [2] * 32, threshold=0.2) == (0, 1024), "2 of 2: exactly, 16 to 100 %"
    assert reach_interval(depths, [3] * 32, [3] * 32, threshold=0.2) == (1024, 1024)
    low, high = reach_interval(depths, [10] * 8 + [0] * 24, [10] * 32, threshold=0.2)
    # 0 of 10 has a chance of 11 % at the threshold, three times in a row of 0.1 %.
    assert low == 256 and 288 <= high <= 320


@pytest.mark.parametrize("depths", [1, 2, 3, 4, 6, 32])
def test_enough_trials_are_as_many_as_make_clear_answers_unlikely_at_the_threshold(depths):
    """All right of one depth: 0.2 ** 3 is below 2.5 % and 0.2 ** 2 is not. All wrong of all depths: 0.8 ** 17 is, and 0.8 ** 16 is not."""
    assert enough_trials(depths) == max(3, math.ceil(17 / depths))
