"""How the processes that torchrun started meet: all that measuring needs of torch.distributed, and what training needs between its passes.

in   nothing but the environment; one process alone is rank 0 of 1
out  this rank's number, and every rank's results on all of them

Documents and prompts are independent, so ranks that measure talk twice: about the run's header, and about their results; those of an estimate
after every batch, since all together decide whether it is enough. Python objects, which lie in the host's memory and so go over gloo,
whatever the devices are: a process of "cuda:nccl,cpu:gloo" meets without its GPU, which may be busy or out of memory. Where a model is sharded
over them they also keep each other company in between: spread.py.

A rank that cannot go on says so in its next meeting, where it was asked to by `together`, and all stop what they do with its sentence. So what
is done within `together` waits for others nowhere but in meetings, and in passes (`nobody_waits`). In the middle of a pass, which the others
cannot finish without it, a rank can only leave (`Alone`): torchrun then ends them.

Who and how many there are stands in the environment and can be asked at any time. To talk, a process must have called `join`, which is
for whoever begins a run: `evals.loaded.open_model`, `benchmarks`, `suite.runner.evaluate`, and training's `mesh.start`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from ropewalk.errors import UserError, is_shortage, shortage

T = TypeVar("T")
#: A rank that waits longer for the others has lost one. Loading a large model or a first compilation takes minutes.
_PATIENCE = timedelta(minutes=30)
_BY_TORCHRUN = ("RANK", "MASTER_ADDR", "MASTER_PORT")
_WAY_OUT = "start the command with torchrun, or unset WORLD_SIZE and RANK"
#: What gloo and NCCL say of a process that is gone.
_LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "NCCL communicator was aborted",
    "remote process exited",
)


class Alone(UserError):
    """What ended this rank in the middle of what others wait for: it leaves, whoever could go on after another error."""


class _Told(UserError):
    """What ended the work of some rank, as a meeting told it to all."""


#: Whether this rank has left, or was left, in the middle of something: nobody would answer its farewell.
_alone = False


def rank() -> int:
    """This process's number; 0 is the one that prints."""
    return _number("RANK", 0) if size() > 1 else 0


def size() -> int:
    """How many processes share the work."""
    return _number("WORLD_SIZE", 1)


def local_rank() -> int:
    """This process's number on its machine, and that of its GPU."""
    return _number("LOCAL_RANK", 0)


def _number(name: str, alone: int) -> int:
    """What torchrun says by a variable of the environment; a process alone has none, or an empty one.

    Raises:
        UserError: it is no number that torchrun gives.
    """
    text = os.environ.get(name) or str(alone)
    if not (text.isascii() and text.isdecimal()) or int(text) < alone:
        raise UserError(f"{name} is a number that torchrun sets, and it is {text!r} here; {_WAY_OUT}")
    return int(text)


def local_size() -> int:
    """How many processes this machine has, of those that share the work."""
    return _number("LOCAL_WORLD_SIZE", 1)


def join(backend: str | None = None, *, bind: bool | None = None) -> None:
    """Meet the other processes that torchrun started. One process alone meets nobody; a second call changes nothing.

    Args:
        backend: of torch.distributed, by which they talk; if not given, gloo, and NCCL between GPUs where there are any.
        bind: whether this process takes the GPU of its number for its own; if not given, where there are GPUs.
    """
    if size() == 1:
        return
    if missing := [name for name in _BY_TORCHRUN if not os.environ.get(name)]:
        raise UserError(
            f"WORLD_SIZE says that this is one of {size()} processes, and {missing[0]}, which torchrun sets too, is not set; {_WAY_OUT}"
        )
    if torch.cuda.is_available() if bind is None else bind:
        torch.cuda.set_device(local_rank())
    if not dist.is_initialized():
        backend = backend or ("cuda:nccl,cpu:gloo" if torch.cuda.is_available() else "gloo")
        dist.init_process_group(backend, rank=rank(), world_size=size(), timeout=_PATIENCE)


#: What a process does for the others before it meets them, one after the other.
_before_meeting: list[Callable[[], None]] = []


