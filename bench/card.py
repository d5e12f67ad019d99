"""A card with less memory than this machine's: what a process may take of it, and what the card says that it has.

Arithmetic and bandwidths stay those of the card that is there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from unittest import mock

import torch

from ropewalk.planner.memory import CONTEXT


@contextlib.contextmanager
def card_of(memory: int) -> Iterator[None]:
    """As if the card had `memory` bytes in all, of which the driver and the libraries take their part."""

    def info(device: object = None) -> tuple[int, int]:
        return max(0, int(memory - CONTEXT) - torch.cuda.memory_reserved()), memory

    _, whole = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction((memory - CONTEXT) / whole)
    try:
        with mock.patch.object(torch.cuda, "mem_get_info", info):
            yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
