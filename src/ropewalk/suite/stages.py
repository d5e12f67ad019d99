"""Stages of a suite: run one after the other, each once, whatever kills the run in between.

in   stages: a name, a model, settings, a function
out  their outcomes, and a line for each in stages.jsonl; a stage with such a line under the same settings is not run again
"""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from ropewalk.checkpoint.files import disk_errors
from ropewalk.data.select import name_of
from ropewalk.distributed import ranks
from ropewalk.errors import UserError, is_shortage, read_text, shortage
from ropewalk.records import Rows, append_lines, versions
from ropewalk.settings.downstream import JOURNAL

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """One measurement of one model: `run` takes it, and `settings` holds all that decides its outcome."""

    name: str
    model: str
    settings: dict[str, Any]
    run: Callable[[], Any]


@dataclass(frozen=True)
class Outcome:
    """What became of a stage; `reason` is empty where it was run."""

    kind: ClassVar[str] = "outcome"
    name: str
    model: str
    reason: str = ""
    seconds: float = 0.0


def run(stages: Sequence[Stage], out: Path) -> Rows[Outcome]:
    """Run the stages that are not done yet, one after the other; each of them is logged."""
    first = ranks.rank() == 0
    outcomes: Rows[Outcome] = Rows()
    done = ranks.same(_done(out))
    for number, stage in enumerate(stages, start=1):
        key = _key(stage)
        title = f"[{number}/{len(stages)}] {_title(stage)}"
        if key in done:
            _say(f"{title}: done before")
            outcomes.append(done[key])
            continue
        _say(title)
        outcome = attempt(stage)
        outcomes.append(outcome)
        if outcome.reason:
            _say(f"  left out: {outcome.reason}")
        if first:
            line = json.dumps({"key": key, **dataclasses.asdict(outcome), "settings": stage.settings})
            with disk_errors(out / JOURNAL):
                append_lines(out / JOURNAL, [line])
    return outcomes


def _say(sentence: str) -> None:
    if ranks.rank() == 0:
        _logger.info(sentence)


def _title(stage: Stage) -> str:
    """What tells this stage from the others, on one line."""
    data = stage.settings.get("data")
    return f"{stage.name}, {stage.model}" + (f", on {name_of(data)}" if data else "")


def attempt(stage: Stage) -> Outcome:
    """Run a stage; what it was left out for, by all ranks, if a user could do something about it.

    Raises:
        Alone: a rank left in the middle of what others wait for.
    """
    started = time.perf_counter()
    reason = ""
    try:
        ranks.together(lambda: _run(stage))
    except ranks.Alone:
        raise
    except UserError as error:
        reason = str(error)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return Outcome(stage.name, stage.model, reason, round(time.perf_counter() - started, 1))


def _run(stage: Stage) -> None:
    """A shortage of memory is a reason like others, except where it may be that of a pass which all ranks take part in."""
    try:
        stage.run()
    except Exception as error:
        if not is_shortage(error) or ranks.share_passes():
            raise
        raise UserError(f"not enough memory ({shortage(error)})") from error


def _key(stage: Stage) -> str:
    used = {name: versions().get(name) for name in ("ropewalk", "torch", "transformers", "lm-eval", "rouge-score")}
    identity = json.dumps([stage.name, stage.model, stage.settings, used], sort_keys=True, default=str)
    return hashlib.sha256(identity.encode()).hexdigest()[:20]


def _done(out: Path) -> dict[str, Outcome]:
    """Stages that were run to their end; those that were left out are tried again."""
    outcomes = {}
    for line in read_text(out / JOURNAL, "a suite's stages are in a file", errors="replace").split("\n"):
        try:
            row = json.loads(line)
            outcome = Outcome(row["name"], row["model"], row["reason"], row["seconds"])
        except (ValueError, TypeError, KeyError):
            continue  # a line cut short by a kill: its stage is run again
        if not outcome.reason:
            outcomes[row["key"]] = outcome
    return outcomes
