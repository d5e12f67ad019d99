"""What other programs raise becomes one line that holds the cause."""

from __future__ import annotations

import pytest

from ropewalk.errors import first_sentence, reason


def raised(text: str, cause: Exception | None = None) -> Exception:
    error = ValueError(text)
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (raised("No such thing. Try another."), "No such thing"),
        (raised("\n  first line\nsecond line"), "first line"),
        (raised("Validation error for 'a':\n    ValueError: it is 7.\n  more"), "Validation error for 'a': ValueError: it is 7"),
        (raised("one:\n\n two:\n three"), "one: two: three"),
        (raised("it failed:", KeyError("vocab")), "it failed: 'vocab'"),
        (raised("it failed:"), "it failed:"),
        (raised("red \x1b[31m and\ttab"), r"red \x1b[31m and\ttab"),
        (raised("x" * 400), "x" * 300 + "…"),
        (raised(""), ""),
    ],
)  # fmt: skip
def test_the_first_sentence_ends_at_the_cause_and_not_at_a_colon(error: Exception, sentence: str) -> None:
    assert first_sentence(error) == sentence


def test_the_name_of_the_exception_is_said_where_its_text_is_a_word() -> None:
    assert reason(KeyError("vocab")) == "KeyError: 'vocab'"
    assert reason(raised("it failed:\n it is 7.")) == "it failed: it is 7"
