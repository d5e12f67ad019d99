"""Between the GPU and the host's memory: pinned memory, and copies on streams beside the arithmetic.

in   a device; a GPU, or in tests a CPU, where everything happens in the order in which it is written and there are no streams
out  pinned buffers, streams and events; how fast copies are

What is written beside the arithmetic: the memory that a copy writes to may still be in use by arithmetic that was asked for before, so a stream's
first copy waits for that too.
"""

from __future__ import annotations

import contextlib
import mmap
import time
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def stream(device: torch.device) -> Any:
    """A stream beside the arithmetic's; None on a CPU."""
    return torch.cuda.Stream(device) if device.type == "cuda" else None


def reached(device: torch.device) -> Any:
    """An event: what has been asked of the present stream so far; None on a CPU."""
    return torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None


def wait(device: torch.device, event: Any) -> None:
    """Have the present stream wait for an event."""
    if event is not None:
        torch.cuda.current_stream(device).wait_event(event)


@contextlib.contextmanager
def beside(stream: Any, after: Any) -> Iterator[None]:
    """On a stream, once the event `after` has happened."""
    if stream is None:
        yield
        return
    with torch.cuda.stream(stream):
        stream.wait_event(after)
        yield


def pinned(size: int, device: torch.device) -> Tensor:
    """Bytes of page-locked host memory, all 0. PyTorch's own allocator rounds up to a power of two, which is too dear for gibibytes."""
    locked = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE  # whole pages: none of them may be locked twice
    around = torch.empty(locked + mmap.PAGESIZE, dtype=torch.uint8)
    start = -around.data_ptr() % mmap.PAGESIZE
    buffer = around[start : start + locked].zero_()  # by all threads; locking pages that are not there yet is slow
    if device.type == "cuda" and locked:
        runtime: Any = torch.cuda.cudart()
        torch.cuda.check_error(int(runtime.cudaHostRegister(buffer.data_ptr(), locked, 0)))
        weakref.finalize(buffer.untyped_storage(), _unpin, runtime, buffer.data_ptr())
    return buffer[:size]


def _unpin(runtime: Any, address: int) -> None:
    runtime.cudaHostUnregister(address)


def link_rate(device: torch.device) -> float:
    """Bytes/s between the GPU and pinned host memory, of the slower direction, measured on 256 MiB.

    One way at a time, as in training: results go out in the forward pass and come back in the backward pass.
    """
    size = 2**28
    host, card = pinned(size, device), torch.empty(size, dtype=torch.uint8, device=device)

    def once(target: Tensor, source: Tensor) -> float:
        torch.cuda.synchronize(device)
        begin = time.perf_counter()
        target.copy_(source, non_blocking=True)
        torch.cuda.synchronize(device)
        return time.perf_counter() - begin

    return size / max(min(once(*way) for _ in range(5)) for way in ((host, card), (card, host)))
