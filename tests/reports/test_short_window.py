"""The truthful sentence where no perplexity tells of the short window, or nothing was measured at all. All rows are made up."""

from __future__ import annotations

import dataclasses
import math

import pytest
from scipy.stats import beta

import made_up
from ropewalk import records
from ropewalk.records import Recorder
from ropewalk.reports import render

TRAINED = made_up.extended(steps=200)


def verdict_of(path) -> str:
    text = made_up.words(render(records.read([path]))).partition("Not known")[0]
    return text.replace("\u202f", " ").replace("\u00a0", " ")


def passkeys(path, model, window, right, depths=4, trials=10):
    """`right` of the prompts at each depth."""
    recorder = Recorder(path, made_up.run(model, f"ropewalk passkey {model.name}"))
    for depth in range(1, depths + 1):
        recorder.add(records.Passkey(window, window * depth // depths, trials, right))
    recorder.add(records.PasskeySummary(window, window, depths, trials, right / trials))


def retrieval(path, model, window, right, families=("keys", "values"), trials=50):
    recorder = Recorder(path, made_up.run(model, f"ropewalk retrieval {model.name}"))
    for family in families:
        recorder.add(records.Retrieval(window, family, trials, right, 0.0, 1.0))


def change(before: int, after: int, trials: int) -> str:
    """In points, with its interval: Clopper and Pearson's, as quantiles of beta distributions, of two shares asked apart (MOVER)."""
    ends = [
        [beta.ppf(0.025, right, trials - right + 1) if right else 0.0, beta.ppf(0.975, right + 1, trials - right) if right < trials else 1.0]
        for right in (before, after)
    ]  # fmt: skip
    (low, high), (other_low, other_high) = ends
    share, other = before / trials, after / trials
    below, above = math.hypot(other - other_low, high - share), math.hypot(other_high - other, share - low)
    value, *bounds = (f"{100 * (other - share + step):+.1f}".replace("-", "−") for step in (0, -below, above))
    return f"{value} points (95 % interval {bounds[0]} to {bounds[1]})"


def test_passkeys_tell_of_the_short_window(tmp_path):
    for model, right in ((made_up.BASE, 10), (TRAINED, 9)):
        for window in (256, 1024):
            passkeys(tmp_path / "r.jsonl", model, window, right)
    assert (
        f"; the short window is known by passkeys: at 256 tokens the share found went 100.0 % → 90.0 %, {change(40, 36, 40)}."
        in verdict_of(tmp_path / "r.jsonl")
    )


def test_harder_retrieval_tells_of_the_short_window_and_how_far_it_holds(tmp_path):
    """A family that did not fit the short window counts at no length."""
    retrieval(tmp_path / "r.jsonl", made_up.BASE, 256, 45)
    for window, right in ((256, 40), (512, 38), (1024, 10)):
        retrieval(tmp_path / "r.jsonl", TRAINED, window, right)
    retrieval(tmp_path / "r.jsonl", TRAINED, 1024, 50, families=["chain"])
    text = verdict_of(tmp_path / "r.jsonl")
    held = (
        f"it holds to 512 by harder retrieval of keys and values (80.0 % at 256, 76.0 % at 512: {change(80, 76, 100)})"
    )
    short = f"the short window is known by harder retrieval: at 256 tokens the share answered right went 90.0 % → 80.0 %, {change(90, 80, 100)}."
    assert f"{held}; {short}" in text


@pytest.mark.parametrize(("right", "held"), [
    ((40, 10), f"to 256 by harder retrieval (80.0 % at 256, 20.0 % at 1024: {change(80, 20, 100)})"),
    ((0, 10), "to no length by harder retrieval (nothing was right at 256, clearly fewer than half)"),
    ((3, 3), "to no length by harder retrieval (6.0 % right at 256, clearly fewer than half)"),
    ((20, 20), f"to 1024 by harder retrieval (40.0 % at 256, 40.0 % at 1024: {change(40, 40, 100)})"),
])  # fmt: skip
def test_a_share_that_is_surely_lower_does_not_hold(tmp_path, right, held):
    for window, each in zip((256, 1024), right, strict=True):
        retrieval(tmp_path / "r.jsonl", TRAINED, window, each)
    assert f"it holds {held}" in verdict_of(tmp_path / "r.jsonl")


NAME = "runs/hemp-linear-1024/checkpoints/step-000200"


@pytest.mark.parametrize(("base", "trained", "told"), [
    # windows at which each was asked, and how many depths
    ([(1024, 4)], [(256, 4), (1024, 4)], "the share found is 90.0 % (95 % interval 76.3 % to 97.2 %), and its base was not asked the same (ropewalk passkey hemp --window 256 --depths 4)."),
    ([(256, 8)], [(256, 4), (1024, 4)], "and its base was not asked the same (ropewalk passkey hemp --window 256 --depths 4)."),
    ([(256, 4)], [(1024, 4)], f"what became of the short window is not known: passkeys at 256 tokens were asked of its base alone (ropewalk passkey {NAME} --window 256 --depths 4)."),
    ([(1024, 4)], [(1024, 4)], f"what became of the short window of 256 tokens was not measured (ropewalk perplexity {NAME} --data … --windows 256 1024, and the same of hemp)."),
])  # fmt: skip
def test_what_is_missing_is_named_with_the_command_that_brings_it(tmp_path, base, trained, told):
    for model, asked in ((made_up.BASE, base), (TRAINED, trained)):
        for window, depths in asked:
            passkeys(tmp_path / "r.jsonl", model, window, 9, depths)
    assert told in verdict_of(tmp_path / "r.jsonl")


def test_a_command_names_no_place_of_one_machine(tmp_path):
    passkeys(tmp_path / "r.jsonl", made_up.extended(steps=200, name="/home/somebody/my runs/t"), 1024, 9)
    text = verdict_of(tmp_path / "r.jsonl")
    assert "(ropewalk perplexity 'my runs/t' --data … --windows 256 1024, and the same of BASE)" in text


def test_benchmarks_alone_are_said_to_tell_of_the_short_window(tmp_path):
    rows = (made_up.BASE, made_up.benchmark("piqa", 0.6, 0)), (TRAINED, made_up.benchmark("piqa", 0.6, 1))
    text = verdict_of(made_up.record_rows(tmp_path / "r.jsonl", *rows))
    assert "; of the short window of 256 tokens its benchmarks tell." in text and "Of 1 benchmark in the" in text


SAID = (
    "Trained to 1024 tokens (8 steps); it was not measured when this was written, so that what it holds to, and what became of the short window of "
    "256 tokens, is not known. Measure it and its base alike (ropewalk perplexity runs/t --data … --windows 256 1024 --out FILE.jsonl)"
)


@pytest.mark.parametrize("measured", [(), ((made_up.BASE, made_up.row(2.0)),)])
def test_a_training_of_which_nothing_was_measured_says_to_what_it_was_trained(tmp_path, measured):
    path = made_up.record_rows(tmp_path / "r.jsonl", *measured)
    settings = {"out": "runs/t", "learning_rate": 1e-4, "batch_size": 1, "steps": 8}
    made_up.steps(Recorder(path, made_up.run(made_up.extended(name="hemp"), "ropewalk train", settings=settings)), 8)
    text = verdict_of(path)
    assert text.count(SAID) == 1 and "No extended model" not in text
    assert ("Only the base model was measured" in text) == bool(measured)


def test_a_training_at_the_old_window_is_no_measurement_of_the_base(tmp_path):
    settings = {"out": "runs/t", "learning_rate": 1e-4, "batch_size": 1, "steps": 8}
    made_up.steps(Recorder(tmp_path / "r.jsonl", made_up.run(made_up.BASE, "ropewalk train", settings=settings)), 8)
    text = verdict_of(tmp_path / "r.jsonl")
    assert "Trained to 256 tokens (8 steps); it was not measured when this was written, so that what it holds to is not known." in text  # fmt: skip
    assert "Only the base model" not in text and "--windows 256 --out" in text


def _read(row, *documents):
    """The row of these documents: name → nll a token, of 1000 tokens each."""
    each = [{"name": name, "tokens": 1000, "nll": 1000 * nll} for name, nll in documents]
    mean = sum(nll for _, nll in documents) / len(documents)
    return dataclasses.replace(row, perplexity=math.exp(mean), low=math.nan, high=math.nan, documents=len(each), tokens=1000 * len(each), per_document=each)  # fmt: skip


@pytest.mark.parametrize(("shared", "is_told"), [("a", True), ("z", False)])
def test_a_change_is_of_the_documents_that_both_read(tmp_path, shared, is_told):
    """The trained model read the easiest of the base's three documents, and is worse at it: over all that each read it would look better."""
    before = _read(made_up.row(2.0), ("a", 2.0), ("b", 2.3), ("c", 2.6))
    after = _read(made_up.row(2.0), (shared, 2.03))
    path = made_up.record_rows(
        tmp_path / "r.jsonl", (made_up.BASE, before), (TRAINED, after, _read(made_up.row(2.0, 1024), (shared, 2.0)))
    )
    page = made_up.words(render(records.read([path]))).replace("\u202f", " ").replace("\u00a0", " ")
    told = f"its perplexity went {math.exp(2.0):.2f} → {math.exp(2.03):.2f}, +3.0 % (over the one document that both read: no interval)"
    assert (told in page) == is_told and ("+3.0 % over 1 shared" in page) == is_told
    assert ("it and its base read no document in common" in page) != is_told
    assert f"{math.exp(2.3):.2f} →" not in page and "what training on such text brings" not in page
    assert f"{100 * (1 - math.exp(2.03 - 2.3)):.1f} %" not in page, "no change of one's documents against another's"