def before_meetings(do: Callable[[], None]) -> None:
    """Have `do` called at the beginning of every meeting from now on; spread.py keeps the others company by it."""
    if do not in _before_meeting:
        _before_meeting.append(do)


def share_passes() -> bool:
    """Whether ranks hold a model together, so that one that fails in a pass of it leaves others in that pass."""
    return bool(_before_meeting)


def same(value: Any) -> Any:
    """The first rank's value, on every rank."""
    if size() == 1:
        return value
    _meet(None)
    box = [value]  # sent once, however many they are: it may be large
    with _leaving():
        dist.broadcast_object_list(box, src=0)
    return box[0]


def everyones(value: Any) -> list[Any]:
    """Every rank's value, in their order."""
    return [value] if size() == 1 else _meet(value)


def gathered(results: dict[int, Any]) -> dict[int, Any]:
    """All ranks' results in one dictionary, on every rank."""
    return {key: value for part in everyones(results) for key, value in part.items()}


def wait() -> None:
    """Go on when all ranks have come here."""
    everyones(None)


def together(act: Callable[[], T]) -> T:
    """`act()`, in which ranks may meet, on every rank; if it fails on any, it fails on all, and they go on together.

    Raises:
        UserError: on every rank, the first one's sentence.
        Alone: this rank ran out of memory, perhaps in the middle of a pass, or another one left.
    """
    if size() == 1:
        return act()
    try:
        with _leaving():
            result = act()
    except (Alone, _Told):
        raise
    except UserError as error:
        _meet(None, str(error))
        raise
    _meet(None)
    return result


def first(act: Callable[[], T]) -> T:
    """`act()` on the first rank, and what it returns on all.

    Raises:
        UserError: on every rank, what it raised there.
    """
    return together(lambda: same(act() if rank() == 0 else None))


def first_on_each_machine(act: Callable[[], T]) -> T:
    """`act()` on one rank of each machine, then on the others, which find what it has left in the cache.

    Raises:
        UserError: on every rank, what it raised on the first of a machine; what it raises on another, there.
    """
    if local_rank() == 0:
        return together(act)
    wait()
    return act()


@contextlib.contextmanager
def nobody_waits() -> Iterator[None]:
    """Around a pass, in which ranks wait for each other in a GPU's queue: one that cannot go on leaves, since it could tell nobody.

    Raises:
        Alone: of several ranks, for any UserError.
    """
    try:
        yield
    except UserError as error:
        if size() == 1 or isinstance(error, Alone | _Told):
            raise
        raise Alone(str(error)) from error


@contextlib.contextmanager
def _leaving() -> Iterator[None]:
    """Around what a rank does with others: what they cannot be told of ends it, and torchrun ends them.

    Raises:
        Alone: there was too little memory, or another rank left.
    """
    global _alone
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) and not isinstance(error, Alone):
            raise
        _alone = True
        if is_shortage(error):
            raise Alone(
                f"process {rank()} ran out of memory ({shortage(error)}); take more processes, or less at a time"
            ) from error
        if isinstance(error, RuntimeError) and any(words in str(error) for words in _LOST):
            raise Alone(
                "one of the processes that work together stopped, and says why itself; start the command again, a training with --resume"
            ) from error
        raise


def leave() -> None:
    """Part from the other ranks, who part too; but not where one of them is gone, since nobody would answer."""
    if dist.is_initialized() and not _alone:
        dist.destroy_process_group()


def _meet(value: Any, failure: str = "") -> list[Any]:
    """Every rank's value, in their order. Raises what ended one of them."""
    if not dist.is_initialized():
        raise RuntimeError(
            f"this is process {rank()} of {size()}, and it has not met the others; call ranks.join() first"
        )
    parts: list[Any] = [None] * size()
    with _leaving():
        for do in _before_meeting:
            do()
        dist.all_gather_object(parts, (failure, value))
    if sentence := next((failure for failure, _ in parts if failure), ""):
        raise _Told(sentence)
    return [value for _, value in parts]
