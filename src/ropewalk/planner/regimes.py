"""`--precision auto` and `--optimizer auto`: the first regime that fits, of those that take less memory one after the other.

in   a recipe, and what says whether a settled one fits
out  the recipe with both settled; training and `plan` decide it here

What costs the least comes first: float32 master weights; bfloat16 weights whose updates are rounded by chance; moments in 8 bits; states in
the host's memory, which need float32 weights and so take more of a GPU than stochastic rounding: they are for who asks for bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

from ropewalk.errors import UserError
from ropewalk.planner.job import FULL, NONE, Job
from ropewalk.planner.memory import step_memory
from ropewalk.settings.budget import micro_windows
from ropewalk.settings.extras import bringing, installed
from ropewalk.settings.recipe import Recipe

R = TypeVar("R", bound=Recipe)
T = TypeVar("T")
AUTO = "auto"
_STOCHASTIC = "bfloat16-stochastic"
#: (precision, optimiser) on a GPU, in the order in which they are tried.
_ORDER = (
    ("bfloat16", "adamw"),
    (_STOCHASTIC, "adamw"),
    (_STOCHASTIC, "adamw-8bit"),
    ("bfloat16", "adamw-8bit"),
    ("bfloat16", "adamw-offload"),
    ("float32", "adamw"),
    ("float32", "adamw-8bit"),
    ("float32", "adamw-offload"),
)
#: Where there is no GPU.
ON_CPU = ("float32", "adamw")


def on_cpu(job: Job, room: float) -> Job:
    """A job as training runs it on a CPU: micro batches of about 2048 tokens, and every activation kept; or what takes less, where that was left open.

    First fewer windows at a time, which costs no time; then each layer's input alone is kept. Of what does not fit, what takes least.

    room: bytes that the process may take. A system short of memory ends it unasked.
    """
    recipe = job.recipe
    micro = recipe.micro_batch or micro_windows(job.length, max(1, recipe.batch // job.dp), on_gpu=False)
    micros = [micro] if recipe.micro_batch else [micro >> halved for halved in range(micro.bit_length())]
    kept = {"none": [NONE], "full": [FULL]}.get(recipe.activations, [NONE, FULL])
    ways = [replace(job, micro=micro, activations=activations) for activations in kept for micro in micros]
    needs = [step_memory(way, cpu=True).total for way in ways]
    return next((way for way, need in zip(ways, needs, strict=True) if need <= room), ways[needs.index(min(needs))])


def is_settled(recipe: Recipe) -> bool:
    """Whether nothing is left to be chosen."""
    return AUTO not in (recipe.precision, recipe.optimizer)


def with_regime(recipe: R, precision: str, optimizer: str) -> R:
    """The recipe with what was left open filled in."""
    return replace(
        recipe,
        precision=precision if recipe.precision == AUTO else recipe.precision,
        optimizer=optimizer if recipe.optimizer == AUTO else recipe.optimizer,
    )


def without_bfloat16(recipe: R, where: str) -> R:
    """The recipe on GPUs that know no bfloat16: float32, where nothing is asked for. where: the GPU's name.

    PyTorch computes products of bfloat16 there in float32, slowly; and its memory-efficient attention, the one kernel there that never makes the whole
    square, takes float16 and float32 alone below compute capability 8.0 (aten's sdp_utils.cpp, `less_than_sm80_mem_efficient_dtypes`).

    Raises:
        UserError: another precision than float32 is asked for.
    """
    if recipe.precision not in (AUTO, "float32"):
        raise UserError(
            f"{recipe.precision} needs GPUs that know bfloat16 (compute capability 8.0 and later), and {where} does not: attention would make the scores of "
            "all pairs of tokens; use --precision float32, the default there"
        )
    return replace(recipe, precision="float32")


def allowed(recipe: R, *, gpus: int = 1, every: bool = False) -> list[R]:
    """The recipe in every regime that its options leave open, in the order in which they are tried.

    every: also those that are never chosen, since one before them takes less.
    """
    return [with_regime(recipe, *pair) for pair in _ORDER if _allows(recipe, *pair, gpus, every)]


def _allows(recipe: Recipe, precision: str, optimizer: str, gpus: int, every: bool) -> bool:
    lora = recipe.mode == "lora"
    if recipe.precision == AUTO and (precision == "float32" or (lora and precision == _STOCHASTIC)):
        return False  # adapters are float32 whatever they sit on: chance would round nothing
    if recipe.optimizer == AUTO and optimizer == "adamw-offload":  # of no use to adapters, and one process's
        taken = lora or gpus > 1 or (recipe.precision == AUTO and not every)
        return not taken and recipe.precision in (AUTO, precision)
    return recipe.precision in (AUTO, precision) and recipe.optimizer in (AUTO, optimizer)


def first_that_fits(
    recipes: list[R], plan: Callable[[R], tuple[Job, bool]], short: Callable[[Job], bool]
) -> tuple[Job, bool]:
    """What `plan` makes of the recipe that `first_of` takes of those that fit, and True; or of the one that needs least, and False.

    plan: what a recipe comes to, and whether that fits. short: whether it does in small tiles of the MLP alone.
    """
    others = list[Job]()

    def fitting() -> Iterator[Job]:
        for recipe in recipes:
            job, fits = plan(recipe)
            if fits:
                yield job
            else:
                others.append(job)

    first = first_of(fitting(), short)
    return (first, True) if first else (min(others, key=lambda job: step_memory(job).total), False)


def first_of(fitting: Iterable[T], short: Callable[[T], bool]) -> T | None:
    """The first that is not short, or else the first; None of none."""
    first = None
    for each in fitting:
        if not short(each):
            return each
        first = first or each
    return first


def refuse_without_torchao(recipe: Recipe, why: str) -> None:
    """Refuse a regime whose optimiser is torchao's where there is none. why: what would not fit without it.

    Raises:
        UserError: with the line that installs it.
    """
    if needs_torchao(recipe) and not installed("torchao"):
        raise UserError(
            f"{why}; --precision {recipe.precision} --optimizer {recipe.optimizer} fits and needs torchao, which is not installed: "
            f"{bringing('torchao')}, or choose --precision and --optimizer yourself"
        )


def needs_torchao(recipe: Recipe) -> bool:
    """Whether the optimiser is one of torchao's (training/optimizer.py)."""
    return recipe.precision == _STOCHASTIC or recipe.optimizer == "adamw-8bit"
