"""Other options by which a job fits that does not: what is kept, the host's help, other regimes, skipped positions, adapters, shorter windows, more chips.

in   a job that does not fit, the recipe as it was asked for, chips
out  `Way`s: what of it changes, as it is typed, and the job by them; the best first
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from ropewalk.planner import machines
from ropewalk.planner.chips import Chip
from ropewalk.planner.job import Job
from ropewalk.planner.layout import job_that_fits
from ropewalk.planner.memory import GIB, step_memory
from ropewalk.planner.regimes import AUTO, allowed, on_cpu
from ropewalk.settings.budget import HOST_SHARE
from ropewalk.settings.extras import installed
from ropewalk.settings.recipe import Mode, Precision, Recipe

#: Tokens in memory with positions skipped: the paper's (PoSE, arXiv 2309.10400), and fewer where these do not fit.
_POSE_TOKENS = (2048, 1024, 512, 256)


@dataclass(frozen=True)
class Way:
    """Other options for a job: what of it changes, as it is typed beside what was asked for, and the job by them."""

    job: Job
    options: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in self.options)

    @property
    def one_by_one(self) -> list[Way]:
        """The same with one window at a time, where more were asked for."""
        if (self.job.recipe.micro_batch or 1) == 1:
            return []
        job = self.job.with_recipe(replace(self.job.recipe, micro_batch=1)).with_micro(1)
        return [Way(job, (*self.options, ("micro_batch", "1")))]


def ways_with_one_window(job: Job, asked: Recipe) -> Iterator[list[Way]]:
    """The job as asked, but with one window at a time where more were, by each regime that is left open."""
    if (one := _one_by_one(asked)) != asked:
        options = _way(job, one, asked).options  # what is chosen by itself needs no name
        yield [Way(job.with_recipe(settled).with_micro(1), options) for settled in allowed(one, gpus=job.gpus)]


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
    """The job with positions skipped, for where whole windows fit by no regime, each number of tokens: as asked, by each regime that this leaves open; then with all of it left open."""
    left_open = replace(asked, activations=AUTO, precision=_any_precision(job), optimizer=AUTO)
    both = zip(_skipping(asked, job.shape.window), _skipping(left_open, job.shape.window), strict=True)
    for recipe in itertools.chain.from_iterable(both):
        options = _way(job, recipe, asked).options  # what is chosen by itself needs no name
        yield [Way(job.with_recipe(settled), options) for settled in allowed(recipe, gpus=job.gpus)]


def by_mode(ways: Iterable[Way]) -> Iterator[list[Way]]:
    """Ways of which one is as good as another but for precision and optimiser: by mode and bits of the base."""
    for _, alike in itertools.groupby(ways, lambda way: (way.job.recipe.mode, way.job.recipe.base_bits)):
        yield list(alike)


def ways_on_a_cpu(job: Job, fits: Callable[[Way], bool]) -> Iterator[Way]:
    """Those that fit: the job window by window; with what is kept chosen; with positions skipped, in the original window and in as short a one as the paper's, or
    in the longest of `_POSE_TOKENS`; with adapters."""
    asked = job.recipe  # precision and optimiser that are left open are always the same here
    recipe = _checkpointed(asked)

    def fitting(recipes: Iterable[Recipe]) -> Iterator[Way]:
        for way in (_way(job, other, asked) for other in recipes if other != asked):
            yield from itertools.islice(filter(fits, (way, *way.one_by_one)), 1)

    skipping, known = _skipping(recipe, job.shape.window), 1 + (job.shape.window > _POSE_TOKENS[0])
    yield from fitting(dict.fromkeys((_one_by_one(asked), recipe)))
    yield from list(fitting(skipping[:known])) or itertools.islice(fitting(skipping[known:]), 1)
    yield from fitting(_with_adapters(recipe))


def _skipping(recipe: Recipe, own: int) -> list[Recipe]:
    """The recipe with positions skipped, in the model's own window and in shorter ones, where it trains every weight on longer ones."""
    if recipe.mode != "full" or recipe.longce is not None or own >= recipe.window:
        return []
    chunks = [None, *(tokens for tokens in _POSE_TOKENS if tokens < own)]
    return [replace(recipe, mode="pose", chunk_window=tokens) for tokens in chunks]


def _checkpointed(recipe: Recipe) -> Recipe:
    """The recipe without every activation kept; full checkpointing stays, which training may have chosen itself, since auto keeps no less."""
    return replace(recipe, activations=AUTO) if recipe.activations == "none" else recipe


def _one_by_one(recipe: Recipe) -> Recipe:
    """The recipe with one window at a time where more were asked for; a number that is left open is as small as it must be (regimes.py)."""
    return replace(recipe, micro_batch=recipe.micro_batch and 1)


def _with_adapters(recipe: Recipe) -> Iterator[Recipe]:
    """The recipe with adapters, then on weights in four bits, where it has no such thing and leaves room for it; what bitsandbytes does on a CPU too."""
    if recipe.mode == "full":
        yield replace(recipe, mode="lora")
    if recipe.mode != "pose" and not recipe.base_bits and recipe.optimizer != "adamw-offload":
        yield replace(recipe, mode="lora", base_bits=4)


