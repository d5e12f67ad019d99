"""Intervals and the paired test, against published figures, definitions and simulation; that of k_max is in test_reach.py."""

import math

import mpmath
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.evals.intervals import (
    Paired,
    documents_interval,
    over_seeds,
    perplexity_interval,
    scores_interval,
    share_interval,
    student_t95,
)

counts = st.integers(0, 60)


@pytest.mark.parametrize(
    "successes, trials, low, high",
    # Newcombe 1998, Statistics in Medicine 17, 857, table I, method 5 (Clopper and Pearson's).
    [(81, 263, 0.2527, 0.3676), (15, 148, 0.0578, 0.1617), (0, 20, 0.0, 0.1684), (1, 29, 0.0009, 0.1776)],
)
def test_the_interval_of_a_share_is_the_published_one(successes, trials, low, high):
    assert share_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)  # four digits are given


@pytest.mark.parametrize(
    ("nats", "ends"),
    [
        ((-0.1, 0.5), (1.0, 1.6487212707)),  # e^(1/2), DLMF 4.2
        ((1.0, 800.0), (2.7182818285, math.inf)),  # a double ends at e^709.78
        ((math.nan, math.nan), (math.nan, math.nan)),
    ],
)
def test_the_interval_of_a_perplexity_ends_at_1_and_may_be_infinite(nats, ends):
    assert perplexity_interval(*nats) == pytest.approx(ends, nan_ok=True)


@pytest.mark.parametrize("trials", [1, 2, 3, 7, 30])
def test_the_interval_of_a_share_covers_whatever_it_is(trials):
    """No simulation: every outcome's own probability, at a thousand shares."""
    shares = np.linspace(0, 1, 1001)
    covered = np.zeros(len(shares))
    for successes in range(trials + 1):
        low, high = share_interval(successes, trials)
        covered += scipy.stats.binom.pmf(successes, trials, shares) * ((low <= shares) & (shares <= high))
    assert covered.min() >= 0.95


@pytest.mark.parametrize("items", [1, 2, 5, 30])
@pytest.mark.parametrize(("a", "b"), [(0.1, 0.1), (0.05, 0.95), (8.0, 12.0), (19.0, 1.0)])
def test_the_interval_of_a_mean_of_scores_between_0_and_1_covers_too(items, a, b):
    """Scores of a beta distribution. 1000 draws at 95 % have a standard error of 0.7 points; 3 of them are allowed."""
    random, truth = np.random.default_rng(items), a / (a + b)
    means = [share_interval(total, items) for total in random.beta(a, b, (1000, items)).sum(1)]
    assert sum(low <= truth <= high for low, high in means) / 1000 >= 0.93


def test_scores_that_are_all_alike_have_the_interval_of_a_share_and_others_students():
    assert scores_interval(np.zeros(3)) == share_interval(0, 3) and all(map(math.isnan, scores_interval(np.ones(1))))
    scores = np.array([0.3, 0.5, 0.35, 0.42])
    expected = scipy.stats.t.interval(0.95, 3, scores.mean(), scipy.stats.sem(scores))
    assert scores_interval(scores) == pytest.approx(expected, rel=1e-9)
    assert scores_interval(np.array([0.1, 0.9])) == (0.0, 1.0)  # never beyond what a score can be


def test_nothing_tried_says_nothing():
    assert share_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(
    "degrees, quantile",
    # NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2: upper critical values of Student's t, 0.975.
    [
        (1.0, 12.706),
        (2.0, 4.303),
        (3.0, 3.182),
        (5.0, 2.571),
        (10.0, 2.228),
        (30.0, 2.042),
        (100.0, 1.984),
        (math.inf, 1.960),
    ],
)
def test_students_quantile_is_the_tables(degrees, quantile):
    assert student_t95(degrees) == pytest.approx(quantile, abs=5e-4)


@pytest.mark.parametrize("degrees", [1.02, 1.5, 1.99, 2.4, 7.3])
def test_students_quantile_between_whole_degrees_leaves_a_fortieth_above_it(degrees):
    """Oracle: the density integrated by mpmath; Satterthwaite's degrees of freedom are seldom whole."""
    density = mpmath.gamma((degrees + 1) / 2) / (mpmath.sqrt(degrees * mpmath.pi) * mpmath.gamma(degrees / 2))
    upper = mpmath.quad(
        lambda x: density * (1 + x * x / degrees) ** (-(degrees + 1) / 2), [student_t95(degrees), 100, mpmath.inf]
    )
    assert float(upper) == pytest.approx(0.025, rel=1e-6)


@given(counts, counts)
def test_the_paired_test_doubles_the_smaller_binomial_tail(lost, gained):
    changed, fewer = lost + gained, min(lost, gained)
    tail = sum(math.comb(changed, count) for count in range(fewer + 1)) / 2**changed
    assert Paired(10, lost, gained, 10).p_value() == pytest.approx(min(1.0, 2 * tail), rel=1e-9)


