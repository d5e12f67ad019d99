"""A training run on disk: its checkpoints, `checkpoints/step-000200` and nothing that is called a little otherwise, and how far it came.

in   the directory of a run
out  directories by step; `Unfinished`, of a run that was interrupted
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk.errors import read_text
from ropewalk.sentences import counted

#: The directory of a run's checkpoints, in the run's own.
CHECKPOINTS = "checkpoints"
#: The rows of what was looked at on the way, beside the run's own records.
WATCHED = "watch.jsonl"
#: In the settings of a training's header: the option that ended it, of which the second leaves nothing to do; and the step of the model that it left,
#: where that is not its last.
ENDED_BY, WATCH_STOP, MODEL_STEP = "ended_by", "--watch-stop", "model_step"
#: There too, of a run that the watch ended: at which window the perplexity got worse, the least that was seen, and the last.
RISE = "watch_rise"
_STEP = re.compile(r"step-(\d{6,})", re.ASCII)


def rise_of(settings: Mapping[str, Any]) -> str:
    """Why the watch ended a training, by the settings of its header; empty of one that it did not end, and where the figures are not on record."""
    match settings.get(RISE):
        case [int(window), float(least), float(last)]:
            return f"the perplexity at {window} tokens got worse: {least:.4g} → {last:.4g}"
    return ""


def step_name(step: int) -> str:
    """What the directory of a step is called."""
    return f"step-{step:06d}"


def steps_in(root: Path) -> dict[int, Path]:
    """The directories of steps, by step, first to last. Copies, backups and whatever else people put beside them have other names."""
    if not root.is_dir():
        return {}
    steps = sorted(int(match[1]) for path in root.iterdir() if (match := _STEP.fullmatch(path.name)))
    return {step: path for step in steps if (path := root / step_name(step)).is_dir()}


@dataclass(frozen=True)
class Unfinished:
    """A training run that has steps left. step: that it came to, as a model or a checkpoint; 0 where nothing was saved. steps: that are asked for, if
    known. last: its newest checkpoint. taken: steps on record, the unsaved ones among them.
    """

    step: int
    steps: int | None
    last: Path | None
    taken: int = 0

    def __str__(self) -> str:
        asked = "" if self.steps is None else f" of {self.steps}"
        if self.taken <= self.step:
            return f"step {self.step}{asked}"
        saved = f"the first {self.step} of them saved" if self.step else "none of them saved"
        return f"{self.taken}{asked or ' steps'} {'steps ' * bool(asked)}done, {saved}"

    @classmethod
    def of(cls, run: Path) -> Unfinished | None:
        """How far the run in a directory came; None if it is finished, or if there is none."""
        return None if (run / "config.json").is_file() else cls._of(run)

    @classmethod
    def before(cls, run: Path, steps: int) -> Unfinished | None:
        """How far a run came that wrote its model (`--budget` ended it, say) and can go on to so many steps; None if it has them, or if there is none."""
        came = cls._of(run) if (run / "config.json").is_file() else None
        if came is None or came.last is None:
            return None
        asked, step = asked_of(run), max(came.step, model_step(run))
        if asked.get(ENDED_BY) == WATCH_STOP and came.steps is not None and steps <= came.steps:
            return None  # what it watched for has ended it
        return cls(step, steps, came.last, came.taken) if step < steps else None

    @classmethod
    def _of(cls, run: Path) -> Unfinished | None:
        asked, checkpoints = asked_of(run), steps_in(run / CHECKPOINTS)
        if not checkpoints and "save_every" not in asked:
            return None
        step, last = max(checkpoints.items(), default=(0, None))
        steps = asked.get("steps")
        return cls(step, steps if isinstance(steps, int) else None, last, taken(run))


def model_step(run: Path) -> int:
    """The steps of the model that a run ended with, which may have no checkpoint of them; 0 if it has written none, or its weights are gone.

    Its config.json is put there last of all, and taken away before another model is.
    """
    try:
        step = json.loads(read_text(run / "config.json"))["ropewalk"]["steps"]
    except (OSError, ValueError, LookupError, TypeError):
        return 0
    is_trained = bool(asked_of(run)) and next(run.glob("*.safetensors"), None) is not None
    return step if is_trained and isinstance(step, int) else 0


def steps_left(run: Path, steps: int) -> int:
    """Of so many steps, those that a run still takes: none if its model has them all, else those from its newest checkpoint on."""
    return 0 if model_step(run) >= steps else max(0, steps - max(steps_in(run / CHECKPOINTS), default=0))


def all_taken(run: Path, steps: int) -> str:
    """What is said of a run that has no step left: a killed one may still have its model to write."""
    rest = "nothing is left to do" if Unfinished.of(run) is None else "only the model is left to write"
    return f"all its {counted(steps, 'step')}: {rest}"


def at_stake(run: Path) -> str:
    """What of a training run is lost with its directory: its checkpoints, or the model it ended with; empty if neither is there."""
    found = list(steps_in(run / CHECKPOINTS))
    checkpoints = f"{counted(len(found), 'checkpoint')} of the run in {run}, to step {found[-1]}" if found else ""
    trained = (run / "config.json").is_file() and "save_every" in asked_of(run)
    if not trained or (found and model_step(run) <= found[-1]):
        return checkpoints
    return f"the model that the run in {run} ended with" + (f", and {checkpoints}" if found else "")


def outrun(run: Path) -> str:
    """What is said of a run's model where a checkpoint of later steps lies beside it, as after a stop of what --resume went on with; empty if none does, or
    if the run left that model since the later ones are worse.
    """
    newest = max(steps_in(run / CHECKPOINTS).items(), default=None)
    if newest is None or MODEL_STEP in asked_of(run) or not 0 < (step := model_step(run)) < newest[0]:
        return ""
    return f"the model in {run} is that of step {step}, and its run came to step {newest[0]}: {newest[1]}"


def asked_of(run: Path) -> dict[str, Any]:
    """The settings of a training run by the last header of its records; empty if there is none."""
    headers = _on_record(run, "save_every")
    settings = headers[-1].get("settings") if headers else None
    return settings if isinstance(settings, dict) else {}


def taken(run: Path) -> int:
    """How far the last training on record in a directory came, saved or not; 0 if there is none."""
    steps = _on_record(run, "grad_norm")
    return max((step["step"] for step in steps if step.get("run") == steps[-1].get("run")), default=0)


def _on_record(run: Path, field: str) -> list[dict[str, Any]]:
    """The lines of a run's records that have a field; none if there are no records. A line that a kill cut off is none."""
    found = []
    with contextlib.suppress(OSError):
        for line in read_text(run / "records.jsonl", errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                if f'"{field}"' in line and isinstance(content := json.loads(line), dict):
                    found.append(content)
    return found
