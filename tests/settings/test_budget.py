"""What there is of memory, within what the process may take of it."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import psutil
import pytest
import torch

from ropewalk.model import devices
from ropewalk.settings import budget

LEFT = 2**30


@pytest.fixture
def limited() -> Iterator[None]:
    """As under `ulimit -v`, with a GiB of addresses left."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + LEFT, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def test_a_limit_of_addresses_is_what_there_is(limited: None) -> None:
    for size in (budget.free_memory(), devices.free_bytes(torch.device("cpu"))):
        assert 0 < size <= LEFT
    assert 0 < budget.host_room() <= budget.HOST_SHARE * LEFT


def test_what_may_be_held_under_a_limit_counts_what_is_held_and_not_what_is_never_filled(limited: None) -> None:
    held, limit = psutil.Process().memory_info(), resource.getrlimit(resource.RLIMIT_AS)[0]
    assert budget.memory_here() == pytest.approx(limit - max(budget.UNFILLED_ADDRESSES, held.vms - held.rss), rel=0.02)
    assert 0 < budget.memory_to_hold() <= budget.memory_here() + 2**24 <= LEFT + held.rss + 2**25


def test_a_limit_that_is_not_there_leaves_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert budget.memory_here() == psutil.virtual_memory().total
