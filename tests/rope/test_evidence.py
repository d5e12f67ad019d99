"""What is said of a method before it is chosen; tests/docs/test_lab.py holds the figures against the lab's records."""

from __future__ import annotations

from ropewalk.rope.evidence import evidence


def test_a_method_is_spoken_of_where_it_was_measured() -> None:
    assert "untrained +0.10 nats in the old window, 79% of passkeys in the new one" in evidence("yarn")
    assert "after 5M training tokens" in evidence("linear") and "0% of passkeys" in evidence("linear")
    assert evidence("factors") == ""
