"""From a model's name and a recipe to a `Plan`, without loading anything.

in   a model's name (named.py) and the settings of a run
out  a `Plan`: the job as laid out, memory by part, time, hours, cost
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.layers import refuse_to_extend
from ropewalk.checkpoint.longer import longer, refuse_as_it_is, rotated_apart
from ropewalk.checkpoint.model_info import ModelInfo, info_of
from ropewalk.checkpoint.rope_config import RopeConfig
from ropewalk.errors import UserError
from ropewalk.planner import layout, machines, regimes
from ropewalk.planner.chip_names import gibibytes, parse
from ropewalk.planner.chips import Chip, Mfu, Rates, cpu_of_memory, datasheet_rates, mfu, of_memory
from ropewalk.planner.job import Job
from ropewalk.planner.memory import GIB, Memory, step_memory
from ropewalk.planner.named import shape_of
from ropewalk.planner.reading import Measuring, Serving, measuring, serving
from ropewalk.planner.shape import Shape
from ropewalk.planner.speed import Time, step_time
from ropewalk.rope.scaling import Plain
from ropewalk.settings.budget import COMPILED_FLOPS, COMPILED_WEIGHTS, memory_here
from ropewalk.settings.command import option_name, takes
from ropewalk.settings.extras import bringing, installed
from ropewalk.settings.plan import PlanSettings
from ropewalk.settings.windows import perhaps_thousands

_logger = logging.getLogger(__name__)

#: How many times the model's own window is planned for where nobody names one: the factor that the lab measured most (docs/results.md).
ASSUMED_FACTOR = 4


@dataclass(frozen=True)
class Plan:
    """What a training run would take.

    Attributes:
        job: as laid out, precision and optimiser settled; the layout that needs least memory where none fits.
        chip, rates: what it runs on.
        memory: on each chip, when most is held. time: of one step; without meaning where `rates.known` is false.
        fits: whether chip and host have that memory.
        price: of a chip and hour, in whatever currency it was given; None if it was not.
        asked: the settings, with precision, optimiser and batch size as the user left them.
        options: what differs from that, as on the command line.
        cp, replicas: as the user fixed them.
        assumed_window: whether nobody asked for the window, so that it is `ASSUMED_FACTOR` times the model's own.
        assumed_host: the host's memory for each chip, as it is typed, where nobody said; empty where it was said or is this machine's.
    """

    job: Job
    chip: Chip
    rates: Rates
    memory: Memory
    time: Time
    fits: bool
    price: float | None
    asked: PlanSettings
    options: str = ""
    cp: int | None = None
    replicas: int | None = None
    assumed_host: str = ""
    assumed_window: bool = False

    @property
    def extends(self) -> bool:
        """Whether training makes the window a longer one first."""
        return self.job.recipe.window > self.job.shape.window

    @cached_property
    def info(self) -> ModelInfo | UserError:
        """The model as training makes it, by the method asked for; what refuses it where that cannot be, which changes neither memory nor time."""
        shape, window = self.job.shape, self.job.recipe.window
        try:
            rope = _trained_rope(shape, window, self.asked)
        except UserError as error:
            return error
        return replace(info_of(rope, name=shape.name, parameters=shape.parameters), window=window)

    @property
    def something_fits(self) -> bool:
        """Whether the run fits these chips as it is or by other options: what `ropewalk plan` exits with 0 for."""
        return self.fits or bool(self.here)

    @property
    def here(self) -> tuple[Plan, ...]:
        """Of `others` those of these chips and this window, with no more of the host's memory than was said or is assumed."""
        asked, job = (self.job.gpus, self.job.recipe.window), self.job
        same = (other for other in self.others if (other.job.gpus, other.job.recipe.window) == asked)
        return tuple(other for other in same if other.job.host <= job.host)

    @property
    def timed(self) -> bool:
        """Whether its time, and so its cost, can be told: it fits, and rates are known."""
        return self.fits and self.rates.known

    @property
    def hours(self) -> float:
        """Of all steps; loading, tokenising and saving come on top."""
        return self.job.recipe.steps * self.time.seconds / 3600

    @property
    def gpu_hours(self) -> float:
        return self.hours * self.job.gpus

    @property
    def tokens(self) -> float:
        """Read in all steps."""
        return self.job.recipe.steps * self.time.tokens

    @property
    def cost(self) -> float | None:
        return None if self.price is None else self.price * self.gpu_hours

    @property
    def mfu(self) -> Mfu:
        """On both scales."""
        return mfu(self.time.flops / self.time.seconds, self.chip, self.rates.matrix, self.job.gpus)

    @property
    def measuring(self) -> Measuring:
        """What measuring the model at the new window takes, on chips of this kind."""
        return measuring(self.job.shape, self.job.recipe.window, self.chip)

    @property
    def serving(self) -> Serving:
        """What serving it there costs."""
        return serving(self.job.shape, self.job.recipe.window, self.chip, self.rates)

    @cached_property
    def others(self) -> tuple[Plan, ...]:
        """The same run by other options, of those that fit: on the same chips, the best first, adapters last.

        Where the run's own mode fits in none of them: with more host memory, with every weight trained in place of adapters, on as few more
        chips as do it, and at the longest window that is a half, a quarter and so on.
        """
        asked = self.asked
        if self.chip.on_cpu:
            same = [other for way in layout.ways_on_a_cpu(self.job) if (other := self._on_the_same_cpu(way)).fits]
            shorter = map(self._on_the_same_cpu, layout.shorter_windows_on_a_cpu(self.job, asked.batch_size))
            return (*same, *itertools.islice((o for o in shorter if o.fits), 0 if self.fits or same else 1))
        same = [other for way in layout.ways_on_the_same_chips(self.job, asked) if (other := self._by(way)).fits]
        if self.fits or any(other.job.recipe.mode == self.job.recipe.mode for other in same):
            return tuple(same)
        return (
            *same,
            *self._first_that_fits(layout.ways_with_more_host(self.job, asked)),
            *self._first_that_fits(layout.ways_with_every_weight(self.job, asked)),
            *self._first_that_fits(layout.ways_on_more_chips(self.job, self.chip, asked)),
            *self._first_that_fits(layout.ways_with_a_shorter_window(self.job, asked)),
        )

    def _on_the_same_cpu(self, way: layout.Way) -> Plan:
        job = regimes.on_cpu(way.job, self.chip.memory * GIB)
        memory, time = step_memory(job, cpu=True), step_time(job, self.rates, self.chip)
        fits = memory.total <= self.chip.memory * GIB and machines.takes(job)
        return replace(self, job=job, memory=memory, time=time, fits=fits, options=str(way))

    def _first_that_fits(self, choices: Iterator[list[layout.Way]]) -> Iterator[Plan]:
        """Of the first of several choices in which any way fits the one that a plan takes of regimes that are left open."""
        fitting = ((other for way in ways if (other := self._by(way)).fits) for ways in choices)
        taken = (regimes.first_of(plans, lambda other: layout.is_short(other.job, self.chip)) for plans in fitting)
        return itertools.islice(filter(None, taken), 1)

    @property
    def ways(self) -> tuple[str, ...]:
        """Options by which it fits, if it does not."""
        return () if self.fits else tuple(other.options for other in self.others)

    def _by(self, way: layout.Way) -> Plan:
        start = _compiled(way.job)
        if not (machines.takes(start, cp=self.cp, replicas=self.replicas) and layout.is_divided(start, self.cp)):
            return replace(self, fits=False)
        job, fits = layout.choose(start, self.chip, self.rates, cp=self.cp, replicas=self.replicas)
        memory, options = step_memory(job), [str(way)]
        if memory.host and self.assumed_host and "--host-memory" not in options[0]:
            options.append(f"--host-memory {self.assumed_host}")
        time = step_time(job, self.rates, self.chip)
        return replace(self, job=job, memory=memory, time=time, fits=fits, options=" ".join(options))

    def to_dict(self) -> dict[str, Any]:
        """What is printed with --json: plain figures, bytes and seconds."""
        recipe = self.job.recipe
        chosen = {
            name: getattr(recipe, name)
            for name in ("window", "mode", "base_bits", "precision", "optimizer", "steps", "batch_size")
        }
        layout_ = {name: getattr(self.job, name) for name in ("gpus", "cp", "replicas", "micro")}
        timed = dict(
            seconds_a_step=self.time.seconds,
            tokens_per_second=self.time.tokens_per_second,
            mfu=self.mfu.measured,
            mfu_of_data_sheet=self.mfu.sheet,
            hours=self.hours,
            chip_hours=self.gpu_hours,
            cost=self.cost,
        )
        return {
            "fits": self.fits,
            "something_fits": self.something_fits,
            "options": self.options,
            "chip": self.chip.name,
            "assumed_window": self.assumed_window,
            "assumed_host": self.assumed_host or None,
            **chosen,
            **layout_,
            "activations": self.job.activations.name,
            "tiles": self.job.tiles,
            "hurdles": list(self.job.shape.hurdles),
            "memory": {**vars(self.memory), "needed": self.memory.total, "available": self.chip.memory * GIB},
            **{name: value if self.timed else None for name, value in timed.items()},
        }


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
        shape = replace(shape, unshared=shape.unshared or rotated_apart(_trained_rope(shape, window, settings)))
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


