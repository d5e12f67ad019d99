"""Other options by which a job fits that does not: what is kept, the host's help, other regimes, skipped positions, adapters, shorter windows, more chips.

in   a job that does not fit, the recipe as it was asked for, chips
out  `Way`s: what of it changes, as it is typed, and the job by them; the best first
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from ropewalk.planner import machines
from ropewalk.planner.chips import Chip
from ropewalk.planner.job import Job
from ropewalk.planner.layout import job_that_fits
from ropewalk.planner.memory import GIB, step_memory
from ropewalk.planner.regimes import AUTO, allowed, on_cpu
from ropewalk.settings.budget import HOST_SHARE
from ropewalk.settings.extras import installed
from ropewalk.settings.recipe import Mode, Precision, Recipe

#: Tokens in memory in the paper of positional skip-wise training (arXiv 2309.10400).
_POSE_TOKENS = 2048


@dataclass(frozen=True)
class Way:
    """Other options for a job: what of it changes, as it is typed beside what was asked for, and the job by them."""

    job: Job
    options: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in self.options)


def ways_on_the_same_chips(job: Job, asked: Recipe) -> Iterator[Way]:
    """The job by other options, the best first: what is kept chosen and the host used; every weight trained, in the order of planner/regimes.py; adapters, then on weights in four bits.

    asked: the recipe as it was asked for; what it leaves open is named, since it would be chosen anew.
    """
    helped = replace(job.recipe, activations="auto")
    if helped != job.recipe:
        yield _way(job, helped, asked)
    precision = _any_precision(job)
    modes: list[Mode] = ["full", "lora"] if job.recipe.mode == "full" else [job.recipe.mode]
    for mode in modes:
        open_recipe = replace(helped, mode=mode, precision=precision, optimizer=AUTO)
        for recipe in allowed(open_recipe, gpus=job.gpus, every=True):
            if recipe != helped:
                yield _way(job, recipe, asked)
    if job.gpus == 1 and job.recipe.mode != "pose" and not job.recipe.base_bits:
        low = replace(helped, mode="lora", base_bits=4, precision=precision, optimizer=AUTO)
        yield from (_way(job, recipe, asked) for recipe in allowed(low, every=True))


def _any_precision(job: Job) -> Precision:
    """Whichever these chips know."""
    return AUTO if job.bfloat16 else "float32"


def ways_with_positions_skipped(job: Job, asked: Recipe) -> Iterator[list[Way]]:
    """The job with positions skipped, for where whole windows fit by no regime: as asked, by each regime that this leaves open; then with all of it left open."""
    left_open = replace(asked, activations=AUTO, precision=_any_precision(job), optimizer=AUTO)
    for recipe in (*_skipping(asked, job.shape.window), *_skipping(left_open, job.shape.window)):
        options = _way(job, recipe, asked).options  # what is chosen by itself needs no name
        yield [Way(job.with_recipe(settled), options) for settled in allowed(recipe, gpus=job.gpus)]


def by_mode(ways: Iterable[Way]) -> Iterator[list[Way]]:
    """Ways of which one is as good as another but for precision and optimiser: by mode and bits of the base."""
    for _, alike in itertools.groupby(ways, lambda way: (way.job.recipe.mode, way.job.recipe.base_bits)):
        yield list(alike)


def ways_on_a_cpu(job: Job) -> Iterator[Way]:
    """The job with what is kept chosen; with positions skipped, in the original window and in one as short as PoSE's own; with adapters."""
    asked = job.recipe  # precision and optimiser that are left open are always the same here
    recipe = _checkpointed(asked)
    if recipe != asked:
        yield _way(job, recipe, asked)
    others = (*_skipping(recipe, job.shape.window), *_with_adapters(recipe))
    yield from (_way(job, other, asked) for other in others)


def _skipping(recipe: Recipe, own: int) -> Iterator[Recipe]:
    """The recipe with positions skipped, in the model's own window and in one as short as PoSE's, where it trains every weight on longer ones."""
    if recipe.mode == "full" and recipe.longce is None and own < recipe.window:
        yield replace(recipe, mode="pose")
        if own > _POSE_TOKENS:
            yield replace(recipe, mode="pose", chunk_window=_POSE_TOKENS)


def _checkpointed(recipe: Recipe) -> Recipe:
    """The recipe without every activation kept; full checkpointing stays, which training may have chosen itself, since auto keeps no less."""
    return replace(recipe, activations=AUTO) if recipe.activations == "none" else recipe


def _with_adapters(recipe: Recipe) -> Iterator[Recipe]:
    """The recipe with adapters, then on weights in four bits, where it has no such thing and leaves room for it; what bitsandbytes does on a CPU too."""
    if recipe.mode == "full":
        yield replace(recipe, mode="lora")
    if recipe.mode != "pose" and not recipe.base_bits and recipe.optimizer != "adamw-offload":
        yield replace(recipe, mode="lora", base_bits=4)


def shorter_windows_on_a_cpu(job: Job, batch_size: int | None) -> Iterator[Way]:
    """The job at half the window, a quarter and so on, in its own mode and then with adapters. batch_size: as asked for."""
    asked, window = job.recipe, job.recipe.window // 2
    while asked.mode != "pose" and window > max(job.shape.window, asked.longce or 0):
        shorter = replace(_checkpointed(asked), window=window, batch_size=batch_size)
        yield from (_way(job, recipe, asked) for recipe in (shorter, *_with_adapters(shorter)))
        window //= 2


