"""From a model's name and a recipe to a `Plan`, without loading anything.

in   `hemp`, a directory, a hub id (of which the config.json alone is fetched), or one of the paper's own models (`llama-7b`, …)
out  a `Plan`: the job as laid out, memory by part, time, hours, cost
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.files import read_config
from ropewalk.checkpoint.headers import count_parameters, weight_files
from ropewalk.checkpoint.hub import locate
from ropewalk.errors import UserError
from ropewalk.planner import layout
from ropewalk.planner.chips import Chip, Rates, datasheet_rates, parse
from ropewalk.planner.job import FULL, Job, regime
from ropewalk.planner.memory import Memory, memory
from ropewalk.planner.shape import LLAMA, Shape, read
from ropewalk.planner.speed import Time, time

#: From so many weights, or operations of a run on each chip, training compiles its layers on a GPU (train/keep.py; a test compares them).
COMPILED = 1e9, 5e15
#: Tokens in a micro batch on a CPU, where none is asked for (train/batch.py; a test compares the two).
CPU_TOKENS = 2048


@dataclass(frozen=True)
class Plan:
    """What a training run would take.

    Attributes:
        job: as laid out; the layout that needs least memory where none fits.
        chip, rates: what it runs on.
        memory: on each chip, when most is held. time: of one step.
        fits: whether the memory is there. ways: options that would make it fit.
        price: of a chip and hour, in whatever currency it was given; None if it was not.
        precision, optimizer: names of the regime.
    """

    job: Job
    chip: Chip
    rates: Rates
    memory: Memory
    time: Time
    fits: bool
    ways: tuple[str, ...]
    price: float | None
    precision: str
    optimizer: str

    @property
    def hours(self) -> float:
        """Of all steps; loading, tokenising and saving come on top."""
        return self.job.steps * self.time.seconds / 3600

    @property
    def gpu_hours(self) -> float:
        return self.hours * self.job.gpus

    @property
    def tokens(self) -> float:
        """Read in all steps."""
        return self.job.steps * self.time.tokens

    @property
    def cost(self) -> float | None:
        return None if self.price is None else self.price * self.gpu_hours

    @property
    def mfu(self) -> float:
        """Of the matrix rate, nothing recomputed counted."""
        return self.time.mfu(self.rates.matrix, self.job.gpus)


def plan(
    model: str | Path | Shape,
    *,
    window: int,
    gpus: str | None = None,
    steps: int = 1000,
    batch_size: int = 64,
    micro_batch: int | None = None,
    mode: str = "full",
    precision: str = "auto",
    optimizer: str = "adamw",
    cp: int | None = None,
    replicas: int | None = None,
    keep: str = "auto",
    chunk_window: int | None = None,
    lora_rank: int = 8,
    price: float | None = None,
    rates: Rates | None = None,
) -> Plan:
    """Plan a training run.

    Args:
        model: `hemp`, a directory, a hub id, `llama-7b`, `-13b`, `-33b`, `-65b`; or a `Shape`.
        window: tokens.
        gpus: as in "8xH100"; the machine at hand, timed for ten seconds, if not given.
        steps, batch_size: of the recipe (section 3.1 of the paper: 1000; 64 up to 8192 tokens on 32 chips, else 128).
        micro_batch, cp, replicas: fixed, or chosen if not given.
        mode, precision, optimizer, chunk_window, lora_rank: as in training.
        keep: --memory of training: "auto" (as many activations as fit), "full" (each layer's input only), "none" (everything).
        price: of a chip and hour.
        rates: in place of those that would be looked up or measured.

    Raises:
        UserError: no such model or chip, a config without the keys that give a shape, values out of range.
    """
    shape = model if isinstance(model, Shape) else shape_of(model)
    counts = {"window": window, "steps": steps, "batch-size": batch_size, "lora-rank": lora_rank}
    for name, value in (counts if chunk_window is None else counts | {"chunk-window": chunk_window}).items():
        if value < 1:
            raise UserError(f"{name} is a whole number of at least 1, got {value}; change it")
    if window < shape.window:
        raise UserError(
            f"{shape.name} reads {shape.window} tokens already, more than the window {window}; plan for {shape.window} or more"
        )
    if price is not None and not 0 <= price < math.inf:
        raise UserError(f"a price is a finite number of at least 0, got {price}; leave it out if you do not know it")
    count, chip = (_present_gpus(), None) if gpus is None else parse(gpus)
    on_gpu = chip is not None or count > 0
    if precision == "auto":
        precision = "bfloat16" if on_gpu else "float32"
    _check_choices(mode, keep, cp, replicas, micro_batch, batch_size, max(count, 1))
    chunk = min(chunk_window or shape.window, window) if mode == "pose" else None
    job = Job(
        shape=shape,
        window=window,
        steps=steps,
        batch=batch_size,
        gpus=max(count, 1),
        cp=cp or 1,
        micro=micro_batch or 1,
        regime=regime(precision, optimizer),
        keep=FULL,
        mode=mode,
        rank=lora_rank,
        chunk=chunk,
        replicas=replicas or 1,
    )
    long = steps * job.flops / job.gpus >= COMPILED[1]
    job = replace(job, fused=on_gpu and (shape.parameters >= COMPILED[0] or long))
    if on_gpu:
        if chip is None:
            chip, measured = _measured(job)
            rates = rates or measured
        rates = rates or datasheet_rates(chip)
        layout.refuse_undivided(job, cp)
        job, fits = layout.choose(job, chip, rates, cp=cp, micro=micro_batch, keep=keep, replicas=replicas)
        need = memory(job)
    else:
        job, chip, rates, fits, need = _on_cpu(job, rates, micro_batch)
    return Plan(
        job=job,
        chip=chip,
        rates=rates,
        memory=need,
        time=time(job, rates, chip),
        fits=fits,
        ways=() if fits or not on_gpu else tuple(layout.ways_out(job, chip)),
        price=price,
        precision=precision,
        optimizer=optimizer,
    )


def _check_choices(
    mode: str, keep: str, cp: int | None, replicas: int | None, micro: int | None, batch: int, gpus: int
) -> None:
    if mode not in ("full", "lora", "pose"):
        raise UserError(f"a mode is full, lora or pose, got {mode!r}; full trains every weight")
    if keep not in ("auto", "full", "none"):
        raise UserError(f"memory is auto, full or none, got {keep!r}; auto keeps what fits")
    if cp is not None and (cp < 1 or gpus % cp):
        raise UserError(f"cp divides the number of chips, and {cp} does not divide {gpus}; choose a divisor")
    if replicas is not None and (replicas < 1 or gpus % (replicas * (cp or 1))):
        raise UserError(
            f"each of {replicas} copies of the weights has as many chips{f', a multiple of --cp {cp}' if cp else ''}, and {gpus} chips do not "
            "divide so; choose another --replicas"
        )
    if micro is not None and not 1 <= micro <= batch:
        raise UserError(
            f"a micro batch holds between 1 window and the batch size {batch}, got {micro}; leave it out to have it chosen"
        )


def _on_cpu(job: Job, rates: Rates | None, micro: int | None) -> tuple[Job, Chip, Rates, bool, Memory]:
    """Training on a CPU keeps everything, in micro batches of about 2048 tokens."""
    from ropewalk.planner.job import NONE

    job = replace(job, keep=NONE, micro=micro or max(1, min(job.batch, CPU_TOKENS // job.length)))
    chip, measured = _measured(job, rates)
    need = memory(job, cpu=True)
    return job, chip, measured, need.total <= chip.memory * 2**30, need


def _measured(job: Job, rates: Rates | None = None) -> tuple[Chip, Rates]:
    if rates is not None:
        memory_here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        return Chip("cpu", 0.0, memory_here, 0.0, 0.0, 0.0, "this machine", peers=1), rates
    from ropewalk.planner import calibrate

    return calibrate.present(job)


def _present_gpus() -> int:
    """GPUs of this machine; torch is imported only if a driver is there at all."""
    if not (shutil.which("nvidia-smi") or Path("/dev/nvidia0").exists() or Path("/dev/kfd").exists()):
        return 0
    import torch

    return torch.cuda.device_count()


def shape_of(model: str | Path) -> Shape:
    """The shape of a model by its name; weights are counted from the files' headers where they lie here."""
    name = str(model)
    if name.lower() in LLAMA and not Path(name).exists():
        return LLAMA[name.lower()]
    if name == "hemp" or Path(name).exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        if not Path(name).exists() and re.fullmatch(r"llama-\d+b", name.lower()):
            raise UserError(f"of the LLaMA models, {', '.join(LLAMA)} are known by name, and {name} is not; name one of them, "
                            "a directory, or a hub id such as owner/name")  # fmt: skip
        directory = locate(name)
        return read(read_config(directory), name=name, stored=_stored(directory))
    return read(_hub_config(name), name=name)


def _stored(directory: Path) -> int | None:
    """Weights in the files, or None where there are none yet: a config.json is enough for a plan."""
    if not any(directory.glob("*.safetensors")):
        return None
    return count_parameters(weight_files(directory))


def _hub_config(name: str) -> dict[str, Any]:
    """A hub model's config.json and nothing else of it."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    ways: tuple[tuple[type[Exception], Callable[[Any], str]], ...] = (
        (HFValidationError, lambda _: "is no valid hub id; check the spelling"),
        (
            LocalEntryNotFoundError,
            lambda _: (
                "is no directory here, and the hub could not be reached for its config.json; check the path, or go online"
            ),
        ),
        (EntryNotFoundError, lambda _: "has no config.json on the hub; choose a model in Hugging Face format"),
        (
            HfHubHTTPError,
            lambda error: (
                f"was refused by the hub ({getattr(error.response, 'status_code', 'no answer')}): misspelt, private or gated; check the "
                "id, or log in with `hf auth login`"
            ),
        ),
        (OSError, lambda _: "is no directory here, and the hub could not be reached; check the path, or go online"),
    )
    try:
        return json.loads(Path(huggingface_hub.hf_hub_download(name, "config.json")).read_text(encoding="utf-8"))
    except tuple(kind for kind, _ in ways) as error:
        say = next(say for kind, say in ways if isinstance(error, kind))
        raise UserError(f"{name} {say(error)}") from None
