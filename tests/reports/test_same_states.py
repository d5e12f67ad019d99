"""One model under two fingerprints is one state on the page; two models are two, whatever they are called."""

from __future__ import annotations

import dataclasses

import pytest

import made_up
from ropewalk import records
from ropewalk.reports.rows import clean


def _states(tmp_path, *others):
    """The page of a base and of what is measured under another fingerprint; of each its rows."""
    (mine, theirs) = (dataclasses.replace(made_up.BASE, fingerprint=each * 16) for each in "ab")
    rows = [(mine, _row(2.0), _row(3.0, 512), records.PasskeySummary(256, 224, 32, 10, 0.9)), (theirs, *others)]
    return clean(records.read([made_up.record_rows(tmp_path / "r.jsonl", *rows)]))


def _row(nll, window=256, texts="0123"):
    return dataclasses.replace(made_up.row(nll, window), texts=texts)


def test_what_is_equal_to_every_digit_is_one_state_and_the_page_says_so(tmp_path):
    page = _states(tmp_path, dataclasses.replace(_row(2.0), seconds=7.0), _row(2.5, 1024))
    assert [v.fingerprint for v in page.variants] == ["a" * 16]
    assert {m.row.window for m in page.of(records.Perplexity)} == {256, 512, 1024}
    (said,) = page.same_states
    assert "(aaaaaa, bbbbbb)" in said and "(1 row," in said


@pytest.mark.parametrize(
    "others",
    [
        [_row(2.0 + 1e-12)],
        [_row(2.0), _row(3.0 + 1e-12, 512)],
        [_row(2.0, texts="4567")],
        [_row(2.0, texts="")],
        [records.PasskeySummary(256, 224, 32, 10, 0.9)],
        [_row(2.0), records.PasskeySummary(256, 192, 32, 10, 0.9)],
    ],
    ids=["a digit", "a digit elsewhere", "other documents", "documents unknown", "no perplexity", "passkeys differ"],
)
def test_what_differs_anywhere_or_shares_no_documents_is_two(tmp_path, others):
    page = _states(tmp_path, *others)
    assert len(page.variants) == 2 and not page.same_states
