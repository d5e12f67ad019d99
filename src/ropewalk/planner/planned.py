"""What a training run would take, and by which other options it would fit.

in   a job as it is laid out, on chips of which memory and rates are known (planner.py)
out  memory by part, time, hours, cost; the same run by other options
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ropewalk.checkpoint.layers import refuse_to_extend
from ropewalk.checkpoint.longer import longer, refuse_as_it_is
from ropewalk.checkpoint.model_info import ModelInfo, info_of
from ropewalk.checkpoint.rope_config import RopeConfig
from ropewalk.errors import UserError
from ropewalk.planner import layout, machines, regimes
from ropewalk.planner.chips import Chip, Mfu, Rates, mfu
from ropewalk.planner.job import Job
from ropewalk.planner.kept import least_bytes
from ropewalk.planner.memory import GIB, PLAN_ERROR, Memory, step_memory
from ropewalk.planner.reading import Measuring, Serving, measuring, serving
from ropewalk.planner.shape import Shape
from ropewalk.planner.speed import Time, step_time
from ropewalk.planner.ways import (
    Way,
    shorter_windows_on_a_cpu,
    ways_on_a_cpu,
    ways_on_more_chips,
    ways_on_the_same_chips,
    ways_with_a_shorter_window,
    ways_with_more_host,
    ways_with_one_window,
    ways_with_positions_skipped,
)
from ropewalk.records.choice import settled
from ropewalk.rope.scaling import Plain
from ropewalk.settings.budget import COMPILED_FLOPS, COMPILED_WEIGHTS
from ropewalk.settings.plan import PlanSettings

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
            rope = trained_rope(shape, window, self.asked)
        except UserError as error:
            return error
        return replace(info_of(rope, name=shape.name, parameters=shape.parameters), window=window)

    @property
    def refused(self) -> str | None:
        """The sentence with which training refuses the model or the method, whatever fits; None where it takes them."""
        return str(self.info) if isinstance(self.info, UserError) else None

    @property
    def spare(self) -> float:
        """Bytes that stay free on each chip; below 0 those that are short."""
        return self.chip.memory * GIB - self.memory.total

    @property
    def is_close(self) -> bool:
        """Whether it fits by less than a plan may be wrong by."""
        return self.fits and self.spare < PLAN_ERROR * self.memory.total

    @property
    def least(self) -> float:
        """Bytes that training comes down to on a chip where a step runs out of memory: one GPU does that again with less kept, where this is left open; others stop."""
        if self.chip.on_cpu or self.job.gpus > 1 or self.job.recipe.activations != "auto":
            return self.memory.total
        return min(self.memory.total, least_bytes(self.job, self.chip))

    @property
    def something_fits(self) -> bool:
        """Whether the run fits these chips as it is or by other options: what `ropewalk plan` exits with 0 for, unless it is `refused`."""
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
        """The same run by other options, of those that fit: on the same chips every weight on whole windows, with positions skipped, adapters, those on four bits; of each the fastest first.

        Positions are skipped on a CPU, and where the run's own mode fits in nothing else; then there are more host memory, as few more chips as do it, and the longest window that is a half, a quarter and so on.
        """
        asked = self.asked
        if self.chip.on_cpu:
            ways = ways_on_a_cpu(self.job, lambda way: self._on_the_same_cpu(way).fits)
            same = sorted(map(self._on_the_same_cpu, ways), key=Plan._rank)
            shorter = map(self._on_the_same_cpu, shorter_windows_on_a_cpu(self.job, asked.batch_size))
            return (*same, *itertools.islice((o for o in shorter if o.fits), 0 if self.fits or same else 1))
        same = [] if self.fits else list(self._first_that_fits(ways_with_one_window(self.job, asked)))
        for way in ways_on_the_same_chips(self.job, asked):
            same += (other for other in self._first_that_fits(iter([[way]])) if other.job not in [o.job for o in same])
        same.sort(key=Plan._rank)
        if self.fits or any(other.job.recipe.mode == self.job.recipe.mode for other in same):
            return tuple(same)
        same[:0] = self._first_that_fits(ways_with_positions_skipped(self.job, asked))
        return (
            *same,
            *self._first_that_fits(ways_with_more_host(self.job, asked)),
            *self._first_that_fits(ways_on_more_chips(self.job, self.chip, asked, every=not same)),
            *self._first_that_fits(ways_with_a_shorter_window(self.job, asked)),
        )

    def _rank(self) -> tuple[bool, int, float]:
        """What is less comes first, of plans of as many chips: of those that train the same the faster, which is the cheaper too, and of as fast ones, to 1 %, the first."""
        recipe = self.job.recipe
        time = round(math.log(self.time.seconds), 2) if self.rates.known else 0.0
        return recipe.base_bits is not None, ("full", "pose", "lora").index(recipe.mode), time

    def _on_the_same_cpu(self, way: Way) -> Plan:
        job = regimes.on_cpu(way.job, self.chip.memory * GIB)
        memory, time = step_memory(job, cpu=True), step_time(job, self.rates, self.chip)
        fits = memory.total <= self.chip.memory * GIB and machines.takes(job)
        return replace(self, job=job, memory=memory, time=time, fits=fits, options=str(way))

    def _first_that_fits(self, choices: Iterator[list[Way]]) -> Iterator[Plan]:
        """Of the first of several choices in which any way fits, as it is or with one window at a time, the one that a plan takes of regimes that are left open."""
        each = (ways for choice in choices for ways in (choice, [one for way in choice for one in way.one_by_one]))
        fitting = ((other for way in ways if (other := self._by(way)).fits) for ways in each)
        taken = (regimes.first_of(plans, lambda other: layout.is_short(other.job, self.chip)) for plans in fitting)
        return itertools.islice(filter(None, taken), 1)

    @property
    def ways(self) -> tuple[str, ...]:
        """Options by which it fits, if it does not."""
        return () if self.fits else tuple(other.options for other in self.others)

    def _by(self, way: Way) -> Plan:
        start = compiled(way.job)
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
            "close": self.is_close,
            "something_fits": self.something_fits,
            "refused": self.refused,
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


def trained_rope(shape: Shape, window: int, asked: PlanSettings) -> RopeConfig:
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
    model = info_of(rope, name=shape.name, parameters=shape.parameters)
    rope = longer(rope, window, settled(asked.method, asked.parameters, model, window), asked.parameters)
    asked.refuse_factors_of_other_windows(rope.original_window, window)
    return rope


def compiled(job: Job) -> Job:
    """The job on GPUs with its kernels fused where training would compile the layers: a large model or a long run (training/activations.py)."""
    long = job.recipe.steps * job.flops / job.gpus >= COMPILED_FLOPS
    return replace(job, fused=job.shape.parameters >= COMPILED_WEIGHTS or long)