def test_the_paired_test_gives_the_published_p_value():
    """Airway reactivity before and after stem cell transplantation: 1 child lost it, 7 gained it; P = 2 (1 + 8) / 2**8.

    Fagerland, Lydersen, Laake 2013, BMC Medical Research Methodology 13:91: exact conditional test, 0.070.
    """
    assert Paired(1, 1, 7, 12).p_value() == pytest.approx(18 / 256, rel=1e-12)


@pytest.mark.parametrize(
    "table, low, high",
    # Newcombe 1998, Statistics in Medicine 17, 2635; Fagerland et al. 2014; Cavo et al. 2012: intervals by Newcombe's method 10, which
    # promises 95 % on average over chances, and not for each.
    [((36, 12, 2, 0), -0.3404, -0.0569), ((1, 1, 7, 12), 0.026, 0.507), ((59, 6, 16, 80), 0.0046, 0.1186)],
)
def test_the_interval_of_a_paired_difference_is_near_the_published_one(table, low, high):
    """Both ends lie a little outside of it, by a tenth of its width at most; of 5000 pairs it is the textbook's (Wald's)."""
    found, slack = Paired(*table).interval(), 0.1 * (high - low)
    assert low - slack <= found[0] <= low + slack and high - slack <= found[1] <= high + slack
    assert found[1] - found[0] >= high - low
    many = Paired(*(100 * count + 1 for count in table))
    half = 1.96 * math.sqrt((many.lost + many.gained) / many.items - many.difference**2) / math.sqrt(many.items)
    assert many.interval() == pytest.approx((many.difference - half, many.difference + half), abs=0.05 * half)


@pytest.mark.parametrize("items", [1, 2, 3, 6, 12])
def test_the_interval_of_a_paired_difference_covers_whatever_the_chances(items):
    """No simulation: the probability of every table of so many items, at 150 sets of chances, few of them mild."""
    random = np.random.default_rng(items)
    kinds = ([1, 1, 1, 1], [0.3, 0.3, 0.3, 0.3], [3, 0.3, 0.3, 3], [0.2, 3, 3, 0.2], [5, 0.2, 0.2, 0.2])
    tables = [
        (both, lost, gained, items - both - lost - gained)
        for both in range(items + 1)
        for lost in range(items + 1 - both)
        for gained in range(items + 1 - both - lost)
    ]
    low, high = np.array([Paired(*table).interval() for table in tables]).T
    for chances in (random.dirichlet(kind) for kind in kinds for _ in range(30)):
        difference = chances[2] - chances[1]
        likely = scipy.stats.multinomial.pmf(tables, items, chances)
        assert likely[(low <= difference + 1e-12) & (difference - 1e-12 <= high)].sum() >= 0.95, chances


@given(counts, counts, counts, counts)
def test_the_interval_holds_the_difference_and_stays_in_range(both, lost, gained, neither):
    if both + lost + gained + neither == 0:
        return
    pair = Paired(both, lost, gained, neither)
    low, high = pair.interval()
    assert -1 <= low <= pair.difference + 1e-12 and pair.difference - 1e-12 <= high <= 1


def test_pairs_are_counted_item_by_item():
    assert Paired.of([True, True, False, False, True], [True, False, True, False, True]) == Paired(
        both=2, lost=1, gained=1, neither=1
    )
    with pytest.raises(ValueError, match="equal lengths"):
        Paired.of([True], [True, False])


def test_many_changed_items_do_not_underflow():
    assert Paired(0, 5000, 5000, 0).p_value() == 1.0
    assert 0 < Paired(0, 900, 1100, 0).p_value() < 1e-4


@pytest.mark.parametrize("items", [2, 5, 40])
def test_with_equal_weights_the_interval_over_documents_is_students(items):
    """Oracle: scipy's interval of Student's t about the mean, n - 1 degrees of freedom."""
    values = np.random.default_rng(items).normal(3.0, 2.0, items)
    expected = scipy.stats.t.interval(0.95, items - 1, values.mean(), scipy.stats.sem(values))
    assert documents_interval(800.0 * values, np.full(items, 800.0)) == pytest.approx(expected, rel=1e-9)


def test_unequal_documents_have_the_variance_and_degrees_of_freedom_of_bell_and_mccaffrey():
    """Oracle: the matrices of Bell & McCaffrey 2002, written out for five documents that scatter alike."""
    random = np.random.default_rng(3)
    tokens, means = np.array([100.0, 900.0, 300.0, 50.0, 4000.0]), random.normal(2.0, 0.3, 5)
    share = tokens / tokens.sum()
    residual_maker = np.eye(5) - np.outer(np.ones(5), share)
    form = residual_maker.T @ np.diag(share**2 / (1 - share)) @ residual_maker
    degrees = np.trace(form) ** 2 / np.trace(form @ form)
    variance = means @ form @ means * (share**2).sum() / np.trace(form)
    half = scipy.stats.t.ppf(0.975, degrees) * math.sqrt(variance)
    low, high = documents_interval(means * tokens, tokens)
    assert (low, high) == pytest.approx((share @ means - half, share @ means + half), rel=1e-9)


