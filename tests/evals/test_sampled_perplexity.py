"""Perplexity from a sample of windows: unbiased, with an interval that holds what it promises."""

import dataclasses
import logging
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest

from ropewalk.cli.tables.measured import show_perplexity
from ropewalk.data.documents import Document
from ropewalk.data.sliding import sliding
from ropewalk.errors import UserError
from ropewalk.evals.perplexity import sampled, strata
from ropewalk.evals.perplexity.measure import perplexity
from ropewalk.progress import PROGRESS
from ropewalk.testing import byte_tokenizer, prose, tiny
from ropewalk.training import deadline


def population(seed=0):
    """Windows of eight documents of unlike length and difficulty, with nll made up per window."""
    random = np.random.default_rng(seed)
    lengths = [500, 700, 2000, 900, 640, 1500, 3000, 800]
    units = strata.units_of(sliding(length, 64, 16) for length in lengths)
    level = random.uniform(1, 4, size=len(lengths))
    nll = {
        at: unit.window.scored * float(level[unit.document] + random.normal(0, 0.3)) for at, unit in enumerate(units)
    }
    exact = math.fsum(nll.values()) / sum(unit.window.scored for unit in units)
    return units, nll, exact


def test_all_windows_give_the_exact_figure_with_no_error():
    units, nll, exact = population()
    estimate = strata.Population(units).estimate(nll)
    assert estimate.nats == pytest.approx(exact, rel=1e-12)
    assert estimate.error == 0 and estimate.drawn == estimate.windows == len(units)


