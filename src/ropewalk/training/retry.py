"""A step that takes more memory than there is, done again with less; and the sentence where nothing is left to give up.

in   a pass that may be repeated, and what gives something up
out  what the pass returned

Nothing that a step computes depends on how often it was begun: it drops its gradients, draws its random numbers from the step's own
seed and reads the same windows, and the optimiser has not moved. So the step that lives is the step that would have been.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import os
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from ropewalk.distributed import ranks
from ropewalk.errors import UserError, is_limited, is_shortage, shortage

#: glibc's mallopt: from how many bytes on a block has addresses of its own.
_M_MMAP_THRESHOLD, _OWN_BLOCK = -3, 2**20
T = TypeVar("T")


def until_it_fits(call: Callable[[], T], give_up: Callable[[str], None]) -> T:
    """`call()`, and again as often as memory runs out in it and `give_up` finds something that can be done without.

    call: safe to repeat; what it leaves behind when it fails, it drops when it begins. give_up: told what was asked for; raises if nothing is
        left.
    """
    _give_back_what_is_freed()
    while True:
        try:
            return call()
        except (MemoryError, RuntimeError) as error:
            if not is_shortage(error):
                raise
            asked = shortage(error)
        # Not in the handler: the error holds the frames of the pass, and these its tensors.
        gc.collect()
        torch.cuda.empty_cache()
        give_up(asked)


@functools.cache
def _give_back_what_is_freed() -> None:
    """Where addresses are limited (`ulimit -v`), have glibc give large blocks back at once, which takes time.

    Else they stay in its heap, in pieces, and the step that keeps least fails where it would have lived had it come first.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and is_limited():
        mallopt(_M_MMAP_THRESHOLD, _OWN_BLOCK)


@contextlib.contextmanager
def shortage_told(sentence: Callable[[str], str]) -> Iterator[None]:
    """Memory that runs out in this block ends it with `sentence(what was asked for)`, for where nothing can be begun again."""
    try:
        yield
    except Exception as error:
        if not is_shortage(error):
            raise
        kind = UserError if ranks.size() == 1 else ranks.Alone  # others may be waiting for this process
        raise kind(sentence(shortage(error))) from error


def unwritten(what: str, asked: str, saved: int | None) -> str:
    """The sentence for memory that runs out after a step, where what it came to is written."""
    goes_on = f"--resume goes on from the checkpoint of step {saved}" if saved else "no checkpoint was saved before"
    return f"writing {what} takes more memory than there is ({asked}); make more room; {goes_on}"


def told_as_whole(out: str | os.PathLike[str], failed: str) -> contextlib.AbstractContextManager[None]:
    """For what comes after the trained model was written: memory that runs out takes nothing from it."""
    return shortage_told(
        lambda asked: (
            f"the run has ended and its model in {out} is whole; {failed} took more memory than there is ({asked})"
        )
    )


def too_little(step: int, asked: str, ways: list[str], *, everything: bool, together: bool, saved: int | None) -> str:
    """What a user can do where nothing is left to be given up.

    ways: options that take less. everything: whether all activations are kept, as asked for. together: several devices, which cannot begin a step again
    with less, and keep as much as was reckoned to fit. saved: the step of the last checkpoint.
    """
    kept = "with as little kept as can be"
    if together:
        kept = "and devices that wait for each other cannot begin it again"
    if everything:
        kept = "with every activation kept, as --activations none says"
    goes_on = f". --resume goes on from the checkpoint of step {saved} where the optimizer stays" if saved else ""
    return (
        f"step {step} takes more memory than there is ({asked}), {kept}; what takes less: {'; or '.join(ways)}{goes_on}"
    )
