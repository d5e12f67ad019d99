"""The machines that a plan is for: the host's memory beside each chip, and what they cannot do together.

in   the settings of a plan, a number of chips
out  bytes; or a sentence
"""

from __future__ import annotations

from ropewalk.errors import UserError
from ropewalk.planner.chip_names import gibibytes
from ropewalk.planner.chips import Chip
from ropewalk.planner.job import Job
from ropewalk.planner.memory import GIB
from ropewalk.settings.budget import HOST_SHARE, host_room
from ropewalk.settings.plan import PlanSettings
from ropewalk.settings.recipe import Recipe


def refuse_untaken(recipe: Recipe, gpus: int, *, cp: int | None = None, replicas: int | None = None) -> None:
    """Refuse what training would not take on so many chips, 0 for a CPU; what is proposed is held against it too.

    Raises:
        UserError: with what would be taken.
    """
    _refuse_undivided(recipe, max(gpus, 1), cp, replicas)
    if recipe.optimizer == "adamw-offload" and gpus != 1:  # training/optimizer.py
        raise UserError(
            "adamw-offload keeps states in the host's memory while one GPU trains, and this plan has "
            f"{f'{gpus} chips' if gpus else 'no GPU'}; plan for one GPU, or with adamw or adamw-8bit"
        )
    if recipe.base_bits and gpus > 1:
        raise UserError(
            f"--base-bits {recipe.base_bits} trains on one chip, and there are {gpus}; leave it out, or plan for one"
        )


def takes(job: Job, *, cp: int | None = None, replicas: int | None = None) -> bool:
    """Whether training takes a job, by `refuse_untaken`."""
    try:
        refuse_untaken(job.recipe, job.gpus, cp=cp, replicas=replicas)
    except UserError:
        return False
    return True


def _refuse_undivided(recipe: Recipe, gpus: int, cp: int | None, replicas: int | None) -> None:
    if cp is not None and (cp < 1 or gpus % cp):
        raise UserError(f"cp divides the number of chips, and {cp} does not divide {gpus}; choose a divisor")
    if replicas is not None and (replicas < 1 or gpus % (replicas * (cp or 1))):
        raise UserError(
            f"each of {replicas} copies of the weights has as many chips{f', a multiple of --cp {cp}' if cp else ''}, and {gpus} chips do not "
            "divide so; choose another --replicas"
        )
    if (micro := recipe.micro_batch) is not None and micro > recipe.batch:
        raise UserError(
            f"a micro batch holds between 1 window and the batch size {recipe.batch}, got {micro}; leave it out to have it chosen"
        )


def refuse_beside_unified(settings: PlanSettings, count: int, chip: Chip) -> None:
    """Refuse what an Apple chip has not: others beside it, and a host's memory beside its own."""
    if chip.on_cpu and count > 1:
        raise UserError(
            f"one {chip.name} trains by itself, and there are {count}; plan for one, or for GPUs that are joined, as in 8xH100"
        )
    if chip.on_cpu and settings.host_memory is not None:
        raise UserError(
            f"the memory of {chip.name} is the host's as well, and --host-memory counts it twice; leave it out"
        )


def host_memory(settings: PlanSettings, gpus_here: int, chip: Chip | None) -> float:
    """Bytes that each chip's process may take of the host."""
    if size := settings.host_memory if settings.host_memory is not None else assumed_host(settings, chip):
        return gibibytes(size, "host-memory", least=0) * GIB * HOST_SHARE
    return host_room(max(1, gpus_here))


def assumed_host(settings: PlanSettings, chip: Chip | None) -> str:
    """The host's memory of machines that are not here, where nobody says how much that is."""
    here = settings.gpus is None and settings.gpu_memory is None
    return "" if here or chip is None or settings.host_memory is not None else f"{chip.host}GiB"
