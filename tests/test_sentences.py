"""Counts and lists read as a person writes them."""

from __future__ import annotations

import pytest

from ropewalk.checkpoint import disk_room
from ropewalk.errors import UserError
from ropewalk.sentences import apart, counted, joined, size_in_words, sizes_apart


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 tasks"), (1, "1 task"), (2, "2 tasks"), (1_000, "1,000 tasks")], ids=str
)
def test_one_is_no_plural(number, text):
    assert counted(number, "task", ",") == text


@pytest.mark.parametrize(
    ("words", "text"), [([256], "256"), ([256, 512], "256 and 512"), ([256, 512, 1024], "256, 512 and 1024")], ids=str
)
def test_a_list_has_one_and(words, text):
    assert joined(words) == text


GIB, MIB = 2**30, 2**20


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ((80 * GIB, 50.25 * MIB), ["80.0 GiB", "50.2 MiB"]),
        ((0.53 * GIB, 0.52 * GIB), ["542.7 MiB", "532.5 MiB"]),  # 0.5 GiB both
        ((12.34 * GIB, 12.31 * GIB), ["12.34 GiB", "12.31 GiB"]),
        ((GIB + 1, GIB), ["1.000000001 GiB", "1.000000000 GiB"]),
        ((1.04 * GIB, GIB - 1), ["1.0 GiB", "1024.0 MiB"]),
        ((GIB, GIB), ["1.0 GiB", "1.0 GiB"]),
    ],
)
def test_sizes_that_differ_are_told_so_that_it_is_seen(sizes, words):
    assert sizes_apart(*sizes) == words


def test_numbers_that_differ_are_told_so_that_it_is_seen():
    assert apart(79.24, 79.2, 3.0) == ["79.24", "79.20", "3.00"] and apart(2.0, 1.0) == ["2.0", "1.0"]


def test_a_refusal_for_want_of_a_little_room_shows_it(monkeypatch, tmp_path):
    """It said that 0.5 GiB were needed and 0.5 GiB free."""
    monkeypatch.setattr(disk_room, "free", lambda out: int(0.52 * GIB))
    with pytest.raises(UserError, match=r"takes 542\.7 MiB, and its disk has 532\.5 MiB free"):
        disk_room.refuse_without_room(tmp_path, int(0.53 * GIB))
    assert size_in_words(0.53 * GIB) == "542.7 MiB"
