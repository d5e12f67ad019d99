"""How many CPU threads to train with: more is not faster where cores are shared, and another number is another sum.

Every parallel loop ends in a barrier that waits for its slowest thread, and a thread whose core is taken by another process is very
slow: on two cores with a load of fifteen, two threads trained a tiny model 17 times slower than one (docs/log.md). Nobody can know
from the number of cores; a second of trying tells. But sums come out in another order with another number of threads, and so do the
weights in their last bits: what was found is kept for this machine, so that the same command does the same the next time.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from ropewalk.checkpoint.cache import cache_directory
from ropewalk.errors import read_text

_logger = logging.getLogger(__name__)
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

    Without any of these, OMP_NUM_THREADS holds if it is set; else the number that was fastest when this machine was first tried.
    """
    usual = torch.get_num_threads()
    chosen = asked or before
    if chosen is None and device.type == "cpu" and not os.environ.get("OMP_NUM_THREADS"):
        counts = _counts()
        chosen = int(kept("CPU threads", list(map(str, counts)), lambda: str(min(counts, key=_seconds))))
    if chosen is not None:
        torch.set_num_threads(chosen)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(usual)


def kept(question: str, choices: Sequence[str], find: Callable[[], str]) -> str:
    """What `find` found when it was first asked on this machine, or another of its processor and cores; and that is said.

    Args:
        question: what is chosen, in words.
        choices: all that can be found; the last where nothing can be kept, since finding out is no way to do the same twice.
        find: times them, and names one.
    """
    machine = hashlib.sha256(f"{_processor()} {_counts()[-1]}".encode()).hexdigest()[:16]
    place = cache_directory() / "fastest" / f"{question.replace(' ', '-')}-{machine}"
    fastest = _read(place, choices)
    if fastest is None:
        _keep(place, choices, find)
        fastest = _read(place, choices)
    if fastest is None:
        _logger.info(f"{question}: {choices[-1]}, since what is fastest cannot be kept in {place.parent}")
        return choices[-1]
    _logger.info(
        f"{question}: {fastest}, the fastest when this machine was first tried (kept in {place}; without it that is tried again)"
    )
    return fastest


def _read(place: Path, choices: Sequence[str]) -> str | None:
    try:
        choice = read_text(place)
    except (OSError, ValueError):
        return None
    return choice if choice in choices else None


def _keep(place: Path, choices: Sequence[str], find: Callable[[], str]) -> None:
    """Whole, and the first of several processes decides; a file that says nothing sensible is replaced."""
    beside = place.with_name(f"{place.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text("", encoding="ascii")  # nothing is timed where nothing can be kept
        beside.write_text(find(), encoding="ascii")
        if place.exists() and _read(place, choices) is None:
            os.replace(beside, place)
        else:
            os.link(beside, place)  # fails if there is one
    with contextlib.suppress(OSError):
        beside.unlink()


def _processor() -> str:
    """The processor's name; its architecture where the system does not tell."""
    try:
        processor = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except (OSError, ValueError):
        processor = None
    return processor[1] if processor else f"{platform.machine()} {platform.processor()}"


def _counts() -> list[int]:
    """Numbers of threads that are tried, ascending; the last is the number of cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return [count for count in (1, 2, 4, 8, 16, 32, 64) if count < cores] + [cores]


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
