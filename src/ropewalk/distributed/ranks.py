"""Spreading independent work over the processes that torchrun started: the whole of what measuring needs of it.

in   nothing but the environment; one process alone is rank 0 of 1
out  this rank's number, and every rank's results on all of them

Documents and prompts are independent, so ranks talk twice: about the run's header, and about their results; those of an estimate after
every batch, since all together decide whether it is enough. Small Python objects, over gloo, whatever the devices are.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import torch
import torch.distributed as dist


@functools.cache
def _group() -> Any:
    """A gloo group of all ranks, or None where there is one process; binds the process to its own GPU."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if dist.is_initialized():
        return dist.new_group(backend="gloo")
    dist.init_process_group("gloo")
    return dist.group.WORLD


def rank() -> int:
    """This process's number; 0 is the one that prints."""
    return 0 if _group() is None else dist.get_rank()


def size() -> int:
    """How many processes share the work."""
    return 1 if _group() is None else dist.get_world_size()


def same(value: Any) -> Any:
    """The first rank's value, on every rank."""
    if _group() is None:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, group=_group())
    return box[0]


def gathered(mine: dict[int, Any]) -> dict[int, Any]:
    """All ranks' results in one dictionary, on every rank."""
    if _group() is None:
        return mine
    parts: list[Any] = [None] * size()
    dist.all_gather_object(parts, mine, group=_group())
    return {key: value for part in parts for key, value in part.items()}
