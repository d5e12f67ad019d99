"""How a figure is written."""

from __future__ import annotations

import math

import pytest

from ropewalk import numerals


@pytest.mark.parametrize(
    ("write_it", "value", "text"),
    [
        (numerals.perplexity, 9.8149, "9.81"),
        (numerals.perplexity, 173.94, "173.9"),
        (numerals.perplexity, 1234.5, "1234"),
        (numerals.perplexity, 3.2e7, "3.2 × 10⁷"),
        (numerals.perplexity, math.inf, "–"),
        (numerals.perplexity, None, "–"),
        (numerals.percent, 0.0142, "+1.4\u202f%"),
        (numerals.percent, -0.05, "−5.0\u202f%"),
        (numerals.percent, math.nan, "–"),
        (numerals.times, 14.2, "14×"),
        (numerals.large, 1_638_400, "1.64 M"),
        (numerals.duration, 7300, "2.0 h"),
        (numerals.memory, 0, "–"),
    ],
)
def test_figures_have_the_digits_that_say_something(write_it, value, text):
    assert write_it(value) == text
