"""Sliding windows: every token once, never with less context than promised."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.data.sliding import sliding
from ropewalk.errors import UserError


def test_the_worked_example_of_the_docstring_holds():
    assert sliding(11, window=6, stride=2) == [(0, 6, 1), (2, 8, 6), (4, 10, 8), (6, 11, 10)]


def test_windows_match_the_loop_of_the_transformers_guide():
    """Oracle: begin/end/target-length bookkeeping as the "perplexity of fixed-length models" guide describes it."""
    length, window, stride = 1003, 64, 24
    expected, previous_end = [], 0
    for begin in range(0, length, stride):
        end = min(begin + window, length)
        expected.append((begin, end, max(end - (end - previous_end), 1)))
        previous_end = end
        if end == length:
            break
    assert sliding(length, window, stride) == expected


@st.composite
def cases(draw):
    window = draw(st.integers(2, 60))
    return draw(st.integers(0, 400)), window, draw(st.integers(1, window - 1))


@given(cases())
def test_every_token_but_the_first_is_scored_once(case):
    length, window, stride = case
    scored = [token for w in sliding(length, window, stride) for token in range(w.first_scored, w.stop)]
    assert scored == list(range(1, length))


@given(cases(), st.integers(0, 8))
def test_what_stands_in_front_of_a_text_is_seen_and_never_scored(case, prefix):
    length, window, stride = case
    windows = sliding(length, window, stride, prefix)
    scored = [token for w in windows for token in range(w.first_scored, w.stop)]
    assert scored == list(range(max(1, prefix), length)) and all(w.scored > 0 for w in windows)
    if prefix < 2:
        assert windows == sliding(length, window, stride)


@given(cases())
def test_a_scored_token_past_the_first_window_has_the_promised_context(case):
    length, window, stride = case
    for w in sliding(length, window, stride)[1:]:
        assert w.first_scored - w.start == window - stride
        assert w.length <= window and w.scored <= stride


def test_a_stride_of_the_whole_window_gives_disjoint_windows_whose_first_tokens_are_not_scored():
    assert sliding(20, 8, 8) == [(0, 8, 1), (8, 16, 9), (16, 20, 17)]
    assert sliding(17, 8, 8) == [(0, 8, 1), (8, 16, 9)]


@pytest.mark.parametrize("stride", [0, -1, 9])
def test_a_stride_outside_the_window_is_refused_with_its_value(stride):
    with pytest.raises(UserError, match=rf"between 1 and the window \(8 tokens\), got {stride}"):
        sliding(100, 8, stride)


def test_a_window_of_one_token_is_refused():
    with pytest.raises(UserError, match="at least 2 tokens"):
        sliding(100, 1, 1)