@pytest.mark.parametrize("documents", [2, 3, 5, 6, 10, 40])
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_the_interval_over_documents_covers_as_often_as_it_says(documents, spread):
    """Documents whose mean nll is 2 nats with a scatter of 0.3 and whose lengths are log-normal; all alike if spread is 0.

    1500 draws at 95 % have a standard error of 0.56 points; 4 of them are allowed. Lengths that differ much make the interval wider
    than it need be, never narrower. An interval that lies below the truth is what a false "is put to use" comes from: 2.5 %.
    """
    random, draws = np.random.default_rng(documents), 1500
    covered = below = 0
    for _ in range(draws):
        tokens = np.exp(random.normal(8.0, spread, documents))
        low, high = documents_interval(random.normal(2.0, 0.3, documents) * tokens, tokens)
        covered += low <= 2.0 <= high
        below += high < 2.0
    assert covered / draws >= 0.95 - 4 * 0.0056
    assert below / draws <= 0.025 + 4 * 0.004
    if not spread:
        assert covered / draws <= 0.95 + 4 * 0.0056


@pytest.mark.parametrize(
    ("scatter", "documents", "promised"),
    [
        (lambda random, count: random.standard_t(3, count), 3, 0.95),
        (lambda random, count: random.standard_t(3, count), 15, 0.95),
        (lambda random, count: random.uniform(-1, 1, count), 5, 0.93),
        (lambda random, count: np.exp(random.normal(0, 0.5, count)) - math.exp(0.125), 5, 0.91),
        (lambda random, count: np.exp(random.normal(0, 0.5, count)) - math.exp(0.125), 15, 0.92),
        (lambda random, count: random.choice([-1, 1], count) + random.normal(0, 0.2, count), 3, 0.74),
        (lambda random, count: random.choice([-1, 1], count) + random.normal(0, 0.2, count), 7, 0.92),
    ],
    ids=["heavy 3", "heavy 15", "uniform 5", "skewed 5", "skewed 15", "two kinds 3", "two kinds 7"],
)
def test_where_documents_do_not_scatter_normally_the_interval_covers_as_docs_say(scatter, documents, promised):
    """docs/evaluation.md promises these. 1000 draws at 92 % have a standard error of 0.9 points; 3 of them are allowed."""
    random, draws = np.random.default_rng(1), 1000
    tokens, covered = np.full(documents, 500.0), 0
    for _ in range(draws):
        low, high = documents_interval((2.0 + scatter(random, documents)) * tokens, tokens)
        covered += low <= 2.0 <= high
    assert covered / draws >= promised - 0.027


@pytest.mark.parametrize("items", [0, 1])
def test_one_document_says_nothing_of_others_and_has_no_interval(items):
    """An interval of no width would claim certainty."""
    assert all(math.isnan(bound) for bound in documents_interval(np.full(items, 0.5), np.ones(items)))


@pytest.mark.parametrize("seeds", [2, 5])
@pytest.mark.parametrize("between", [0.1, 1.0, 10.0])
def test_the_interval_over_seeds_covers_at_least_as_often_as_it_says(seeds, between):
    """Twelve documents that scatter by 1, the same for every seed, and seeds that scatter by `between`; the truth is 0.

    600 draws have a standard error of 0.89 points; four of them are allowed.
    """
    draw, held = np.random.default_rng(seeds), 0
    for _ in range(600):
        documents = draw.normal(size=12)
        means = [documents + draw.normal(0, between) + draw.normal(0, 0.1, 12) for _ in range(seeds)]
        low, high = over_seeds([(each.mean(), *documents_interval(each, np.ones(12))) for each in means])[1:]
        held += low <= 0 <= high
    assert held / 600 >= 0.95 - 4 * 0.0089


def test_the_interval_of_seeds_alone_is_scipys_and_that_of_one_seed_its_own():
    values = [3.0, 3.4, 2.9]
    exact = scipy.stats.t.interval(0.95, 2, np.mean(values), scipy.stats.sem(values))
    assert over_seeds([(value, value, value) for value in values]) == pytest.approx((np.mean(values), *exact))
    assert over_seeds([(2.0, 1.5, 3.0)]) == (2.0, 1.5, 3.0)
    assert np.isnan(over_seeds([(2.0, np.nan, np.nan), (2.1, 2.0, 2.2)])[1:]).all()
