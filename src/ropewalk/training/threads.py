"""How many CPU threads to train with: more is not faster where cores are shared.

Every parallel loop ends in a barrier that waits for its slowest thread, and a thread whose core is taken by another process is very
slow: on two cores with a load of fifteen, two threads trained a tiny model 17 times slower than one (docs/log.md). Nobody can know
from the number of cores; a second of trying tells.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

import torch

#: Tokens, inputs and outputs of the product that is timed: a small model's feed-forward layer.
_SHAPE = (2048, 256, 1024)
_TIMES = 20


@contextlib.contextmanager
def settled(asked: int | None, before: int | None, device: torch.device) -> Iterator[int]:
    """While the block runs, torch has the number of threads that it says; afterwards what it had.

    Args:
        asked: the user's number, which holds.
        before: the number a resumed run had. Sums come out in another order with another number, so it keeps its own.
        device: that is trained on; only a CPU is tried out.

    Without any of these, OMP_NUM_THREADS holds if it is set; else the fastest number is found by trying.
    """
    usual = torch.get_num_threads()
    chosen = asked or before
    if chosen is None and device.type == "cpu" and not os.environ.get("OMP_NUM_THREADS"):
        chosen = fastest()
    if chosen is not None:
        torch.set_num_threads(chosen)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(usual)


def fastest() -> int:
    """The number of threads that runs a training-sized product fastest on this machine, now."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    counts = [count for count in (1, 2, 4, 8, 16, 32, 64) if count < cores] + [cores]
    return min(counts, key=_seconds)


def _seconds(threads: int) -> float:
    """Of all repetitions together: the rare slow ones are what a shared core does to a training step."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    tokens, inputs, outputs = _SHAPE
    a, b = torch.ones(tokens, inputs), torch.ones(inputs, outputs)
    for _ in range(2):
        torch.nn.functional.silu(a @ b)
    begin = time.perf_counter()
    for _ in range(_TIMES):
        torch.nn.functional.silu(a @ b)
    passed = time.perf_counter() - begin
    torch.set_num_threads(before)
    return passed
