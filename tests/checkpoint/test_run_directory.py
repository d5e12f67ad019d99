"""The directory of a run: the one that is replaced stays until the new one is finished, and a refused one leaves nothing."""

from __future__ import annotations

import os

import pytest

from directories import HOLDS, SIGNS, tree
from ropewalk.checkpoint.marks import MARK
from ropewalk.checkpoint.run_directory import run_directory
from ropewalk.errors import UserError


def run(out, *, fails=False, **options):
    """A run that writes one row; its number is what it has written so far."""
    with run_directory(out, holds=HOLDS, signs=SIGNS, **options) as work:
        with open(work / "records.jsonl", "a") as file:
            file.write(f"{options}\n")
        if fails:
            raise KeyboardInterrupt
        return work


def test_the_run_that_is_replaced_stays_until_the_new_one_is_finished(tmp_path):
    out = tmp_path / "out"
    assert run(out) == out
    first = tree(out)
    with pytest.raises(KeyboardInterrupt):
        run(out, overwrite=True, fails=True)
    assert tree(out) == first and sorted(os.listdir(tmp_path)) == [".out.new", "out"]
    with pytest.raises(
        UserError, match=r"\.out\.new holds a run that is to replace .* train --resume goes on with that one"
    ):
        run(out)
    assert run(out, go_on=True) == tmp_path / ".out.new"
    assert os.listdir(tmp_path) == ["out"] and sorted(os.listdir(out)) == [MARK, "records.jsonl"]
    assert (out / "records.jsonl").read_text().count("\n") == 2, "it went on with what was begun"
    with pytest.raises(KeyboardInterrupt):
        run(out, overwrite=True, fails=True)
    run(out, overwrite=True)
    assert (out / "records.jsonl").read_text().count("\n") == 1, "it began anew"


def test_a_finished_run_is_kept_where_its_place_was_taken_by_something_else(tmp_path):
    out = tmp_path / "out"
    run(out)
    with pytest.raises(UserError, match=r"is finished and lies in .*\.out\.new, but ropewalk did not make .*thesis"):
        with run_directory(out, holds=HOLDS, signs=SIGNS, overwrite=True) as work:
            (work / "records.jsonl").write_text("new")
            (out / "thesis").write_text("mine")
    assert (out / "thesis").read_text() == "mine" and (tmp_path / ".out.new/records.jsonl").read_text() == "new"


def test_a_run_that_is_refused_leaves_nothing(tmp_path):
    for options in ({}, {"go_on": True}):
        with pytest.raises(UserError), run_directory(tmp_path / "out", holds=HOLDS, signs=SIGNS, **options):
            raise UserError("no such data")
    assert os.listdir(tmp_path) == []
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError), run_directory(tmp_path / "mine", holds=HOLDS, signs=SIGNS):
        raise UserError("no such data")
    assert os.listdir(tmp_path) == ["mine"]
