"""Spreading independent work over the ranks that torchrun started: the whole of what measuring needs of it.

in   nothing but the environment; one process is rank 0 of 1
out  this rank's number, and every rank's results on all of them
"""

from __future__ import annotations

from typing import Any


def rank() -> int:
    return 0


def size() -> int:
    return 1


def same(value: Any) -> Any:
    """The first rank's value, on every rank."""
    return value


def gathered(mine: dict[int, Any]) -> dict[int, Any]:
    """All ranks' results in one dictionary, on every rank."""
    return mine
