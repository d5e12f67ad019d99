"""Counts and lists read as a person writes them."""

from __future__ import annotations

import pytest

from ropewalk.sentences import counted, joined


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
