"""A measurement by fine-tuning steps: every checkpoint that a training run saved (tables 3 and 4 of the paper).

in   the directory that `ropewalk train` wrote, and a measuring function
out  its result before the first step and at each checkpoint, by steps
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from ropewalk import records
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.steps import CHECKPOINTS, step_name, steps_in
from ropewalk.errors import UserError

Result = TypeVar("Result")


def refuse_without_steps(run: Path) -> list[Path]:
    """`models_in`, of a run that has any.

    Raises:
        UserError: the run has no checkpoints beside the trained model.
    """
    if paths := models_in(run):
        return paths
    raise UserError(
        f"a figure by steps needs a run's checkpoints, and {run} has none under checkpoints/; give the --out of a "
        "`ropewalk train` with --save-every"
    )


def models_in(run: Path) -> list[Path]:
    """The checkpoints of a run that are models, first to last; one whose config has another step than its name was renamed, and is left out."""
    models = []
    for step, path in steps_in(run / CHECKPOINTS).items():
        if not (path / "config.json").is_file():
            continue
        steps = Checkpoint.open(path).info.steps
        if steps == step:
            models.append(path)
        else:
            warnings.warn(f"{path} is left out: its config says that it is the model of step {steps}", stacklevel=2)
    return models


def checkpoints(run: str | Path, *, trust_remote_code: bool = False) -> Iterator[tuple[int, Checkpoint]]:
    """The checkpoints of a run by their steps: what it began from as 0, `checkpoints/step-000200` and so on, the trained model itself.

    What it began from is the model that its records name, under the config that it was trained with, linked into a directory that lasts while it
    is measured. Where that model is gone or another by now, step 0 is left out with a warning.

    Raises:
        UserError: the run has no checkpoints beside the trained model.
    """
    run = Path(run)
    paths = refuse_without_steps(run)
    if (run / "config.json").is_file():
        paths.append(run)
    by_steps = {(checkpoint := Checkpoint.open(path)).info.steps: checkpoint for path in paths}
    if 0 not in by_steps:
        yield from _before(run, next(iter(by_steps.values())), trust_remote_code=trust_remote_code)
    yield from sorted(by_steps.items())


def _before(run: Path, trained: Checkpoint, *, trust_remote_code: bool) -> Iterator[tuple[int, Checkpoint]]:
    """Step 0, if the model that the run began from is still there."""
    try:
        source = _source(run, trust_remote_code=trust_remote_code)
    except UserError as error:
        warnings.warn(f"step 0 of {run} is left out: {error}", stacklevel=3)
        return
    from ropewalk.training.setup import on_disk

    config = {**trained.config, "ropewalk": {**trained.config.get("ropewalk", {}), "steps": 0}}
    with on_disk(source.with_config(config)) as linked:
        yield 0, dataclasses.replace(linked, name=str(run / CHECKPOINTS / step_name(0)))


def _source(run: Path, *, trust_remote_code: bool) -> Checkpoint:
    """The model that a run began from.

    Raises:
        UserError: its records do not say, or it is not there or not the same any more.
    """
    headers = [m.run for m in records.read([run / "records.jsonl"]).of(records.Step)]
    name, fingerprint = (
        (headers[0].settings.get(key) for key in ("model", "model_fingerprint")) if headers else ("", "")
    )
    if not (name and fingerprint):
        raise UserError("its records do not say which model it began from; measure that one by itself")
    source = Checkpoint.open(name, trust_remote_code=trust_remote_code)
    if source.fingerprint != fingerprint:
        raise UserError(f"{name} is not the model any more that it began from; measure that one by itself")
    return source


def by_step(
    measure: Callable[..., Result], run: str | Path, *, trust_remote_code: bool = False, **arguments: Any
) -> dict[int, Result]:
    """Call a measuring function (`passkey`, `perplexity`, `retrieval`) on every checkpoint of a run, first to last.

    With `out` given, each result is recorded as soon as it is measured; its header says how many steps the model took.
    """
    arguments["trust_remote_code"] = trust_remote_code
    models = checkpoints(run, trust_remote_code=trust_remote_code)
    return {steps: measure(checkpoint, **arguments) for steps, checkpoint in models}