def _trained_rope(shape: Shape, window: int, asked: PlanSettings) -> RopeConfig:
    """What the config of the model says as training makes it, by the method asked for.

    Raises:
        UserError: training refuses to make it so.
    """
    rope = shape.known_rope
    if window == shape.window or asked.method == Plain.method:
        refuse_as_it_is(rope, window, asked.method, asked.parameters)
        return rope
    if shape.layout is not None:
        refuse_to_extend(shape.layout, window, rope.family)
    rope = longer(rope, window, asked.method, asked.parameters)
    asked.refuse_factors_of_other_windows(rope.original_window, window)
    return rope


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
        # Of a count alone the name says its memory.
        return count, replace(chip, limit=settings.gpu_memory) if settings.gpu_memory and chip.matrix else chip
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
    return _compiled(job) if on_gpu else replace(job, fused=False)


def _compiled(job: Job) -> Job:
    """The job on GPUs with its kernels fused where training would compile the layers: a large model or a long run (training/activations.py)."""
    long = job.recipe.steps * job.flops / job.gpus >= COMPILED_FLOPS
    return replace(job, fused=job.shape.parameters >= COMPILED_WEIGHTS or long)


def _on_cpu(job: Job, chip: Chip | None) -> tuple[Job, Chip, Rates]:
    """The job on CPU cores, which it has to itself. chip: a machine that is not here; this one, timed, if not given."""
    if chip is None and not installed("torch"):
        source = f"its memory alone is known; timing it needs torch: {bringing('torch')}"
        chip = cpu_of_memory(memory_here() / GIB, source)
    job = regimes.on_cpu(job, memory_here() if chip is None else chip.memory * GIB)
    return (job, *_measured(job)) if chip is None else (job, chip, datasheet_rates(chip))


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
