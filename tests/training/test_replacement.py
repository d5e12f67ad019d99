"""A run that was to replace another and was killed: both are named, with the commands that take the one or the other, and these work."""

import logging
import shlex
import subprocess

import pytest

from ropewalk import extend, testing
from ropewalk.checkpoint.processes import locked
from ropewalk.errors import UserError
from short_run import WINDOW, go, killed, steps


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return testing.tiny_directory(tmp_path_factory.mktemp("base") / "tiny", window=64)


@pytest.fixture
def two(base, tmp_path, monkeypatch):
    """Four of six steps of two windows, three of them saved; beside them two of one window, the first of them saved."""
    out = tmp_path / "a b"
    with killed(monkeypatch, 4):
        go(base, out, batch_size=2, save_every=3)
    with killed(monkeypatch, 2):
        go(base, out, batch_size=1, save_every=1, overwrite=True, yes=True)
    return out, tmp_path / ".a b.new"


OLD, NEW = "4 of 6 steps done, the first 3 of them saved", "2 of 6 steps done, the first 1 of them saved"


def test_both_are_named_wherever_the_place_is_looked_at(base, two, tmp_path):
    out, new = two
    before = sorted(tmp_path.rglob("*"))
    back = f"`rm -r {shlex.quote(str(new))}` returns to what {out} holds ({OLD})"
    for ask in (lambda: go(base, out, batch_size=2), lambda: extend(out, out=tmp_path / "o", window=256)):
        with pytest.raises(UserError) as error:
            ask()
        assert f"{new} holds a run that is to replace {out} ({NEW}); train --resume goes on with" in str(error.value)
        assert back in str(error.value)
    with pytest.raises(
        UserError, match="1 checkpoint of the run in .*a b, to step 3, and 1 checkpoint .*new, to step 1;"
    ):
        go(base, out, batch_size=1, overwrite=True)
    with pytest.raises(UserError, match="would delete 1 checkpoint of the run in .*a b, to step 3; add --yes"):
        extend(base, out=out, window=256, overwrite=True)  # deletes no replacement
    with locked(new), pytest.raises(UserError) as error:
        extend(out, out=tmp_path / "o", window=256)
    assert NEW in str(error.value) and "rm -r" not in str(error.value)
    assert sorted(path for path in tmp_path.rglob("*") if path.name != ".ropewalk.lock") == [
        path for path in before if path.name != ".ropewalk.lock"
    ]


def test_a_resumed_run_says_which_of_the_two_it_is_and_the_other_is_had_by_what_is_advised(base, two, caplog):
    caplog.set_level(logging.INFO, "ropewalk")
    out, new = two
    with pytest.raises(UserError, match="was made with batch-size 1"):
        go(base, out, batch_size=2, save_every=3, resume=True)
    assert f"({NEW}); this goes on with that one" in caplog.text
    advised = caplog.text.split("`")[1]
    subprocess.run(advised, shell=True, check=True)
    assert not new.exists()
    caplog.clear()
    go(base, out, batch_size=2, save_every=3, resume=True)
    assert "step-000003, step 3" in caplog.text and "is to replace" not in caplog.text
    assert (steps(out)[-1].step, steps(out)[-1].tokens) == (6, 2 * WINDOW)


def test_the_replacement_is_gone_on_with_or_begun_anew(base, two, caplog):
    caplog.set_level(logging.INFO, "ropewalk")
    out, new = two
    go(base, out, batch_size=1, save_every=1, resume=True)
    assert (
        "step-000001, step 1" in caplog.text
        and not new.exists()
        and (steps(out)[-1].step, steps(out)[-1].tokens) == (6, WINDOW)
    )
    new.mkdir()  # not marked: nothing was begun
    with pytest.raises(UserError, match="does not overwrite the finished run"):
        go(base, out, batch_size=1)


def test_a_finished_run_beside_its_replacement_is_told_as_that(base, tmp_path, monkeypatch):
    out = tmp_path / "out"
    go(base, out)
    with killed(monkeypatch, 2):
        go(base, out, overwrite=True, yes=True)
    with pytest.raises(
        UserError, match=r"out \(2 of 6 steps done, none of them saved\); .*out holds \(finished, 6 steps\)"
    ):
        go(base, out)
    go(base, out, overwrite=True, yes=True)
    assert not (tmp_path / ".out.new").exists() and len(steps(out)) == 6
