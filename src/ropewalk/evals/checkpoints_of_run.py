"""A measurement over fine-tuning steps: every checkpoint that a training run left (tables 3 and 4 of the paper).

in   the directory that `ropewalk train` wrote, and a measurement
out  its result per step
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ropewalk.errors import UserError
from ropewalk.model.load import model_info

Result = TypeVar("Result")


def checkpoints(run: str | Path) -> dict[int, Path]:
    """The models of a run by the steps they took: `checkpoints/step-000200/` and so on, and the trained model itself.

    Raises:
        UserError: there is none.
    """
    run = Path(run)
    found = sorted(path.parent for path in run.glob("checkpoints/step-*/config.json"))
    if (run / "config.json").is_file():
        found.append(run)
    by_steps = {model_info(path).steps: path for path in found}
    if not found or (len(found) == 1 and found[0] == run):
        raise UserError(
            f"a figure by steps needs a run's checkpoints, and {run} has none under checkpoints/; give the --out of a "
            "`ropewalk train` with --save-every"
        )
    return dict(sorted(by_steps.items()))


def by_step(measure: Callable[..., Result], run: str | Path, **arguments: Any) -> dict[int, Result]:
    """Call a measurement (`passkey`, `perplexity`, `retrieval`) on every checkpoint of a run, first to last.

    With `out` given, each result is on record as soon as it is there, its header saying how many steps the model took.
    """
    return {steps: measure(str(path), **arguments) for steps, path in checkpoints(run).items()}
