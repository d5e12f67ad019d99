"""From a model's name and a recipe to a `Plan`, without loading anything.

in   a model's name (named.py) and the settings of a run
out  a `Plan`: the job as laid out, memory by part, time, hours, cost
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from dataclasses import replace
from pathlib import Path

from ropewalk.checkpoint.longer import rotated_apart
from ropewalk.errors import UserError
from ropewalk.planner import layout, machines, regimes
from ropewalk.planner.chip_names import gibibytes, parse
from ropewalk.planner.chips import Chip, Rates, cpu_of_memory, datasheet_rates, of_memory
from ropewalk.planner.job import Job
from ropewalk.planner.memory import GIB, step_memory
from ropewalk.planner.named import shape_of
from ropewalk.planner.planned import ASSUMED_FACTOR, Plan, compiled, trained_rope
from ropewalk.planner.shape import Shape
from ropewalk.planner.speed import step_time
from ropewalk.settings.budget import memory_here
from ropewalk.settings.command import option_name, takes
from ropewalk.settings.extras import bringing, installed
from ropewalk.settings.plan import PlanSettings
from ropewalk.settings.windows import perhaps_thousands

_logger = logging.getLogger(__name__)


@takes(PlanSettings)
def plan(settings: PlanSettings) -> Plan:
    """Plan a training run, without loading anything.

    Raises:
        UserError: no such model or chip, a config without the keys that give a shape, values out of range.
    """
    shape = shape_of(settings.model, **settings.opening)
    assumed_window, window = settings.window is None, settings.window or ASSUMED_FACTOR * shape.window
    settings = replace(settings, window=window)
    if settings.raise_sliding_window:
        shape = shape_of(settings.model, raised=window, **settings.opening)
    if window < shape.window:
        raise UserError(
            f"{shape.name} reads {shape.window} tokens already, more than the window {window}{perhaps_thousands(window, shape.window)}; plan for {shape.window} or more"
        )
    with contextlib.suppress(UserError):  # which the plan says, where training takes no such model
        shape = replace(shape, turned_apart=rotated_apart(trained_rope(shape, window, settings)))
    asked, settings = settings, settings.for_model(shape.parameters)
    count, chip = _chips(settings)
    on_gpu = count > 0 if chip is None else not chip.on_cpu
    machines.refuse_untaken(settings, count if on_gpu else 0, cp=settings.cp, replicas=settings.replicas)
    job = _job(settings, shape, count, chip, on_gpu)
    if not on_gpu:
        job, chip, rates = _on_cpu(job, chip)
        need = step_memory(job, cpu=True)
        fits = need.total <= chip.memory * GIB
        time = step_time(job, rates, chip)
        return Plan(job, chip, rates, need, time, fits, settings.price, asked, assumed_window=assumed_window)
    layout.refuse_undivided(job, settings.cp)
    if not (_has_bfloat16_here() if chip is None else chip.bfloat16):
        name = "the GPU here" if chip is None else chip.name
        asked, settings = (regimes.without_bfloat16(recipe, name) for recipe in (asked, settings))
        job = replace(job, recipe=settings, bfloat16=False)
    first = job.with_recipe(regimes.allowed(settings, gpus=job.gpus)[0])
    if chip is None:
        chip, rates = _measured(first)
    else:
        rates = datasheet_rates(chip)
    job, fits = regimes.first_that_fits(
        regimes.allowed(settings, gpus=job.gpus),
        lambda recipe: layout.choose(job.with_recipe(recipe), chip, rates, cp=settings.cp, replicas=settings.replicas),
        lambda job: layout.is_short(job, chip),
    )
    memory, time = step_memory(job), step_time(job, rates, chip)
    fixed = settings.cp, settings.replicas
    assumed_host = machines.assumed_host(settings, chip)
    return Plan(job, chip, rates, memory, time, fits, settings.price, asked, "", *fixed, assumed_host, assumed_window)


def _chips(settings: PlanSettings) -> tuple[int, Chip | None]:
    """How many of which chip; no chip where this machine is to be timed, or there is none."""
    if settings.cpu_memory is not None:
        for name in ("gpus", "gpu_memory", "host_memory"):
            if getattr(settings, name) is not None:
                raise UserError(
                    f"--cpu-memory is of a machine without a GPU, and --{option_name(name)} of one with; leave one of the two out"
                )
        return 1, cpu_of_memory(gibibytes(settings.cpu_memory, "cpu-memory"), "its memory alone is known")
    size = None if settings.gpu_memory is None else gibibytes(settings.gpu_memory, "gpu-memory")
    if settings.gpus is not None:
        count, chip = parse(settings.gpus, size)
        machines.refuse_beside_unified(settings, count, chip)
        known = chip.matrix or chip.on_cpu  # of a count alone the name says its memory
        return count, replace(chip, limit=settings.gpu_memory) if settings.gpu_memory and known else chip
    return (_gpus_here(), None) if size is None else (1, of_memory(size))


def _job(settings: PlanSettings, shape: Shape, count: int, chip: Chip | None, on_gpu: bool) -> Job:
    """The job before it is laid out."""
    recipe = settings if on_gpu else regimes.with_regime(settings, *regimes.ON_CPU)
    host = machines.host_memory(settings, count, chip)
    job = Job(
        shape,
        recipe,
        gpus=max(count, 1),
        cp=settings.cp or 1,
        micro=settings.micro_batch or 1,
        replicas=settings.replicas or 1,
        host=host if on_gpu else 0.0,
        tiled=on_gpu,
    )
    return compiled(job) if on_gpu else replace(job, fused=False)


def _on_cpu(job: Job, chip: Chip | None) -> tuple[Job, Chip, Rates]:
    """The job on CPU cores, which it has to itself. chip: a machine that is not here; this one, timed, if not given."""
    if chip is None and not installed("torch"):
        source = f"its memory alone is known; timing it needs torch: {bringing('torch')}"
        chip = cpu_of_memory(memory_here() / GIB, source)
    elif chip is None:
        from ropewalk.planner import calibrate

        chip = calibrate.cpu_here()  # before it is timed, which leaves holes in the heap
        job = regimes.on_cpu(job, chip.memory * GIB)
        return job, chip, _measured(job)[1]
    return regimes.on_cpu(job, chip.memory * GIB), chip, datasheet_rates(chip)


def _measured(job: Job) -> tuple[Chip, Rates]:
    from ropewalk.planner import calibrate

    _logger.info(
        "timing this machine at the model's own shapes, which takes ten seconds and, where other programs run, several times as long"
    )
    return calibrate.present(job)


def _has_bfloat16_here() -> bool:
    from ropewalk.planner import calibrate

    return calibrate.has_bfloat16()


def _gpus_here() -> int:
    """GPUs of this machine; torch, which counts them, is imported only if a driver is installed."""
    if not (shutil.which("nvidia-smi") or Path("/dev/nvidia0").exists() or Path("/dev/kfd").exists()):
        return 0
    if not installed("torch"):
        raise UserError(
            f"timing this machine's GPUs needs torch, which is not installed: {bringing('torch')}; or name them, as in --gpus 8xH100"
        )
    from ropewalk.planner import calibrate

    return calibrate.gpus()
