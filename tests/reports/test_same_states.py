"""One model under two fingerprints is one state on the page; two models are two, whatever they are called."""

from __future__ import annotations

import dataclasses

import pytest

import made_up
from grid_pages import recorded
from ropewalk import records
from ropewalk.records.variant import labels
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


def test_the_controls_of_several_factors_are_one_of_as_many_seeds(tmp_path):
    """Trained at the old window, whatever the factor of their rows: of one seed the same weights on a CPU, and on a GPU others by rounding."""

    def control(factor: int, seed: int, weights: str, **differs):
        row = {"name": f"hemp/control-x{factor}-1M-1e-4-s{seed}", "method": "control", "factor": float(factor), "tokens": 2**20, "seed": seed, "data": "books"} | differs  # fmt: skip
        state = dataclasses.replace(made_up.BASE, name=row["name"], steps=20, fingerprint=weights * 16)
        return state, {"row": row}, [made_up.row(2.0 + seed / 10, window) for window in (256, 256 * factor)]

    def page(*states):
        return clean(recorded(tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl", *states))

    one = page(control(2, 0, "a"), control(2, 1, "b"), control(4, 0, "a"), control(4, 1, "c"))
    assert [v.label for v in one.variants if v.steps] == ["control, 20 steps"] * 2
    (label,) = {name for v, name in labels(one.variants).items() if v.steps}
    assert label == "control, 20 steps, 2 seeds"
    assert one.same_states == [
        "hemp/control-x4-1M-1e-4-s1 is taken for hemp/control-x2-1M-1e-4-s1: the same training of the same seed, though rounding left other weights."
    ]
    two = page(control(2, 0, "a"), control(4, 0, "b", data="mathematics"))
    assert len([v for v in two.variants if v.steps]) == 2 and not two.same_states
