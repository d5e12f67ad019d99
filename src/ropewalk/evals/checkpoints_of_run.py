"""A measurement by fine-tuning steps: every checkpoint that a training run saved (tables 3 and 4 of the paper).

in   the directory that `ropewalk train` wrote, and a measuring function
out  its result at each checkpoint, by steps
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.steps import models_in
from ropewalk.errors import UserError

Result = TypeVar("Result")


def checkpoints(run: str | Path) -> dict[int, Path]:
    """The checkpoints of a run by their steps: `checkpoints/step-000200/` and so on, and the trained model itself.

    Raises:
        UserError: the run has no checkpoints beside the trained model.
    """
    run = Path(run)
    paths = models_in(run)
    if (run / "config.json").is_file():
        paths.append(run)
    by_steps = {Checkpoint.open(path).info.steps: path for path in paths}
    if not paths or paths == [run]:
        raise UserError(
            f"a figure by steps needs a run's checkpoints, and {run} has none under checkpoints/; give the --out of a "
            "`ropewalk train` with --save-every"
        )
    return dict(sorted(by_steps.items()))


def by_step(measure: Callable[..., Result], run: str | Path, **arguments: Any) -> dict[int, Result]:
    """Call a measuring function (`passkey`, `perplexity`, `retrieval`) on every checkpoint of a run, first to last.

    With `out` given, each result is recorded as soon as it is measured; its header says how many steps the model took.
    """
    return {steps: measure(str(path), **arguments) for steps, path in checkpoints(run).items()}