def test_the_interval_holds_the_exact_figure_as_often_as_it_says():
    """Coverage over 400 samples of a twelfth of the windows; 95 % ± 3 standard errors of a share of 400 is 91.7 to 98.3 %.

    A seed fixes it; the bounds are what any seed but one in hundreds would pass.
    """
    units, nll, exact = population()
    held, errors = 0, []
    for seed in range(400):
        order = strata.order_of(units, seed)[: len(units) // 12]
        estimate = strata.Population(units).estimate({at: nll[at] for at in order})
        low, high = estimate.interval
        held += low <= exact <= high
        errors.append(estimate.nats - exact)
    assert 0.917 <= held / 400 <= 0.995  # above: documents are strata only from two windows each, else it is wider
    # Unbiased: the mean of 400 errors lies within 4 of its own standard errors of zero.
    assert abs(np.mean(errors)) < 4 * np.std(errors) / math.sqrt(400)


def test_a_handful_of_windows_keeps_the_promise_too():
    """48 windows of 606: several documents have two or three, and their scatter is known badly."""
    units, nll, exact = population()
    held = 0
    for seed in range(400):
        low, high = (
            strata.Population(units).estimate({at: nll[at] for at in strata.order_of(units, seed)[:48]}).interval
        )
        held += low <= exact <= high
    assert held / 400 >= 0.917


def test_two_windows_of_unlike_scatter_have_an_interval_of_students_width():
    """At 1.99 degrees of freedom the quantile is 4.32 (tests/evals/test_intervals.py), not that of one degree, 12.71."""
    estimate = strata.Estimate(nats=2.0, error=0.1, degrees=1.99, drawn=4, windows=40, tokens=400)
    assert estimate.interval == pytest.approx((2 - 0.432, 2 + 0.432), abs=5e-4)


def test_documents_as_strata_beat_windows_drawn_from_one_heap():
    units, nll, _ = population()
    order = strata.order_of(units, 0)[: len(units) // 6]
    ours = strata.Population(units).estimate({at: nll[at] for at in order}).error
    means = np.array([nll[at] / units[at].window.scored for at in order])
    heap = means.std(ddof=1) / math.sqrt(len(order))
    assert ours < heap / 2


def test_every_beginning_of_the_order_is_spread_over_the_documents():
    units, _, _ = population()
    order = strata.order_of(units, 5)
    assert sorted(order) == list(range(len(units)))
    others = [at for at in order if not units[at].first]
    share = len(others) // 10
    by_document = np.bincount([units[at].document for at in others[:share]], minlength=8)
    due = np.bincount([units[at].document for at in others], minlength=8) / 10
    assert (abs(by_document - due) <= 1.5).all()


def test_too_few_windows_say_nothing():
    units, nll, _ = population()
    order = strata.order_of(units, 0)
    assert strata.Population(units).estimate({order[0]: nll[order[0]]}) is None


def measured(**arguments):
    documents = [Document(str(n), prose(2000, n)[: 900 + 400 * n]) for n in range(6)]
    (row,) = perplexity(tiny(), tokenizer=byte_tokenizer(), data=documents, windows=[64], stride=8, **arguments)
    return row


def test_a_sample_of_real_windows_agrees_with_the_exact_figure_within_its_interval():
    exact, sampled = measured(), measured(budget=60.0, tolerance=0.004, seed=1)
    assert sampled.estimate and not exact.estimate
    assert sampled.tokens < exact.tokens / 3
    assert sampled.low <= exact.perplexity <= sampled.high
    assert (sampled.high - sampled.low) / 2 / sampled.perplexity <= 0.0041  # exp's bend, beside the tolerance of 0.004


def test_time_stops_it_and_a_tolerance_of_nothing_makes_it_exact():
    short = measured(budget=1e-9, tolerance=0.0)
    assert short.estimate and short.tokens < 3000
    whole, exact = measured(budget=60.0, tolerance=0.0), measured()
    assert not whole.estimate and whole.tokens == exact.tokens
    # An exact row has an exact row's interval, over documents; float32 sums in another batching differ by roundings.
    for name in ("perplexity", "low", "high"):
        assert getattr(whole, name) == pytest.approx(getattr(exact, name), rel=1e-6)
    assert [(one["name"], one["tokens"]) for one in whole.per_document] == [
        (one["name"], one["tokens"]) for one in exact.per_document
    ]


def test_the_same_seed_draws_the_same_windows():
    assert measured(budget=60.0, tolerance=0.01).perplexity == measured(budget=60.0, tolerance=0.01).perplexity


@pytest.mark.parametrize("minutes", [0.0, -1.0])
def test_a_budget_of_nothing_is_refused(minutes):
    with pytest.raises(UserError, match="budget is a finite number above 0"):
        measured(budget=minutes)


def test_a_budget_for_another_rule_is_refused():
    with pytest.raises(UserError, match="not that of yarn"):
        measured(budget=1.0, convention="yarn")


def test_an_interval_that_says_nothing_becomes_a_sentence_with_the_minutes_that_are_needed(caplog, capsys):
    """Of 1.0 to 390 nobody learns anything."""
    texts = [Document(f"{at}", prose(90, at)) for at in range(3)]
    asked = {"data": texts, "windows": [64], "stride": 16, "budget": 1e-6, "batch_tokens": 64}
    (row,) = perplexity(tiny(), tokenizer=byte_tokenizer(), **asked)
    wide = dataclasses.replace(row, low=1.0, high=390.0)
    assert wide.says_nothing and wide.lacking == "too few windows"
    # ± 10 % is 1.1 each way: ln(390) / (2 ln 1.1) = 31.3 times as narrow, and an interval narrows with the root.
    assert wide.more == pytest.approx(31.3**2, rel=0.01)
    show_perplexity([wide], "hemp")
    told = " ".join(capsys.readouterr().out.split())
    assert "perplexity of hemp on 0 1 2 (stride 16" in told and "too few windows" in told and "390" not in told
    assert not dataclasses.replace(row, low=math.nan, high=math.nan).says_nothing
    assert not dataclasses.replace(row, low=9.0, high=12.0).says_nothing
    assert ("are too few" in caplog.text) == row.says_nothing


def test_a_budget_has_a_bar_from_the_first_second(caplog):
    caplog.set_level(PROGRESS)
    texts = [Document(f"{at}", prose(90, at)) for at in range(3)]
    perplexity(tiny(), tokenizer=byte_tokenizer(), data=texts, windows=[64], stride=16, budget=10, tolerance=0)
    events = [record.progress for record in caplog.records if hasattr(record, "progress")]
    assert events[0].total == 600 and events[0].title == "perplexity, window 64, seconds" and events[-1].ended
    told = re.compile(r"\d+:\d\d left  perplexity, window 64: \d+ of \d+ windows")
    assert all(told.match(event.detail) for event in events[1:-1])


def test_the_fewest_windows_of_an_order_are_the_first_that_give_an_interval():
    units, nll, _ = population()
    order = strata.order_of(units, 0)
    fewest = strata.fewest_of(units, order)
    whole = strata.Population(units)
    assert whole.estimate({place: nll[place] for place in order[: fewest - 1]}) is None
    assert whole.estimate({place: nll[place] for place in order[:fewest]}) is not None
    alone = strata.units_of([sliding(64, 64, 16)])  # one document of one window
    assert strata.fewest_of(alone, strata.order_of(alone, 0)) == 1


def test_minutes_that_the_fewest_windows_do_not_fit_are_refused_before_the_first_one(monkeypatch):
    """At a thousand FLOP/s not even a tiny model reads four windows in a minute."""
    monkeypatch.setattr(deadline, "_rate", lambda device, *_: 1e3)
    monkeypatch.setattr(sampled, "negative_log_likelihoods", None)  # no window is read
    with pytest.raises(
        UserError,
        match=r"4 of [\d,]+ windows are the fewest that give an interval of a sample \(of documents read whole, 3 do\) .*--budget is 1:00; give --budget \d{3,}",
    ):
        measured(budget=1.0)


def test_minutes_that_the_first_batch_shows_to_be_too_few_are_refused_after_it(monkeypatch):
    """Arithmetic promised a moment, and a batch takes a hundred seconds."""
    clock = iter(range(0, 10**6, 100))
    monkeypatch.setattr(deadline, "_rate", lambda device, *_: 1e18)
    monkeypatch.setattr(sampled, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    with pytest.raises(UserError, match=r"4 of [\d,]+ windows .*shorter --windows, or --max-tokens 64, one window"):
        measured(budget=1.0, batch_tokens=64)


def test_what_takes_long_says_so_before_the_first_window(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(deadline, "_rate", lambda device, *_: 1e6)
    measured()
    monkeypatch.setattr(deadline, "_rate", lambda device, *_: 1e18)
    measured()
    (line,) = [record.getMessage() for record in caplog.records if "windows, about" in record.getMessage()]
    assert re.search(
        r"perplexity, window 64: [\d,]+ windows, about [\d.]+ (h|days) here, as busy as it is now; --budget", line
    )
