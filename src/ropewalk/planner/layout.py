"""Over which chips a step is laid, in which micro batches, and what it keeps: the fastest way that fits.

in   a shape, a recipe, chips
out  a `Job`; or, where none fits, the one that needs least (ways.py has what would fit instead)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ropewalk.errors import UserError
from ropewalk.planner import machines
from ropewalk.planner.chips import Chip, Rates
from ropewalk.planner.job import NONE, Job
from ropewalk.planner.kept import kept_by_rule, least_by_rule
from ropewalk.planner.memory import GIB, fits, step_memory
from ropewalk.planner.speed import step_time

#: More tokens at a time than this make no product faster and only take memory.
_MOST_TOKENS = 65536


def choose(job: Job, chip: Chip, rates: Rates, *, cp: int | None, replicas: int | None = None) -> tuple[Job, bool]:
    """The fastest layout that fits, and True; or the one that needs least memory, and False.

    Args:
        job: shape and recipe, which says how activations and the micro batch are chosen; cp, micro, replicas and activations are settled here.
        chip, rates: what it runs on.
        cp, replicas: as the user fixed them, or None. Where there are several machines, one copy of the weights on each is
            tried beside one copy over all.
    """
    fastest, best_rate, smallest, least_memory = None, 0.0, job, float("inf")
    for copies in _replicated(job, chip, replicas):
        for candidate in _candidates(copies, cp, job.recipe.micro_batch):
            bare, _ = least(candidate, chip)
            need = step_memory(bare).total
            if need < least_memory:
                smallest, least_memory = bare, need
            if need > chip.memory * GIB:  # with as little kept as can be
                continue
            settled = _with_activations(candidate, chip, rates)
            if settled is None:
                continue
            rate = step_time(settled, rates, chip).tokens_per_second
            # Of nearly equal layouts the first wins: it has less context parallelism and smaller micro batches.
            if rate > best_rate * 1.005:
                fastest, best_rate = settled, rate
    return (fastest, True) if fastest is not None else (smallest, False)


def is_divided(job: Job, cp: int | None) -> bool:
    """Whether a step's windows can be dealt out as training does it: as many to each group, each split evenly."""
    return next(_cp_sizes(job, cp), None) is not None


def refuse_undivided(job: Job, cp: int | None) -> None:
    """Refuse a step that is not divided, or a window that is where training divides none.

    Raises:
        UserError: with what would be divisible.
    """
    if (cp or 1) > 1 and (refusal := job.shape.unshared(job.length)):
        raise UserError(refusal)
    if is_divided(job, cp):
        return
    if cp is None:
        raise UserError(
            f"every chip, or group of chips that share a window, reads as many windows a step, and {job.gpus} chips cannot share "
            f"{job.recipe.batch} windows of {job.length} tokens so; choose a number of chips that divides --batch-size, or change that"
        )
    groups = job.gpus // cp
    if job.recipe.batch % groups:
        raise UserError(
            f"each of {groups} groups of {cp} chips reads as many windows a step, so --batch-size is a multiple of {groups}, got "
            f"{job.recipe.batch}; change it, or --cp"
        )
    raise UserError(
        f"a window split over {cp} chips is a multiple of 2 x {cp} tokens, got {job.length}; change --window, or --cp"
    )


def _cp_sizes(job: Job, cp: int | None) -> Iterator[int]:
    """How many chips may share a window, of those asked for (or of all up to the number of heads).

    Every group must get the same number of windows a step, which training/setup.py demands, and a window must split into
    2 x cp equal parts (distributed/mesh.py).
    """
    most = 1 if job.shape.unshared(job.length) else min(job.gpus, job.shape.heads)
    for size in [cp] if cp else range(1, most + 1):
        even = job.shards % size == 0 and job.recipe.batch % (job.gpus // size) == 0
        if even and (size == 1 or job.length % (2 * size) == 0):
            yield size


def _replicated(job: Job, chip: Chip, replicas: int | None) -> Iterator[Job]:
    """The job with its weights sharded over all chips, or with a copy a machine."""
    machines = job.gpus // chip.peers if job.gpus % chip.peers == 0 else 1
    for count in [replicas] if replicas else dict.fromkeys([1, max(1, machines)]):
        yield replace(job, replicas=count)


def _candidates(job: Job, cp: int | None, micro: int | None) -> Iterator[Job]:
    """The job with every context parallel size and micro batch that training would take, or with those asked for."""
    for cp_size in _cp_sizes(job, cp):
        groups = job.gpus // cp_size
        for windows in [micro] if micro else _micros(job, groups, cp_size):
            yield replace(job, cp=cp_size, micro=windows)


def _micros(job: Job, groups: int, cp: int) -> list[int]:
    """Micro batch sizes: divisors of a group's windows a step, up to `_MOST_TOKENS` a chip."""
    windows = max(1, job.recipe.batch // groups)
    divisors = [n for n in range(1, windows + 1) if windows % n == 0 and n * job.length / cp <= _MOST_TOKENS]
    return divisors or [1]


def _with_activations(job: Job, chip: Chip, rates: Rates) -> Job | None:
    """The job with what training would keep, or with what was asked for; None if that does not fit."""
    if job.recipe.activations == "auto":
        return kept_by_rule(job, chip, rates)
    job, enough = least(job, chip)
    return job if enough else None


def is_short(job: Job, chip: Chip) -> bool:
    """Whether it fits in small tiles of the MLP alone."""
    return least(job, chip)[0].activations.short


def least(job: Job, chip: Chip) -> tuple[Job, bool]:
    """The job with as little kept as can be, on the chip or with the host's help, and whether that fits."""
    everything = job.recipe.activations == "none"
    bare = replace(job, activations=NONE) if everything else least_by_rule(job, chip)
    return bare, fits(bare, chip)


def job_that_fits(job: Job, chip: Chip) -> Job | None:
    """The job, if it is taken, in a layout in which it fits with as many windows at a time as are named, or one, and as little kept as can be."""
    windows = job.recipe.micro_batch or 1
    laid_out = (least(other, chip) for other in _candidates(job, None, windows) if machines.takes(job))
    return next((bare for bare, fits in laid_out if fits), None)
