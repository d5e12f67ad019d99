"""Texts by which methods were trained and tested: one name for several, several for one. Rows are made up."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import pytest

import made_up
from grid_pages import page_of, table, trained
from ropewalk import records
from ropewalk.reports import report
from ropewalk.reports.rows import clean

LAB = Path(__file__).resolve().parents[2] / "lab/records/a/hemp"
LABEL = re.compile(r"\\label\{tab:[A-Za-z0-9.-]*tables-([0-9a-f]{6})-")


def _on(text: str, shift: float):
    """PI and YaRN, trained on a text: YaRN is ahead by 0.1 nats."""
    return [
        trained(method, f"{method}-{text}", nll + shift, data=text) for method, nll in (("linear", 2.2), ("yarn", 2.1))
    ]


def test_methods_are_compared_among_those_of_one_training_text(tmp_path):
    """Two methods by two texts were four methods, none of which won."""
    page = page_of(tmp_path / "r.jsonl", *_on("a/books", 0.0), *_on("b/code", 0.05))
    said = made_up.words(page)
    assert "Of 2 methods at 1024 tokens of held-out after 1M training tokens of a/books, YaRN ×4 wins" in said
    assert "With 1M training tokens of b/code: YaRN ×4 wins by perplexity at 1024 tokens." in said
    assert "States were trained on different texts (a/books, b/code)" in said
    assert len(re.findall(r"<caption>Against the winner, YaRN ×4", page)) == 1
    for text in ("a/books", "b/code"):
        assert len(table(page, f"1M training tokens of {text}")) == 2


def test_rows_of_two_machines_whose_texts_have_one_name_never_meet(tmp_path, caplog):
    """The base of the one was dropped for that of the other, and damage was computed across texts."""
    path, digests = tmp_path / "r.jsonl", {}
    for machine, level in (("first", 2.0), ("second", 3.0)):
        digests = {"model": "m", "test": f"{machine} test", "data": f"{machine} data"}
        named = {"test": "data/b.jsonl", "data": "data/a.jsonl", "digests": digests}
        base = (
            dataclasses.replace(made_up.BASE, name="hemp/none"),
            {"row": {"name": "hemp/none", "method": "none", **named}},
        )
        for state, settings, rows in (
            (*base, [made_up.row(level)]),
            trained("linear", f"pi-{machine}", level + 0.2, seed=len(machine), **named),
            trained("yarn", f"yarn-{machine}", level + 0.1, seed=len(machine), **named),
        ):
            recorder = records.Recorder(
                path, made_up.run(state, f"ropewalk ablate {state.name} {machine}", settings=settings)
            )
            for row in rows:
                recorder.add(dataclasses.replace(row, data="data/b.jsonl"))
    page = report([path], tmp_path / "page.html").read_text()
    for letter, level in (("A", 2.0), ("B", 3.0)):
        lines = table(page, rf"Perplexity, data/b.jsonl\[{letter}\]")
        assert lines["base"][0].startswith(f"{math.exp(level):.2f}")
        nats = [cells[1] for label, cells in table(page, rf"1M training tokens; data/b.jsonl\[{letter}\]").items()]
        assert nats == ["+0.200 +0.200 to +0.200", "+0.100 +0.100 to +0.100"]
    warned = "different texts are called data/b.jsonl (data/b.jsonl[A], data/b.jsonl[B])"
    assert warned in made_up.words(page) and warned in caplog.text and "digest first" not in page


def test_a_text_that_has_two_names_is_one_text(tmp_path):
    """The rows of two grids of one user, whose paths were relative and then absolute, and of a training that named its data a third way."""
    path, digests = tmp_path / "r.jsonl", {"model": "m", "test": "tttt", "data": "dddd"}
    for place, methods in (("x/", ["linear"]), ("", ["yarn", "ntk"])):
        named = {"test": f"{place}test", "data": f"{place}train", "digests": digests}
        for shift, method in enumerate(methods):
            state, settings, rows = trained(method, f"{method}-s0", 2.2 - shift / 10, **named)
            recorder = records.Recorder(path, made_up.run(state, f"ropewalk ablate {place}", settings=settings))
            for row in rows:
                recorder.add(dataclasses.replace(row, data=f"{place}test"))
    base = {"row": {"name": "hemp/none", "method": "none", "test": "test", "digests": {"test": "tttt"}}}
    recorder = records.Recorder(
        path, made_up.run(dataclasses.replace(made_up.BASE, name="hemp/none"), "x", settings=base)
    )
    recorder.add(made_up.row(2.0, data="test"))
    state = made_up.extended(4, 20, "linear", name="runs/long")
    settings = {"out": "runs/long", "learning_rate": 1e-4, "batch_size": 1, "data": ["/home/me/x/train/"], "digests": {"data": "dddd"}}  # fmt: skip
    made_up.steps(records.Recorder(path, made_up.run(state, "ropewalk train", settings=settings)), 20)
    page = report([path], tmp_path / "page.html").read_text()
    words = made_up.words(page)
    assert "not all states were measured" not in words.lower() and "different texts" not in words and "[A]" not in page
    assert "Of 3 methods at 1024 tokens of test" in words
    assert page.count("<caption>Perplexity, test, ") == 1 and "x/test" not in words and "x/train" not in words


@pytest.mark.parametrize(
    "one, two, names",
    [
        (["r12"], ["r12"], {"books"}),  # the same documents were read
        (["r1", "r12"], ["r1"], {"books", "my/books"}),  # of a directory, and of one file that lies in it
        (["r12"], ["r8"], {"books", "my/books"}),
    ],
)
def test_texts_without_digests_are_one_if_the_same_was_read(tmp_path, one, two, names):
    path = tmp_path / "r.jsonl"
    for name, readings in (("my/books", one), ("books", two)):
        for window, reading in zip((256, 1024), readings, strict=False):
            row = dataclasses.replace(made_up.row(2.0, window, data=name), texts=reading)
            made_up.record_rows(path, (made_up.extended(name=name), row))
    assert {m.row.data for m in clean(records.read([path])).measurements} == names
