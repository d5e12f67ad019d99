"""Windows are compared over the same tokens, and what training added over what the extension did."""

from __future__ import annotations

import dataclasses

import pytest

import made_up
from ropewalk import records
from ropewalk.reports import render, report
from ropewalk.reports.paired import ratio


def _cut(nll: float, window: int, tokens: int, documents: int = 3) -> records.Perplexity:
    """A row of texts of which only so many tokens were scored."""
    row = made_up.row(nll, window, documents=documents, tokens=tokens, texts="same")
    each = [
        one | {"text": f"t{i}", "nll": one["nll"] * (1 + (i - (documents - 1) / 2) / 50)}
        for i, one in enumerate(row.per_document)
    ]
    return dataclasses.replace(row, per_document=each)


@pytest.mark.parametrize("tokens", [255, 1023])
def test_windows_compare_over_the_same_tokens_alone(tmp_path, caplog, tokens):
    """Of one text cut to 256 tokens and to 1024 the difference is the text's: nothing is said of it, neither between models nor of one."""
    rows = [_cut(2.0, 1024, 1023), _cut(2.05, 256, tokens)]
    path = made_up.record_rows(
        tmp_path / "r.jsonl",
        (made_up.BASE, _cut(2.1, 256, tokens)),
        (made_up.extended(4), _cut(2.1, 1024, 1023)),
        (made_up.extended(4, 9), *rows),
    )
    page = made_up.words(report([path], tmp_path / "p.html").read_text())
    same = tokens == 1023
    assert ("measure all with the same --max-tokens" in page) is ("--max-tokens" in caplog.text) is (not same)
    assert ("against the base in its own window" in page.partition("Perplexity is of")[0]) is same
    assert ("From 256 to 1024 tokens its perplexity" in page) is same
    assert (
        "At the short window of 256 tokens its perplexity went 8.17 → 7.77" in page
    )  # over the same tokens in any case
    assert "at 1024 tokens, against itself before training, better" in page
    assert "at 256 tokens, against the base, better" in page


def test_windows_that_leave_out_the_first_token_of_each_are_of_the_same_tokens():
    """101 tokens: 100 are scored, or 99 in two windows of 64 one behind the other."""
    whole, disjoint, less = _cut(2.0, 256, 100), _cut(2.1, 64, 99), _cut(2.1, 64, 98)
    disjoint, less = (dataclasses.replace(row, stride=64) for row in (disjoint, less))
    assert ratio(whole, disjoint).documents == 3
    assert ratio(whole, less) is None


def test_estimates_of_texts_that_were_cut_elsewhere_are_not_compared(tmp_path):
    """Their documents are not on record one by one: the headers say where they were cut, and old ones do not."""
    for settings, said in (({"max_tokens": 64}, True), ({}, False)):
        path = tmp_path / f"{said}.jsonl"
        estimate = made_up.row(2.0, estimate=True, per_document=[])
        made_up.record_rows(path, (made_up.BASE, estimate), settings={"max_tokens": 256})
        made_up.record_rows(path, (made_up.extended(4, 9), estimate), settings=settings)
        assert ("not the same tokens were scored" in made_up.words(render(records.read([path])))) is said


@pytest.mark.parametrize(
    "documents, after, told",
    [
        (1, 1.5, "too little was measured to tell (an answer takes 3 documents at least)"),
        (3, 2.3, "worse"),
        (3, 1.9, "better"),
    ],
)
def test_a_person_who_trained_a_little_is_told_whether_it_helped(tmp_path, documents, after, told):
    path = made_up.record_rows(
        tmp_path / "r.jsonl",
        (made_up.extended(4), _cut(2.0, 1024, 1023, documents)),
        (made_up.extended(4, 9), _cut(after, 1024, 1023, documents)),
    )
    page = made_up.words(render(records.read([path])))
    assert f"In short, did training help? By perplexity, at 1024 tokens, against itself before training, {told}" in page
    assert "at 256 tokens, against the base, it cannot be told: measure the same of both" in page


def test_what_the_extension_did_is_not_said_to_be_the_trainings(tmp_path):
    path = made_up.record_rows(
        tmp_path / "r.jsonl",
        (made_up.BASE, _cut(60.0, 1024, 1023, 3)),
        (made_up.extended(4, 9), _cut(1.9, 1024, 1023, 3)),
    )
    page = made_up.words(render(records.read([path])))
    assert "at 1024 tokens, extended and trained, against the base, extrapolating, better" in page
    assert "what training added to that is not known: measure the model extended and not trained" in page
