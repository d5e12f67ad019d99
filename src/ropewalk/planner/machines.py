"""The machines that a plan is for: the host's memory beside each chip, and what they cannot do together.

in   the settings of a plan, a number of chips
out  bytes; or a sentence
"""

from __future__ import annotations

from ropewalk.errors import UserError
from ropewalk.planner.chip_names import gibibytes
from ropewalk.planner.chips import Chip
from ropewalk.planner.memory import GIB
from ropewalk.settings.budget import HOST_SHARE, host_room
from ropewalk.settings.plan import PlanSettings

#: The host's memory for each chip, where nobody says: what machines of this kind have at least.
_HOST = "128GiB"


def refuse_undivided(settings: PlanSettings, gpus: int) -> None:
    cp, replicas, micro = settings.cp, settings.replicas, settings.micro_batch
    if cp is not None and (cp < 1 or gpus % cp):
        raise UserError(f"cp divides the number of chips, and {cp} does not divide {gpus}; choose a divisor")
    if replicas is not None and (replicas < 1 or gpus % (replicas * (cp or 1))):
        raise UserError(
            f"each of {replicas} copies of the weights has as many chips{f', a multiple of --cp {cp}' if cp else ''}, and {gpus} chips do not "
            "divide so; choose another --replicas"
        )
    if micro is not None and micro > settings.batch:
        raise UserError(
            f"a micro batch holds between 1 window and the batch size {settings.batch}, got {micro}; leave it out to have it chosen"
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


def refuse_offload(settings: PlanSettings, count: int, on_gpu: bool) -> None:
    """As training does (training/optimizer.py)."""
    if settings.optimizer == "adamw-offload" and (count > 1 or not on_gpu):
        raise UserError(
            "adamw-offload keeps states in the host's memory while one GPU trains, and this plan has "
            f"{f'{count} chips' if on_gpu else 'no GPU'}; plan for one GPU, or with adamw or adamw-8bit"
        )


def host_memory(settings: PlanSettings, gpus_here: int) -> float:
    """Bytes that each chip's process may take of the host."""
    if size := settings.host_memory if settings.host_memory is not None else assumed_host(settings):
        return gibibytes(size, "host-memory") * GIB * HOST_SHARE
    return host_room(max(1, gpus_here))


def assumed_host(settings: PlanSettings) -> str:
    """The host's memory of machines that are not here, where nobody says how much that is."""
    here = settings.gpus is None and settings.gpu_memory is None
    return "" if here or settings.host_memory is not None else _HOST