def shorter_windows_on_a_cpu(job: Job, batch_size: int | None) -> Iterator[Way]:
    """The job at half the window, a quarter and so on, in its own mode and then with adapters. batch_size: as asked for."""
    asked = job.recipe
    for window in _shorter(asked, job.shape.window):
        shorter = replace(_one_by_one(_checkpointed(asked)), **window, batch_size=batch_size)
        yield from (_way(job, recipe, asked) for recipe in (shorter, *_with_adapters(shorter)))


def _shorter(asked: Recipe, own: int) -> Iterator[dict[str, Any]]:
    """Half the window, a quarter and so on, as long as that is longer than the model's own; with positions skipped, which take the memory of their chunks
    alone, half the chunk, down to the least of `_POSE_TOKENS`."""
    name, size, most = "window", asked.window, max(own, asked.longce or 0)  # LongCE's short context stays short
    if asked.mode == "pose":
        name, size, most = "chunk_window", asked.tokens_in_memory(own), min(_POSE_TOKENS) - 1
    while (size := size // 2) > most:
        yield {name: size}


def _way(job: Job, recipe: Recipe, asked: Recipe) -> Way:
    names = ("window", "precision", "optimizer", "activations", "micro_batch", "mode", "base_bits", "chunk_window")
    changed = [(name, str(getattr(recipe, name))) for name in names if getattr(recipe, name) != getattr(asked, name)]
    return Way(job.with_recipe(recipe), tuple(changed))


def ways_with_a_shorter_window(job: Job, asked: Recipe) -> Iterator[list[Way]]:
    """The job by each of `_shorter`: as asked, then by other options."""
    for window in _shorter(asked, job.shape.window):
        shorter = replace(asked, **window)
        settled = replace(job.recipe, **window, batch_size=asked.batch_size)
        yield [_way(job, recipe, asked) for recipe in allowed(shorter, gpus=job.gpus)]
        for ways in by_mode(ways_on_the_same_chips(job.with_recipe(settled), shorter)):
            yield [_way(job, way.job.recipe, asked) for way in ways]


def ways_with_more_host(job: Job, asked: Recipe) -> Iterator[list[Way]]:
    """The job beside two, four and eight times the host's memory, where it reaches that at all, by each regime that was left open."""
    for times in (2, 4, 8) if job.fused and job.host else ():
        size = math.ceil(job.host * times / HOST_SHARE / GIB)
        more = replace(job, host=size * GIB * HOST_SHARE)
        options = (("host_memory", f"{size}GiB"),)
        yield [Way(more.with_recipe(recipe), options) for recipe in allowed(asked, gpus=job.gpus)]


def ways_on_more_chips(job: Job, chip: Chip, asked: Recipe, *, every: bool) -> Iterator[list[Way]]:
    """The job on twice as many chips and more, in its own mode: as asked, by each regime that this leaves open; then by every other.

    every: then also in the modes that the same chips get, with positions skipped and by adapters; for where nothing fits these.
    """
    many = [replace(job, gpus=job.gpus * times, replicas=1) for times in (2, 4, 8, 16, 32, 64, 128)]

    def own(more: Job) -> Iterator[list[Way]]:
        # Which of these is taken there is chosen as it is here, and so needs no name.
        as_asked = [more.with_recipe(recipe) for recipe in allowed(asked, gpus=more.gpus)]
        same_mode = [way for way in ways_on_the_same_chips(more, asked) if way.job.recipe.mode == job.recipe.mode]
        yield [Way(job, ()) for job in as_asked]
        yield [way for way in same_mode if way.job not in as_asked]

    def others(more: Job) -> Iterator[list[Way]]:
        yield from ways_with_positions_skipped(more, asked)
        yield from by_mode(w for w in ways_on_the_same_chips(more, asked) if w.job.recipe.mode != job.recipe.mode)

    for kind in (own, others) if every else (own,):
        for more in many:
            chips = f"{more.gpus}x{chip.name}" if chip.matrix else str(more.gpus)  # of which the memory alone was given
            for ways in kind(more):
                yield [Way(way.job, (("gpus", chips), *way.options)) for way in ways]


def ways_out(job: Job, chip: Chip) -> list[str]:
    """Options by which a job fits that does not, as training takes them: the host's help first, other regimes, skipped positions where none fits, adapters, and then more chips.

    The job's precision and optimiser are settled, and nothing says which of them were asked for: each way names both.
    """
    asked = replace(job.recipe, precision=_any_precision(job), optimizer=AUTO)

    def fitting(choices: Iterable[Iterable[Way]]) -> list[Way]:
        """Of each choice the first that fits."""
        found = (next((way for way in ways if job_that_fits(way.job, chip)), None) for ways in choices)
        return list(filter(None, found))

    here = fitting(ways_with_one_window(job, job.recipe))
    here += fitting((way, *way.one_by_one) for way in ways_on_the_same_chips(job, asked))
    if all(way.job.recipe.mode != job.recipe.mode for way in here):
        skipping = itertools.chain.from_iterable(ways_with_positions_skipped(job, job.recipe))
        here[:0] = fitting((way, *way.one_by_one) for way in skipping)[:1]
    ways = [str(way) for way in here]
    more_chips = itertools.chain.from_iterable(ways_on_more_chips(job, chip, job.recipe, every=not here))
    for way in itertools.chain.from_iterable((way, *way.one_by_one) for way in more_chips):
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

    shorter = filter(helps, shorter_windows_on_a_cpu(job, job.recipe.batch_size))
    return list(map(str, list(ways_on_a_cpu(job, helps)) or itertools.islice(shorter, 1)))
