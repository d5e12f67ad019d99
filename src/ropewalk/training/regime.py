"""Precision and optimiser of a run that was given neither, settled before its model is loaded (planner/regimes.py has the rule).

in   settings, the checkpoint that is trained, the devices
out  the same settings with both named; one line that says which and why
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import torch

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.distributed import ranks
from ropewalk.distributed.mesh import Mesh
from ropewalk.errors import UserError
from ropewalk.planner import calibrate
from ropewalk.planner.chips import Chip
from ropewalk.planner.job import FULL, NONE, Job
from ropewalk.planner.layout import least
from ropewalk.planner.memory import CONTEXT, GIB, step_memory
from ropewalk.planner.named import shape_of
from ropewalk.planner.regimes import (
    ON_CPU,
    allowed,
    first_that_fits,
    is_settled,
    on_cpu,
    refuse_without_torchao,
    with_regime,
    without_bfloat16,
)
from ropewalk.planner.ways import ways_out, ways_out_on_a_cpu
from ropewalk.sentences import apart, counted, sizes_apart
from ropewalk.settings.budget import host_room, memory_to_hold, micro_windows
from ropewalk.settings.command import arguments
from ropewalk.settings.recipe import Recipe
from ropewalk.settings.train import TrainSettings
from ropewalk.training.snapshots import CHECKPOINTS, Snapshots

_logger = logging.getLogger(__name__)
#: What "auto" meant on a GPU before it chose.
_BEFORE = ("bfloat16", "adamw")


def settled(settings: TrainSettings, checkpoint: Checkpoint, mesh: Mesh, out: Path) -> TrainSettings:
    """The settings with a precision and an optimiser: those of the checkpoint in `out` that the run goes on from, or the first that fit here.

    A warm-up that is not given is that checkpoint's too.

    Raises:
        UserError: what fits needs torchao, which is not installed.
    """
    before = ranks.same(Snapshots(out / CHECKPOINTS).newest() if settings.resume and mesh.main else None)
    about = None if before is None else before.about
    if about is not None and settings.warmup is None:  # more steps would make it another
        settings = replace(settings, warmup=about["identity"].get("warmup"))
    if mesh.device.type != "cuda":
        if about is not None and settings.micro_batch is None:  # other sums would end in other weights
            settings = replace(settings, micro_batch=about.get("micro_batch"))
        return _on_a_cpu(settings, checkpoint, mesh)
    if not calibrate.has_bfloat16():
        settings = without_bfloat16(settings, torch.cuda.get_device_name(mesh.device))
        if mesh.main:
            _logger.info("precision float32: this GPU knows no bfloat16")
    if is_settled(settings):
        return settings
    if about is not None:
        return with_regime(settings, about.get("precision", _BEFORE[0]), about["identity"]["optimizer"])
    try:
        first = job_here(with_regime(settings, *_BEFORE), checkpoint, mesh)
    except UserError:  # a family whose memory nobody can count
        return _uncounted(with_regime(settings, *_BEFORE), mesh)
    recipes, chip = allowed(_recipe(settings), gpus=mesh.world), card_here(mesh)
    job, fits = first_that_fits(
        recipes, lambda recipe: least(first.with_recipe(recipe), chip), lambda job: job.activations.short
    )
    _say(first, job, chip, fits, mesh)
    return with_regime(settings, job.recipe.precision, job.recipe.optimizer)


def _on_a_cpu(settings: TrainSettings, checkpoint: Checkpoint, mesh: Mesh) -> TrainSettings:
    """The settings on a CPU, with fewer windows at a time or full checkpointing where this machine's free memory does not hold more and nobody said otherwise."""
    is_open, settings = not is_settled(settings), with_regime(settings, *ON_CPU)
    chosen = _named(settings) * is_open
    try:
        job, room = job_here(settings, checkpoint, mesh, on_gpu=False), ranks.same(memory_to_hold(ranks.local_size()))
    except UserError:  # a family whose memory nobody can count
        return _uncounted(settings, mesh) if chosen else settings
    laid_out = on_cpu(job, room)
    if mesh.main:
        _say_on_a_cpu(chosen, job, laid_out, room)
    micro = laid_out.micro if laid_out.micro < job.micro else settings.micro_batch
    activations = "full" if laid_out.activations == FULL else settings.activations
    return replace(settings, activations=activations, micro_batch=micro)


