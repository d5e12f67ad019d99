"""How a figure is written."""

from __future__ import annotations

import math

import pytest

from ropewalk.records import format as number_format


@pytest.mark.parametrize(
    ("write_it", "value", "text"),
    [
        (number_format.perplexity, 9.8149, "9.81"),
        (number_format.perplexity, 173.94, "173.9"),
        (number_format.perplexity, 1234.5, "1234"),
        (number_format.perplexity, 3.2e7, "3.2 × 10⁷"),
        (number_format.perplexity, math.inf, "–"),
        (number_format.perplexity, None, "–"),
        (number_format.percent, 0.0142, "+1.4\u202f%"),
        (number_format.percent, -0.05, "−5.0\u202f%"),
        (number_format.percent, math.nan, "–"),
        (number_format.times, 14.2, "14×"),
        (number_format.large, 1_638_400, "1.64 M"),
        (number_format.duration, 7300, "2.0 h"),
        (number_format.duration, 700 * 86400, "700.0 days"),
        (number_format.duration, 2836 * 86400, "7.8 years"),
        (number_format.memory, 0, "–"),
    ],
)
def test_figures_have_the_digits_that_say_something(write_it, value, text):
    assert write_it(value) == text
