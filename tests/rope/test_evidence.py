"""What is said of a method before it is chosen; tests/docs/test_lab.py holds the figures against the lab's records."""

from __future__ import annotations

from ropewalk.rope.evidence import evidence, passkeys


def test_a_method_is_spoken_of_where_it_was_measured() -> None:
    assert "untrained +0.10 nats in the old window, 79\u202f% of passkeys in the new one" in evidence("yarn")
    assert "after 5M training tokens" in evidence("linear") and "0\u202f% of passkeys" in evidence("linear")
    assert evidence("factors") == ""


def test_shares_are_rounded_as_the_lab_rounds_them_and_a_range_of_seeds_is_called_one() -> None:
    """66 of 80 is 82.5 %, which a format string would make 82."""
    assert "83\u202f% of passkeys" in evidence("yarn")
    figures = {"passkeys": 0.1667, "seeds": 3, "least": 0.0125, "most": 0.4625}
    assert passkeys(figures) == "17\u202f% (3 seeds, by seed from 1\u202f% to 46\u202f%)"
