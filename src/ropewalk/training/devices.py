"""What a run asks of its devices before it can begin: which there are, who goes first, and that all stop if one must."""

from __future__ import annotations

import atexit
import contextlib
import os
from collections.abc import Callable, Iterator
from typing import TypeVar, cast

from ropewalk.distributed.mesh import Mesh, start
from ropewalk.errors import UserError
from ropewalk.model.devices import device_for
from ropewalk.settings.train import TrainSettings

T = TypeVar("T")


def devices_for(settings: TrainSettings) -> Mesh:
    """The processes that torchrun started, or this one alone.

    Raises:
        UserError: no such device; the batch or the window cannot be divided among them.
    """
    device = device_for(settings.device)
    mesh = start(cp=settings.cp, replicas=settings.replicas, device=device.type if settings.device is None else device)
    # Left when the process ends, not with the run: processes that left cannot meet a second time under one torchrun.
    atexit.register(mesh.close)
    if settings.batch_size % mesh.data_size:
        raise UserError(
            f"every device reads as many windows a step, so --batch-size is a multiple of {mesh.data_size} here, got "
            f"{settings.batch_size}; change it, or the number of processes"
        )
    return mesh


@contextlib.contextmanager
def first_here(mesh: Mesh) -> Iterator[None]:
    """One process of each machine goes through first, the others when it is done, to find what it has left in the cache."""
    is_first = int(os.environ.get("LOCAL_RANK", "0")) == 0
    if not is_first:
        mesh.wait()
    yield
    if is_first:
        mesh.wait()


def together(mesh: Mesh, act: Callable[[], T]) -> T:
    """`act()` on every process, which may do different things there; if it fails on any, all stop, instead of waiting for that one.

    Raises:
        UserError: on every process, the first one's sentence.
    """
    if mesh.world == 1:
        return act()
    said, done = "", None
    try:
        done = act()
    except UserError as error:
        said = str(error)
    failed = next(filter(None, mesh.gather(said)), None)
    if failed:
        raise UserError(failed)
    return cast(T, done)
