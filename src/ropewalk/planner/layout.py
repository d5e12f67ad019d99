"""Over which chips a step is laid, in which micro batches, and what it keeps: the fastest way that fits.

in   a shape, a recipe, chips
out  a `Job`; or, where none fits, the one that needs least, and what would fit instead
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ropewalk.errors import UserError
from ropewalk.planner.chips import Chip, Rates
from ropewalk.planner.job import FULL, NONE, ActivationChoice, Job, keeping_in, products
from ropewalk.planner.memory import CONTEXT, GIB, step_memory
from ropewalk.planner.speed import step_time
from ropewalk.settings.budget import BACKWARD_RESULTS, MARGIN, head_bytes

#: More tokens at a time than this make no product faster and only take memory.
_MOST_TOKENS = 65536


def fits(job: Job, chip: Chip) -> bool:
    """Whether the chip has the memory that the job needs."""
    return step_memory(job).total <= chip.memory * GIB


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
            bare = replace(candidate, activations=_least_kept(job))
            need = step_memory(bare).total
            if need < least_memory:
                smallest, least_memory = bare, need
            settled = _with_activations(candidate, chip)
            if settled is None:
                continue
            rate = step_time(settled, rates, chip).tokens_per_second
            # Of nearly equal layouts the first wins: it has less context parallelism and smaller micro batches.
            if rate > best_rate * 1.005:
                fastest, best_rate = settled, rate
    return (fastest, True) if fastest is not None else (smallest, False)


def _least_kept(job: Job) -> ActivationChoice:
    """What has to be kept at least, by --activations."""
    return NONE if job.recipe.activations == "none" else FULL


def refuse_undivided(job: Job, cp: int | None) -> None:
    """Refuse a step whose windows cannot be dealt out as training does it: as many to each group, each split evenly.

    Raises:
        UserError: with what would be divisible.
    """
    if next(_cp_sizes(job, cp), None) is not None:
        return
    if cp is None:
        raise UserError(
            f"every chip, or group of chips that share a window, reads as many windows a step, and {job.gpus} chips cannot share "
            f"{job.recipe.batch_size} windows of {job.length} tokens so; choose a number of chips that divides --batch-size, or change that"
        )
    groups = job.gpus // cp
    if job.recipe.batch_size % groups:
        raise UserError(
            f"each of {groups} groups of {cp} chips reads as many windows a step, so --batch-size is a multiple of {groups}, got "
            f"{job.recipe.batch_size}; change it, or --cp"
        )
    raise UserError(
        f"a window split over {cp} chips is a multiple of 2 x {cp} tokens, got {job.length}; change --window, or --cp"
    )


def _cp_sizes(job: Job, cp: int | None) -> Iterator[int]:
    """How many chips may share a window, of those asked for (or of all up to the number of heads).

    Every group must get the same number of windows a step, which training/setup.py demands, and a window must split into
    2 x cp equal parts (distributed/mesh.py).
    """
    for size in [cp] if cp else range(1, min(job.gpus, job.shape.heads) + 1):
        even = job.shards % size == 0 and job.recipe.batch_size % (job.gpus // size) == 0
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
    windows = max(1, job.recipe.batch_size // groups)
    divisors = [n for n in range(1, windows + 1) if windows % n == 0 and n * job.length / cp <= _MOST_TOKENS]
    return divisors or [1]


def _with_activations(job: Job, chip: Chip) -> Job | None:
    """The job with as much kept as fits, or as asked for; None if that does not fit."""
    if job.recipe.activations != "auto":
        job = replace(job, activations=_least_kept(job))
        return job if fits(job, chip) else None
    room = max(0.0, _room(job, chip))
    # A twentieth less each time, as training does when the first step runs out of memory.
    for twentieths in range(20, -1, -1):
        candidate = keeping_in(job, room * twentieths / 20)
        if fits(candidate, chip):
            return candidate
    return None


def _room(job: Job, chip: Chip) -> float:
    """Bytes for kept products, as training/activations.py and training/recompute.py count them when training begins."""
    shape, bare = job.shape, step_memory(replace(job, activations=FULL))
    trained = job.trained / job.shards
    reserved = trained * (job.regime.gradient + 2 * job.regime.weight) + shape.parameters / job.shards * job.regime.cast
    stream = shape.layers * shape.width * job.regime.weight * job.tokens
    head = head_bytes(job.tokens, shape.width, shape.vocabulary)
    workspace = max(BACKWARD_RESULTS * sum(products(job).values()) * job.tokens, head)
    return chip.memory * GIB - bare.weights - CONTEXT - reserved - stream - workspace - MARGIN


def ways_out(job: Job, chip: Chip) -> list[str]:
    """What would make a job fit that does not: more chips, then other regimes on the same ones."""
    counts = (job.gpus * times for times in (2, 4, 8, 16, 32, 64, 128))
    enough = next((count for count in counts if _fit_somewhere(replace(job, gpus=count), chip)), None)
    ways = [] if enough is None else [f"--gpus {enough}x{chip.name}"]
    for precision, optimizer in (
        ("bfloat16-stochastic", "adamw"),
        ("bfloat16", "adamw-8bit"),
        ("bfloat16", "adamw-offload"),
        ("bfloat16-stochastic", "adamw-8bit"),
    ):
        if _fit_somewhere(_changed(job, precision=precision, optimizer=optimizer), chip):
            ways.append(f"--precision {precision} --optimizer {optimizer}")
    if job.recipe.mode == "full" and _fit_somewhere(_changed(job, mode="lora"), chip):
        ways.append("--mode lora")
    return ways


def _changed(job: Job, **options: Any) -> Job:
    """The job with other options of its recipe."""
    return replace(job, recipe=replace(job.recipe, **options))


def _fit_somewhere(job: Job, chip: Chip) -> bool:
    """Whether the job fits in any layout with one window at a time and full checkpointing."""
    return any(fits(replace(other, activations=FULL), chip) for other in _candidates(job, None, 1))
