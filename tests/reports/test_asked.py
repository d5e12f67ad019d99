"""An interrupted measurement is neither on record as a whole nor missing. All rows are made up."""

from __future__ import annotations

import dataclasses

import pytest

import made_up
from grid_pages import page_of, trained
from ropewalk import records
from ropewalk.errors import UserError
from ropewalk.reports import render

STATE = made_up.extended()
SCORE = records.DocumentScore("k", "d", 1024, 64, 1000, 2000.0)
SCORED = records.DocumentScore("j", "d", 256, 64, 1000, 2000.0)
GAIN = records.DocumentGain("k", "d", [[1.0], [1.0], [1.0], [0.0], [0.0]])
SUMMARY = records.DocumentSummary("k", "d", "greedy", "text", 1, True, 0.5, 0.5, 0.5, 0.5)
ITEM = records.LongItem("k", "vt", 512, 0, 1.0, "A", ["A"], "t")
TASK = records.LongTask(512, "vt", "ruler", 1, 1.0, 0.0, 1.0, [1.0])
LENGTH = {"window": 512, "score": 1.0, "low": 0.0, "high": 1.0, "change": 0.0, "change_low": 0.0, "change_high": 0.0}
EFFECTIVE = records.EffectiveLength(["vt"], [LENGTH], 0.856, 512, 0, 512, 512, 512)


def page(tmp_path, *rows):
    return made_up.words(render(records.read([made_up.record_rows(tmp_path / "r.jsonl", (STATE, *rows))])))


@pytest.mark.parametrize(
    ("rows", "begun"),
    [
        ([SCORED, SCORE], "perplexity of"),  # one window is done, another is not
        ([GAIN], "context gain of"),
        ([SUMMARY], "summaries of"),
        ([ITEM], "RULER of"),
        ([ITEM, TASK], "RULER of"),
    ],
    ids=["perplexity", "gain", "summaries", "no task", "no effective length"],
)
def test_what_was_interrupted_is_begun_and_not_missing(rows, begun, tmp_path):
    text = page(tmp_path, made_up.row(2.0, 256), *rows)
    missing = text.partition("Not on record: ")[2].partition(".")[0].partition("; of the base")[0]
    assert f"Begun and not ended: {begun}" in text
    assert begun.removesuffix(" of") not in missing


def test_what_was_ended_is_not_begun(tmp_path):
    assert "Begun and not ended" not in page(tmp_path, made_up.row(2.0, 256), SCORED, ITEM, TASK, EFFECTIVE)


def test_a_record_of_parts_alone_is_refused_as_such(tmp_path):
    with pytest.raises(UserError, match="interrupted; the same command with the same --out goes on"):
        page(tmp_path, ITEM)


def test_what_the_base_alone_was_not_asked_is_said(tmp_path):
    rows = [made_up.row(2.0, 256), records.PasskeySummary(1024, 1024, 32, 10, 1.0)]
    path = made_up.record_rows(tmp_path / "base.jsonl", (made_up.BASE, rows[0]), (STATE, *rows))
    assert "; of the base: passkeys." in made_up.words(render(records.read([path])))
    path = made_up.record_rows(tmp_path / "both.jsonl", (made_up.BASE, *rows), (STATE, *rows))
    assert "of the base: " not in made_up.words(render(records.read([path])))


def test_of_several_bases_each_is_named_with_what_is_not_known_of_it(tmp_path):
    """ "of the base: perplexity" was a union over two models, and a list of methods had each name twice."""
    states = []
    for name, family in (("hemp", "llama"), ("fern", "other")):
        for method, nll, seeds in (("linear", 2.2, 1), ("yarn", 2.1, 2)):
            for seed in range(seeds):
                state, _, rows = trained(method, f"{method}-{seed}", nll)
                own = {"name": f"{name}/{method}-{seed}", "method": method, "tokens": 2**20, "seed": seed, "data": "books"}  # fmt: skip
                states.append((dataclasses.replace(state, name=own["name"], family=family), {"row": own}, rows))
    text = made_up.words(page_of(tmp_path / "r.jsonl", *states))
    unknown = text.split("Not known")[1].split("Words")[0]
    for name in ("hemp", "fern"):
        assert f"PI ×4 of {name} was trained with one seed" in unknown
        assert f"Of {name}: no control is on record" in unknown
    assert "; of the base fern: perplexity." in unknown and "of the base hemp" not in unknown
