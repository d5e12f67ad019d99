"""What a verdict says of perplexity in the old window and the new one. All rows are made up."""

from __future__ import annotations

import re

import pytest

import made_up
from ropewalk import records
from ropewalk.reports import render

PLACES = "what became of the short window is not known, for {} measured at 256 tokens, and other windows do not tell (ropewalk perplexity {})."
TRAINED = "runs/hemp-linear-1024/checkpoints/step-000009 --data … --windows 256"


@pytest.mark.parametrize(("nll", "words"), [
    (3.0, "it holds to no window by perplexity (up to 2.7× the base's at 256)"),
    (2.6, "it holds to 1024 by perplexity"),  # 1.8 times the base's
])  # fmt: skip
def test_a_flat_curve_of_a_broken_model_holds_nowhere(tmp_path, nll, words):
    path = made_up.record_rows(
        tmp_path / "r.jsonl",
        (made_up.BASE, made_up.row(2.0)),
        (made_up.extended(4), made_up.row(nll), made_up.row(nll - 0.01, 1024)),
    )
    assert words in made_up.words(render(records.read([path])))


def test_a_longer_context_that_does_not_help_is_called_that(tmp_path):
    path = made_up.record_rows(
        tmp_path / "r.jsonl",
        (made_up.BASE, made_up.row(2.0)),
        (made_up.extended(4, 9), made_up.row(2.0), made_up.row(2.2, 1024)),
    )
    page = made_up.words(render(records.read([path])))
    assert "it holds to 256 by perplexity (from 256 to 1024: +22.1 %" in page
    assert "its perplexity rises, so the longer context does harm." in page


def test_a_model_that_merely_trained_on_the_text_is_not_said_to_use_its_context(tmp_path):
    """Better than the base everywhere, and no better with more in sight."""
    path = made_up.record_rows(
        tmp_path / "r.jsonl",
        (made_up.BASE, made_up.row(2.0)),
        (made_up.extended(4, 9), made_up.row(1.8), made_up.row(1.8, 1024)),
    )
    page = made_up.words(render(records.read([path])))
    assert "put to use" not in page
    assert "its perplexity does not change beyond chance" in page


def test_two_documents_are_too_few_for_a_reading(tmp_path):
    two = [made_up.row(nll, window, documents=2) for nll, window in ((2.0, 256), (1.8, 1024))]
    page = made_up.words(
        render(
            records.read(
                [
                    made_up.record_rows(
                        tmp_path / "r.jsonl",
                        (made_up.BASE, made_up.row(2.0, documents=2)),
                        (made_up.extended(4, 9), *two),
                    )
                ]
            )
        )
    )
    assert "put to use" not in page
    assert "(2 documents: no interval), which may be chance." in page


@pytest.mark.parametrize(("base", "extended", "told"), [
    # windows at which each was measured
    ([256], [1024], [PLACES.format("it was not", TRAINED), "At 1024 tokens: 8.17; the base at 256 tokens has 7.39, which is of another window: no better or worse follows."]),
    ([1024], [256, 1024], [PLACES.format("its base was not", "hemp --data … --windows 256")]),
    ([1024], [1024], [PLACES.format("neither it nor its base was", f"{TRAINED}, and the same of hemp")]),
    ([256], [512], ["Its perplexity was measured at 512 tokens and not at 1024: of the new window it does not tell."]),
    ([128, 256], [128, 1024], ["Within the short window of 256 tokens it and its base were both measured at 128 at most: there its perplexity went 7.39 → 8.17, +10.5 %"]),
])  # fmt: skip
def test_what_was_measured_at_other_windows_is_no_better_and_no_worse(tmp_path, base, extended, told):
    path = made_up.record_rows(
        tmp_path / "r.jsonl",
        (made_up.BASE, *(made_up.row(2.0, window) for window in base)),
        (made_up.extended(4, 9), *(made_up.row(2.1, window) for window in extended)),
    )
    verdict = made_up.words(render(records.read([path]))).split("Not known")[0].replace("\u00a0", " ")
    assert all(sentence in verdict for sentence in told)
    assert 256 in {*base} & {*extended} or "against the base in its own window" not in verdict


def test_one_document_has_no_interval_and_the_verdict_says_so(tmp_path):
    one = [made_up.row(nll, window, documents=1) for nll, window in ((2.1, 256), (2.0, 1024))]
    path = made_up.record_rows(
        tmp_path / "r.jsonl", (made_up.BASE, made_up.row(2.0, documents=1)), (made_up.extended(4, 9), *one)
    )
    page = made_up.words(render(records.read([path]))).replace("\u00a0", " ")
    assert "its perplexity went 7.39 → 8.17, +10.5 % (one document: no interval)." in page
    assert (
        "From 256 to 1024 tokens its perplexity changes by −9.5 % (one document: no interval), which may be chance."
        in page
    )


def test_nothing_of_a_longer_window_is_concluded_from_documents_that_do_not_fill_it(tmp_path):
    rows = [made_up.row(2.0, 256, shorter=2), made_up.row(1.8, 1024, shorter=5)]
    path = made_up.record_rows(
        tmp_path / "r.jsonl", (made_up.BASE, made_up.row(2.1, shorter=2)), (made_up.extended(4, 8), *rows)
    )
    page = made_up.words(render(records.read([path])))
    assert (
        "At the short window of 256 tokens (2 of 5 documents are shorter than 256 tokens) its perplexity went" in page
    )
    assert "; 5 of 5 documents are shorter than 1024 tokens, so of a context that long it tells nothing." in page
    assert (
        "put to use" not in page
        and "it holds to 1024" not in page
        and "against the base in its own window" not in page.split("Small figures")[0]
    )


@pytest.mark.parametrize(
    ("nll", "told"),
    [
        ((1.9, 1.8), ", so context beyond 192 tokens is put to use"),
        ((2.2, 2.0), ", so context beyond 192 tokens is put to use"),  # no worse than the base in its own window
        ((6.0, 5.5), ", but stays above the base's at 256, so nothing was gained by the longer window."),
        ((2.2, 2.1), ", but stays above the base's at 256, so nothing was gained by the longer window."),
    ],
)
def test_a_fall_puts_context_to_use_only_where_it_ends_no_higher_than_the_base(tmp_path, nll, told):
    """A wrecked model of 403, which reads 245 at the longer window, was said to put context to use; the base has 7.39."""
    near, far = nll
    path = made_up.record_rows(
        tmp_path / "r.jsonl",
        (made_up.BASE, made_up.row(2.0)),
        (made_up.extended(4), made_up.row(near), made_up.row(far, 1024)),
    )
    page = made_up.words(render(records.read([path])))
    assert re.search(rf"From 256 to 1024 tokens its perplexity falls(: −[^,]*)?{re.escape(told)}", page)


def test_a_fall_of_a_model_whose_base_was_not_measured_proves_no_use_of_the_longer_context(tmp_path):
    path = made_up.record_rows(tmp_path / "r.jsonl", (made_up.extended(4), made_up.row(6.0), made_up.row(5.5, 1024)))
    page = made_up.words(render(records.read([path])))
    assert "put to use" not in page and "without the base's at 256 on the same text it cannot be told" in page