def _way(job: Job, recipe: Recipe, asked: Recipe) -> Way:
    names = ("window", "precision", "optimizer", "activations", "mode", "base_bits", "chunk_window")
    changed = [(name, str(getattr(recipe, name))) for name in names if getattr(recipe, name) != getattr(asked, name)]
    return Way(job.with_recipe(recipe), tuple(changed))


def ways_with_a_shorter_window(job: Job, asked: Recipe) -> Iterator[list[Way]]:
    """The job at half the window, a quarter and so on, as long as that is longer than the model's own: as asked, then by other options."""
    window = asked.window // 2
    # Positions that are skipped take the memory of their chunks alone, and LongCE's short context stays short.
    while asked.mode != "pose" and window > max(job.shape.window, asked.longce or 0):
        shorter = replace(asked, window=window)
        settled = replace(job.recipe, window=window, batch_size=asked.batch_size)
        yield [_way(job, recipe, asked) for recipe in allowed(shorter, gpus=job.gpus)]
        for ways in by_mode(ways_on_the_same_chips(job.with_recipe(settled), shorter)):
            yield [_way(job, way.job.recipe, asked) for way in ways]
        window //= 2


def ways_with_more_host(job: Job, asked: Recipe) -> Iterator[list[Way]]:
    """The job beside two, four and eight times the host's memory, where it reaches that at all, by each regime that was left open."""
    for times in (2, 4, 8) if job.fused and job.host else ():
        size = math.ceil(job.host * times / HOST_SHARE / GIB)
        more = replace(job, host=size * GIB * HOST_SHARE)
        options = (("host_memory", f"{size}GiB"),)
        yield [Way(more.with_recipe(recipe), options) for recipe in allowed(asked, gpus=job.gpus)]


def ways_on_more_chips(job: Job, chip: Chip, asked: Recipe) -> Iterator[list[Way]]:
    """The job on twice as many chips and more, in its own mode: as asked, by each regime that this leaves open; then by every other."""
    for count in (job.gpus * times for times in (2, 4, 8, 16, 32, 64, 128)):
        more = replace(job, gpus=count, replicas=1)
        # Which of these is taken there is chosen as it is here, and so needs no name.
        as_asked = [more.with_recipe(recipe) for recipe in allowed(asked, gpus=count)]
        same_mode = [way for way in ways_on_the_same_chips(more, asked) if way.job.recipe.mode == job.recipe.mode]
        others = [way for way in same_mode if way.job not in as_asked]
        chips = f"{count}x{chip.name}" if chip.matrix else str(count)  # of which the memory alone was given
        for ways in ([Way(job, ()) for job in as_asked], others):
            yield [Way(way.job, (("gpus", chips), *way.options)) for way in ways]


def ways_out(job: Job, chip: Chip) -> list[str]:
    """Options by which a job fits that does not, as training takes them: the host's help first, other regimes, skipped positions where none fits, adapters, and then more chips.

    The job's precision and optimiser are settled, and nothing says which of them were asked for: each way names both.
    """
    asked = replace(job.recipe, precision=_any_precision(job), optimizer=AUTO)
    here = [way for way in ways_on_the_same_chips(job, asked) if job_that_fits(way.job, chip)]
    if all(way.job.recipe.mode != job.recipe.mode for way in here):
        skipping = itertools.chain.from_iterable(ways_with_positions_skipped(job, job.recipe))
        here[:0] = itertools.islice((way for way in skipping if job_that_fits(way.job, chip)), 1)
    ways = [str(way) for way in here]
    for way in itertools.chain.from_iterable(ways_on_more_chips(job, chip, job.recipe)):
        if more := job_that_fits(way.job, chip):
            shared = (("cp", str(more.cp)),) if more.cp > 1 else ()
            options = Way(more, (*shared, *way.options[1:]))
            return [*ways, f"{more.gpus} such GPUs by torchrun" + f" with {options}" * bool(options.options)]
    return ways


def ways_out_on_a_cpu(job: Job, room: float) -> list[str]:
    """Options by which a job takes less than it does with as little kept as it may, and fits: fewer windows at a time, what a plan proposes, or a shorter window.

    room: bytes that the process may take, with what it has taken.
    """

    def need(job: Job) -> float:
        return step_memory(on_cpu(job, 0.0), cpu=True).total

    def helps(way: Way) -> bool:
        lacking = way.job.recipe.base_bits and not installed("bitsandbytes")
        return not lacking and machines.takes(way.job) and need(way.job) <= room and need(way.job) < need(job)

    fewer = job.micro // 2
    one_by_one = Way(job.with_recipe(replace(job.recipe, micro_batch=max(1, fewer))), (("micro_batch", str(fewer)),))
    ways = [way for way in (one_by_one, *ways_on_a_cpu(job)) if helps(way)]
    shorter = filter(helps, shorter_windows_on_a_cpu(job, job.recipe.batch_size))
    return list(map(str, ways or itertools.islice(shorter, 1)))
