"""The checkpoints of a training run on disk: `checkpoints/step-000200`, and nothing that is called a little otherwise."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

from ropewalk.checkpoint.checkpoint import Checkpoint

#: The directory of a run's checkpoints, in the run's own.
CHECKPOINTS = "checkpoints"
_STEP = re.compile(r"step-(\d{6,})", re.ASCII)


def step_name(step: int) -> str:
    """What the directory of a step is called."""
    return f"step-{step:06d}"


def steps_in(root: Path) -> dict[int, Path]:
    """The directories of steps, by step, first to last. Copies, backups and whatever else people put beside them have other names."""
    if not root.is_dir():
        return {}
    steps = sorted(int(match[1]) for path in root.iterdir() if (match := _STEP.fullmatch(path.name)))
    return {step: path for step in steps if (path := root / step_name(step)).is_dir()}


def models_in(run: Path) -> list[Path]:
    """The checkpoints of a run that are models, first to last; one whose config has another step than its name was renamed, and is left out."""
    found = []
    for step, path in steps_in(run / CHECKPOINTS).items():
        if not (path / "config.json").is_file():
            continue
        steps = Checkpoint.open(path).info.steps
        if steps == step:
            found.append(path)
        else:
            warnings.warn(f"{path} is left out: its config says that it is the model of step {steps}", stacklevel=2)
    return found
