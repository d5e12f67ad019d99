"""Over which chips a step is laid, in which micro batches, and what it keeps: the fastest way that fits.

in   a shape, a recipe, chips
out  a `Job`; or, where none fits, the one that needs least, and what would fit instead
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ropewalk.errors import UserError
from ropewalk.planner.chips import Chip, Rates
from ropewalk.planner.job import FULL, NONE, ActivationChoice, Job, by_cost_per_byte, keeping_in, products
from ropewalk.planner.memory import CONTEXT, GIB, step_memory
from ropewalk.planner.regimes import AUTO, allowed
from ropewalk.planner.speed import step_time
from ropewalk.settings.budget import BACKWARD_RESULTS, MARGIN, gradients_wait, head_bytes
from ropewalk.settings.train import Mode

#: More tokens at a time than this make no product faster and only take memory.
_MOST_TOKENS = 65536


def fits(job: Job, chip: Chip) -> bool:
    """Whether the chip has the memory that the job needs, and the host what is kept there."""
    need = step_memory(job)
    return need.total <= chip.memory * GIB and need.host <= job.host


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
            settled = _with_activations(candidate, chip, rates)
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
    for size in [cp] if cp else range(1, min(job.gpus, job.shape.heads) + 1):
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
    """The job with what saves most time of that which fits, or with what was asked for; None if that does not fit."""
    if job.recipe.activations != "auto":
        job = replace(job, activations=_least_kept(job))
        return job if fits(job, chip) else None
    choices = [choice for choice in (_on_the_chip(job, chip), *_with_the_host(job, chip)) if choice is not None]
    return min(choices, key=lambda choice: step_time(choice, rates).seconds, default=None)


def _on_the_chip(job: Job, chip: Chip) -> Job | None:
    """Kept on the chip alone: by the rule that training begins with, and a twentieth less each time, as it does when memory runs out."""
    room = max(0.0, _room(job, chip))
    for twentieths in range(20, -1, -1):
        candidate = keeping_in(job, room * twentieths / 20)
        if fits(candidate, chip):
            return candidate
    return None


def _with_the_host(job: Job, chip: Chip) -> Iterator[Job]:
    """Kept in all layers, group by group, and as few layers' in the host's memory as make it fit. Only compiled layers do that."""
    if not (job.host and job.fused and chip.host_link):
        return
    kept: list[str] = []
    for group in [[], *by_cost_per_byte(job)]:
        kept += group
        layers, some = job.shape.layers, replace(job, host=math.inf)
        choices = [replace(some, activations=_hosted(kept, away, layers)) for away in range(1, layers + 1)]
        fewest = bisect.bisect_left(choices, True, key=lambda choice: fits(choice, chip))
        if fewest < layers and fits(candidate := replace(choices[fewest], host=job.host), chip):
            yield candidate


def _hosted(kept: list[str], away: int, layers: int) -> ActivationChoice:
    words = f"{', '.join(kept) or 'inputs'}; on the host in {away} of {layers} layers"
    return ActivationChoice(words, dict.fromkeys(kept, 1.0), hosted=away / layers)


def least(job: Job, chip: Chip) -> tuple[Job, bool]:
    """The job with as little kept as can be, on the chip or with the host's help, and whether that fits."""
    bare = replace(job, activations=_least_kept(job))
    if job.recipe.activations == "auto" and not fits(bare, chip):
        return next(((choice, True) for choice in _with_the_host(job, chip)), (bare, False))
    return bare, fits(bare, chip)


def _room(job: Job, chip: Chip) -> float:
    """Bytes for kept products, as training/activations.py and training/recompute.py count them when training begins."""
    shape, bare = job.shape, step_memory(replace(job, activations=FULL))
    waiting = job.trained / job.shards * job.regime.gradient * gradients_wait(job.recipe.batch, job.micro, job.dp)
    reserved = bare.states + waiting + shape.parameters / job.shards * job.cast
    stream = shape.layers * shape.width * job.stream * job.tokens
    head = head_bytes(job.tokens, shape.width, shape.vocabulary)
    workspace = max(BACKWARD_RESULTS * sum(products(job).values()) * job.tokens, head)
    return chip.memory * GIB - bare.weights - CONTEXT - reserved - stream - workspace - MARGIN


@dataclass(frozen=True)
class Way:
    """Other options for a job: what of it changes, and the job by them."""

    job: Job
    options: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return " ".join(f"--{name} {value}" for name, value in self.options)


def ways_on_the_same_chips(job: Job) -> Iterator[Way]:
    """The job by other options, the best first: every weight trained, in the order of planner/regimes.py; then adapters."""
    modes: list[Mode] = ["full", "lora"] if job.recipe.mode == "full" else [job.recipe.mode]
    for mode in modes:
        open_recipe = replace(job.recipe, mode=mode, precision=AUTO, optimizer=AUTO)
        for recipe in allowed(open_recipe, gpus=job.gpus, every=True):
            names = [
                name
                for name in ("precision", "optimizer", "mode")
                if getattr(recipe, name) != getattr(job.recipe, name)
            ]
            if names:
                yield Way(job.with_recipe(recipe), tuple((name, getattr(recipe, name)) for name in names))


def ways_on_more_chips(job: Job, chip: Chip) -> Iterator[Way]:
    """The job on twice as many chips and more, in its own mode by each regime in turn."""
    for count in (job.gpus * times for times in (2, 4, 8, 16, 32, 64, 128)):
        more = replace(job, gpus=count, replicas=1)
        same_mode = [way for way in ways_on_the_same_chips(more) if way.job.recipe.mode == job.recipe.mode]
        for way in [Way(more, ()), *same_mode]:
            yield Way(way.job, (("gpus", f"{count}x{chip.name}"), *way.options))


def ways_out(job: Job, chip: Chip) -> list[str]:
    """Options by which a job fits that does not: other regimes and adapters, and then more chips."""
    ways = [str(way) for way in ways_on_the_same_chips(job) if _fits_somewhere(way.job, chip)]
    more = next((way for way in ways_on_more_chips(job, chip) if _fits_somewhere(way.job, chip)), None)
    return ways if more is None else [*ways, str(more)]


def _fits_somewhere(job: Job, chip: Chip) -> bool:
    """Whether the job fits in any layout with one window at a time and as little kept as can be."""
    return any(least(other, chip)[1] for other in _candidates(job, None, 1))
