"""Over which chips a step is laid, in which micro batches, and what it keeps: the fastest way that fits.

in   a shape, a recipe, chips
out  a `Job`; or, where none fits, the one that needs least, and what would fit instead
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ropewalk.errors import UserError
from ropewalk.planner.chips import Chip, Rates
from ropewalk.planner.job import FULL, NONE, Job, filled, products, regime
from ropewalk.planner.memory import CHUNK_ELEMENTS, CONTEXT, GIB, memory
from ropewalk.planner.speed import time

#: More tokens at a time than this make no product faster and only take memory.
_MOST_TOKENS = 65536
#: What memory.py sets aside before it fills a GPU with activations: times the products of one layer, and bytes (a test compares them).
BACKWARD, MARGIN = 1.5, 3 * 2**29


def fits(job: Job, chip: Chip) -> bool:
    """Whether the job's memory is there."""
    return memory(job).total <= chip.memory * GIB


def choose(
    job: Job, chip: Chip, rates: Rates, *, cp: int | None, micro: int | None, keep: str, replicas: int | None = None
) -> tuple[Job, bool]:
    """The fastest layout that fits, and True; or the one that needs least memory, and False.

    Args:
        job: shape, recipe and regime; its cp, micro, replicas and keep are filled in here.
        chip, rates: what it runs on.
        cp, micro, replicas: as the user fixed them, or None; a copy of the weights a machine is tried where there are several machines.
        keep: "auto", "full" or "none", as --memory.
    """
    fastest, best, least, smallest = None, 0.0, job, float("inf")
    for candidate in (one for copies in _replicated(job, chip, replicas) for one in _candidates(copies, cp, micro)):
        need = memory(replace(candidate, keep=NONE if keep == "none" else FULL)).total
        if need < smallest:
            least, smallest = replace(candidate, keep=NONE if keep == "none" else FULL), need
        kept = _keeping(candidate, chip, keep)
        if kept is None:
            continue
        speed = time(kept, rates, chip).tokens_per_second
        if speed > best * 1.005:  # a wash goes to what came first: less context parallelism, smaller micro batches
            fastest, best = kept, speed
    return (fastest, True) if fastest is not None else (least, False)


def refuse_undivided(job: Job, cp: int | None) -> None:
    """Say so if no layout deals the windows of a step out as training does: as many to each group, each split evenly.

    Raises:
        UserError: with what would be divisible.
    """
    if next(_shares(job, cp), None) is not None:
        return
    if cp is None:
        raise UserError(
            f"every chip, or group of chips that share a window, reads as many windows a step, and {job.gpus} chips cannot share "
            f"{job.batch} windows of {job.length} tokens so; choose a number of chips that divides --batch-size, or change that"
        )
    groups = job.gpus // cp
    if job.batch % groups:
        raise UserError(
            f"each of {groups} groups of {cp} chips reads as many windows a step, so --batch-size is a multiple of {groups}, got "
            f"{job.batch}; change it, or --cp"
        )
    raise UserError(
        f"a window split over {cp} chips is a multiple of 2 x {cp} tokens, got {job.length}; change --window, or --cp"
    )


def _shares(job: Job, cp: int | None) -> Iterator[int]:
    """How many chips of one copy may share a window: as asked for, or any number that leaves as many windows to each group
    (train/devices.py) and splits a window evenly (parallel/mesh.py)."""
    for share in [cp] if cp else range(1, min(job.gpus, job.shape.heads) + 1):
        even = job.shards % share == 0 and job.batch % (job.gpus // share) == 0
        if even and (share == 1 or job.length % (2 * share) == 0):
            yield share


def _replicated(job: Job, chip: Chip, replicas: int | None) -> Iterator[Job]:
    """The job with its weights sharded over all chips, or with a copy a machine."""
    machines = job.gpus // chip.peers if job.gpus % chip.peers == 0 else 1
    for count in [replicas] if replicas else dict.fromkeys([1, max(1, machines)]):
        yield replace(job, replicas=count)


def _candidates(job: Job, cp: int | None, micro: int | None) -> Iterator[Job]:
    for share in _shares(job, cp):
        groups = job.gpus // share
        for windows in [micro] if micro else _micros(job, groups, share):
            yield replace(job, cp=share, micro=windows)


def _micros(job: Job, groups: int, cp: int) -> list[int]:
    each = max(1, job.batch // groups)
    found = [n for n in range(1, each + 1) if each % n == 0 and n * job.length / cp <= _MOST_TOKENS]
    return found or [1]


def _keeping(job: Job, chip: Chip, keep: str) -> Job | None:
    """The job with as much kept as fits, or as asked for; None if that does not fit."""
    if keep != "auto":
        job = replace(job, keep=NONE if keep == "none" else FULL)
        return job if fits(job, chip) else None
    room = max(0.0, _room(job, chip))
    for left in range(
        20, -1, -1
    ):  # a twentieth less each time, as training does when the first step runs out of memory
        if fits(filled(job, room * left / 20), chip):
            return filled(job, room * left / 20)
    return None


def _room(job: Job, chip: Chip) -> float:
    """Bytes for kept products, as train/keep.py and memory.py count them when training begins."""
    shape, bare = job.shape, memory(replace(job, keep=FULL))
    each = job.trained / job.shards
    there_soon = each * (job.regime.gradient + 2 * job.regime.weight) + shape.parameters / job.shards * job.regime.cast
    stream = shape.layers * shape.width * job.regime.weight * job.tokens
    workspace = max(BACKWARD * sum(products(job).values()) * job.tokens, head_bytes(job))
    return chip.memory * GIB - bare.weights - CONTEXT - there_soon - stream - workspace - MARGIN


def head_bytes(job: Job) -> float:
    """What memory.py sets aside for the loss (a test compares the two)."""
    shape = job.shape
    logits = min(CHUNK_ELEMENTS, job.tokens * shape.vocabulary)
    return 3 * 4 * logits + 2 * 2 * job.tokens * shape.width + 6 * shape.width * shape.vocabulary


def ways_out(job: Job, chip: Chip) -> list[str]:
    """What would make a job fit that does not: more chips, then other regimes on the same ones."""
    counts = (job.gpus * times for times in (2, 4, 8, 16, 32, 64, 128))
    enough = next((count for count in counts if _fit_somewhere(replace(job, gpus=count), chip)), None)
    found = [] if enough is None else [f"--gpus {enough}x{chip.name}"]
    for precision, optimizer in (
        ("bfloat16-stochastic", "adamw"),
        ("bfloat16", "adamw-8bit"),
        ("bfloat16", "adamw-offload"),
        ("bfloat16-stochastic", "adamw-8bit"),
    ):
        other = replace(job, regime=regime(precision, optimizer))
        if _fit_somewhere(other, chip):
            found.append(f"--precision {precision} --optimizer {optimizer}")
    if job.mode == "full" and _fit_somewhere(replace(job, mode="lora"), chip):
        found.append("--mode lora")
    return found


def _fit_somewhere(job: Job, chip: Chip) -> bool:
    return any(fits(replace(other, keep=FULL), chip) for other in _candidates(job, None, 1))