def _say_on_a_cpu(chosen: str, job: Job, laid_out: Job, room: int) -> None:
    """One line: what was chosen, what of it gives way to memory, and what a step takes; and what would fit, where it does not by plan.

    chosen: precision and optimiser, where they were.
    """
    kept = FULL if job.recipe.activations == "full" else NONE
    need = step_memory(laid_out, cpu=True).total
    most, takes, there = sizes_apart(step_memory(replace(job, activations=kept), cpu=True).total, need, room)
    less = [f"--micro-batch {laid_out.micro}"] * (laid_out.micro < job.micro)
    less += ["--activations full, which computes them again"] * (laid_out.activations != kept)
    results = "the layers' inputs" if kept == FULL else "all activations"
    why = f"{' and '.join(less)}, since keeping {results} of {counted(job.micro, 'window')} takes about {most}"
    said = "; ".join([chosen] * bool(chosen) + [why] * bool(less) + [f"a step takes about {takes} by plan"])
    if need > room:
        ways = ways_out_on_a_cpu(job, room)
        fitting = f"what fits: {', or '.join(ways)}" if ways else "nothing that was tried fits"
        _logger.warning(f"{said}, and there are {there}; it is tried all the same; {fitting}")
    elif chosen or less:
        _logger.info(f"{said}, and there are {there}")


def _uncounted(settings: TrainSettings, mesh: Mesh) -> TrainSettings:
    """The settings, of which it is said that they were not tried."""
    if mesh.main:
        _logger.info(f"{_named(settings)}: what a step of this family takes is not known")
    return settings


def _named(recipe: Recipe) -> str:
    return f"precision {recipe.precision}, optimizer {recipe.optimizer}"


def _recipe(settings: TrainSettings) -> Recipe:
    """All of the settings that memory depends on, as the planner takes it."""
    return Recipe(**arguments(Recipe, settings))


def _needed(job: Job) -> float:
    return step_memory(job).total


def _say(first: Job, job: Job, chip: Chip, fits: bool, mesh: Mesh) -> None:
    """One line: what was chosen, and what the first regime would have taken."""
    takes, need, have = apart(_needed(first) / GIB, _needed(job) / GIB, chip.memory)
    have = f"{have} GiB of {chip.name}"
    why = f"{first.recipe.precision} with {first.recipe.optimizer} takes {takes} GiB and there are {have}"
    if fits:
        refuse_without_torchao(job.recipe, why)
    if not mesh.main:
        return
    words = _named(job.recipe)
    if fits:
        _logger.info(f"{words}: {need} of {have} at least" + ("" if job.recipe == first.recipe else f" ({why})"))
    else:
        _logger.warning(f"{words} takes {need} GiB at least by plan, and there are {have}; it is tried all the same")


def job_here(settings: TrainSettings, checkpoint: Checkpoint, mesh: Mesh, *, on_gpu: bool = True) -> Job:
    """What training does on these devices, as the planner has it; precision and optimiser are named.

    Raises:
        UserError: a family whose layers the planner cannot count.
    """
    raised = settings.window if settings.raise_sliding_window else None
    shape = shape_of(checkpoint.weights_of or checkpoint, raised=raised)
    job = Job(
        shape,
        _recipe(settings),
        gpus=mesh.world,
        cp=mesh.context_size,
        replicas=settings.replicas,
        host=host_room(ranks.local_size()),
        fused=on_gpu,
        tiled=on_gpu,
        bfloat16=not on_gpu or calibrate.has_bfloat16(),
    )
    per_device = max(1, settings.batch // mesh.data_size)
    return job.with_micro(settings.micro_batch or micro_windows(job.length, per_device, on_gpu=on_gpu))


def is_short(settings: TrainSettings, checkpoint: Checkpoint, mesh: Mesh) -> bool:
    """Whether by plan these devices hold the least that can be kept in small tiles of the MLP alone, or not even so; the model may be there by now."""
    if mesh.device.type != "cuda":
        return False
    try:
        return least(job_here(settings, checkpoint, mesh), card_here(mesh))[0].activations.short
    except UserError:  # a family whose memory nobody can count
        return False


def card_here(mesh: Mesh) -> Chip:
    """The device with least free memory, as a chip."""
    return _card(mesh, min(ranks.everyones(_room(mesh))))


def _room(mesh: Mesh) -> int:
    """Bytes that this process may take of its device; what it has taken already, for CUDA too, is in every plan."""
    free, total = torch.cuda.mem_get_info(mesh.device)
    return int(min(total, free + torch.cuda.memory_reserved(mesh.device) + CONTEXT))


def _card(mesh: Mesh, room: int) -> Chip:
    return calibrate.card(torch.cuda.get_device_name(mesh.device), room)


def what_fits(settings: TrainSettings, checkpoint: Checkpoint, mesh: Mesh) -> list[str]:
    """Options with which the model would fit, tried by the planner on devices like this one; none where it cannot tell.

    The others are not asked: they may be in a pass, and wait for this process.
    """
    on_gpu = mesh.device.type == "cuda"
    try:
        job = job_here(settings, checkpoint, mesh, on_gpu=on_gpu)
    except UserError:
        return []
    if on_gpu:
        return ways_out(job, _card(mesh, _room(mesh)))
    return ways_out_on_a_cpu(job, memory_to_hold(ranks.local_size()))
