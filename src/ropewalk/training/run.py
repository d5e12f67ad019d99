"""From settings to a trained model: the directory is taken, what is open is chosen, data and model are made ready, the loop takes the steps.

in   settings
out  the trained model, as records name it
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.run_directory import run_directory
from ropewalk.checkpoint.steps import all_taken, asked_of, model_step, steps_in, steps_left
from ropewalk.distributed import ranks
from ropewalk.distributed.mesh import Mesh
from ropewalk.records import ModelInfo
from ropewalk.records.choice import of_choice
from ropewalk.records.evidence import Training
from ropewalk.sentences import counted
from ropewalk.settings.command import option_name
from ropewalk.settings.inputs import inputs_of
from ropewalk.settings.train import CHANGEABLE, TrainSettings
from ropewalk.training.batch import batches_of
from ropewalk.training.deadline import Deadline
from ropewalk.training.loop import Loop
from ropewalk.training.optimizer import short_warmup
from ropewalk.training.regime import settled
from ropewalk.training.setup import mesh_for, settled_for, starting_model, trained_checkpoint
from ropewalk.training.snapshots import CHECKPOINTS, HOLDS, RECORDS, Snapshots, refuse_other_run

_logger = logging.getLogger(__name__)
#: Options that a resumed run may have otherwise unasked, and that a user looks for in what it does.
_FREE = ("steps", "save_every", "keep_checkpoints", "cp", "replicas")
#: What is settled by the checkpoint that a run goes on from, or by the devices, where it is not given.
_SETTLED = ("precision", "optimizer", "warmup")


def run(settings: TrainSettings, watch: Callable[[Loop], str | None] | None = None) -> ModelInfo:
    """Train, and return the trained model in `settings.out` as records name it. watch: as in `Loop`.

    Raises:
        UserError: settings, model, data or disk are not as they must be, or the loss diverged; one sentence.
        Terminated: SIGTERM; what was done is saved.
    """
    deadline, mesh = Deadline(settings.budget, settings.mode), mesh_for(settings)
    with contextlib.ExitStack() as stack:
        out = ranks.first(lambda: stack.enter_context(directory_of(settings)))
        is_done = ranks.first(lambda: settings.resume and _is_done(out, settings))
        if settings.resume and not is_done and mesh.main and (changes := _changes(out, settings)):
            _logger.info(changes)
        if is_done and mesh.main:
            _logger.info(f"{settings.out} has {all_taken(out, settings.steps)}")
        with _silent() if is_done else contextlib.nullcontext():
            return ranks.together(lambda: _run(settings, mesh, out, deadline, watch))


def _is_done(out: Path, settings: TrainSettings) -> bool:
    """Whether a run that goes on has no step left to take: by the model that it ended with, else by the newest checkpoint that is sound."""
    if steps_left(out, settings.steps):
        return False
    if model_step(out) >= settings.steps:
        return True
    newest = Snapshots(out / CHECKPOINTS).latest()
    return newest is not None and newest.step >= settings.steps


def _changes(out: Path, settings: TrainSettings) -> str:
    """Which options that move no weight are others than on record, and what that does to the learning rate; empty if none is, or nothing was saved."""
    asked = asked_of(out)
    if not steps_in(out / CHECKPOINTS) and not model_step(out):
        return ""
    changed = [name for name in _FREE if name in asked and asked[name] != getattr(settings, name)]
    if not changed:
        return ""
    here = ", ".join(_as_given(name, getattr(settings, name)) for name in changed)
    there = ", ".join(_as_given(name, asked[name]) for name in changed)
    warmup = counted(asked.get("warmup", 0) if settings.warmup is None else settings.warmup, "step")
    rate = f"; each step's learning rate stays as it was: {warmup} of warm-up, constant after that"
    return f"{settings.out} goes on with {here}; on record is {there}" + rate * ("steps" in changed)


def _as_given(name: str, value: Any) -> str:
    return f"no --{option_name(name)}" if value is None else f"--{option_name(name)} {value}"


def _refuse_other_options(settings: TrainSettings, checkpoint: Checkpoint, mesh: Mesh, out: Path) -> None:
    """What the options alone contradict of the checkpoint that a run goes on from, before data are read and the model is loaded; hashes come later.

    Raises:
        UserError: see `refuse_other_run`.
    """
    newest = ranks.same(Snapshots(out / CHECKPOINTS).newest() if settings.resume and mesh.main else None)
    if newest is not None:
        identity = settings.identity() | {"learning_rate": settings.peak_rate(checkpoint.info.parameters)}
        open_still = {name for name in _SETTLED if getattr(settings, name) in ("auto", None)}
        known = {name: value for name, value in identity.items() if name not in open_still}
        refuse_other_run(newest, known, allow=CHANGEABLE if settings.allow_changes else ())


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without advice on model and data, which is for steps that are taken; errors are said, and what Python warns of."""
    logger = logging.getLogger("ropewalk")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _run(
    settings: TrainSettings, mesh: Mesh, out: Path, deadline: Deadline, watch: Callable[[Loop], str | None] | None
) -> ModelInfo:
    asked = settings
    # The data before the model: what is wrong with it shows in seconds, and a large model takes minutes to load.
    checkpoint = trained_checkpoint(settings)
    settings = settled_for(settings, checkpoint, mesh)
    _refuse_other_options(settings, checkpoint, mesh, out)
    with deadline.before_steps():
        batches = batches_of(settings, checkpoint, mesh)
    if mesh.main and (len(batches.readings) > 1 or any(reading.passes > 1 for reading in batches.readings)):
        _logger.info("\n".join(map(str, batches.readings)))
    settings = settled(settings, checkpoint, mesh, out)
    batches = batches.with_micro(settings.micro_batch)
    start = starting_model(settings, mesh, checkpoint=checkpoint)
    if mesh.main and settings.steps <= settings.warmup_steps:
        _logger.info(short_warmup(settings.steps, settings.peak_rate(start.info.parameters), settings.warmup_steps))
    if mesh.main and (sentence := method_taken(settings, checkpoint)):
        _logger.info(sentence)
    # Windows at a time of which nobody said how many may become fewer still.
    settings = replace(settings, micro_batch=asked.micro_batch)
    return Loop(settings, start, batches, mesh, out, watch=watch, asked=asked, deadline=deadline).run()


def method_taken(settings: TrainSettings, checkpoint: Checkpoint) -> str:
    """By which method the window is a longer one, and what was measured of it; empty where neither this run nor `extend` made it longer.

    Args:
        settings: settled. checkpoint: that is trained, by its new config.
    """
    source, info = (checkpoint.weights_of or checkpoint).positions, checkpoint.info
    extends = settings.window > source.window
    if info.window == info.original_window or not (extends or source.block):
        return ""
    tokens = settings.steps * settings.batch * settings.tokens_in_memory(info.original_window)
    training = Training(settings.mode, tokens, settings.peak_rate(info.parameters))
    return of_choice(settings.method if extends else info.method, info, training)


def directory_of(settings: TrainSettings) -> contextlib.AbstractContextManager[Path]:
    """Where a run writes, held for it; see `run_directory`."""
    return run_directory(
        settings.out,
        holds=HOLDS,
        signs=(RECORDS, f"{CHECKPOINTS}/step-*"),
        overwrite=settings.overwrite,
        go_on=settings.resume,
        inputs=inputs_of(settings),
    )
