"""What is kept of a row of an ablation until its file is written: its trained weights and what is measured, from which another call goes on.

in   the row's directory below `.work`, which this process holds; what the row is asked for
out  there `trained.safetensors`, as a saved model has its weights, `records.jsonl`, and `state.json`, which says what of both is whole

The first of a torchrun's processes alone reads and writes; the others know what it found.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from ropewalk.checkpoint.files import disk_errors, write_whole
from ropewalk.distributed import ranks
from ropewalk.errors import UserError
from ropewalk.rope.scaling import LongRope

_logger = logging.getLogger(__name__)
RECORDS, STATE, _WEIGHTS = "records.jsonl", "state.json", "trained.safetensors"
#: Of what a row is asked for, and of the digests of what it reads: all that decides its training.
_TRAINING = "name method parameters factor tokens learning_rate seed data keep weigh longce step_tokens warmup mode generations".split()
_READ = ("model", "data", "scores")


@dataclass
class Kept:
    """What is there of a row.

    Attributes:
        work: its directory.
        asked: its identity (`Grid.identity`), as JSON has it.
        steps, seconds: of its training; 0 where no weights are kept.
        recorded: bytes of the records that are whole, after training and after each measurement.
        done: names of the measurements that are whole.
    """

    work: Path
    asked: dict[str, Any]
    steps: int = 0
    seconds: float = 0.0
    recorded: list[int] = field(default_factory=lambda: [0])
    done: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, work: Path, asked: dict[str, Any]) -> Kept:
        """What is there, less what was asked for otherwise or is not whole; nothing else is left in the directory."""
        kept = cls(work, json.loads(json.dumps(asked)))
        with contextlib.suppress(OSError, ValueError, TypeError, LookupError):
            before = cls(work, **json.loads((work / STATE).read_text(encoding="utf-8")))
            if before._size() >= before.recorded[-1] and _training(before.asked) == _training(kept.asked):
                kept.steps, kept.seconds, kept.recorded = before.steps, before.seconds, before.recorded
                kept.done = before.done if _measuring(before.asked) == _measuring(kept.asked) else []
        kept.recorded = kept.recorded[: len(kept.done) + 1]
        with disk_errors(work):
            if not (kept.steps or kept.done):
                for name in (STATE, _WEIGHTS, RECORDS):
                    (work / name).unlink(missing_ok=True)
            elif (work / RECORDS).exists():
                os.truncate(work / RECORDS, kept.recorded[-1])
        return kept

    def weights(self) -> dict[str, Tensor]:
        """The trained weights on the first process, none on the others."""
        return load_file(self.work / _WEIGHTS) if ranks.rank() == 0 else {}

    def trained(self, weights: dict[str, Tensor], steps: int, seconds: float) -> None:
        """Keep what was trained; said where the disk has no room for it."""
        self.seconds = seconds
        if ranks.rank() == 0:
            try:
                with disk_errors(self.work):
                    save_file({name: each.contiguous() for name, each in weights.items()}, self.work / _WEIGHTS)
                self.steps, self.recorded = steps, [self._size()]
                self._write()
            except UserError as error:
                self.steps = 0
                (self.work / _WEIGHTS).unlink(missing_ok=True)
                _logger.warning(f"what was trained is lost if it cannot be measured: {error}")

    def measured(self, name: str) -> None:
        """A measurement is on record. Without the weights of a trained row nothing would be gained by it."""
        if ranks.rank() == 0 and (self.steps or not self.asked["tokens"]):
            self.done.append(name)
            self.recorded.append(self._size())
            self._write()

    def _size(self) -> int:
        return (self.work / RECORDS).stat().st_size if (self.work / RECORDS).exists() else 0

    def _write(self) -> None:
        state = {name: value for name, value in dataclasses.asdict(self).items() if name != "work"}
        write_whole(self.work / STATE, json.dumps(state))


def _training(asked: dict[str, Any]) -> dict[str, Any]:
    read = (*_READ, "validation") if asked["method"] == LongRope.method else _READ
    return {name: asked.get(name) for name in _TRAINING} | {name: asked["digests"].get(name) for name in read}


def _measuring(asked: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in asked.items() if name != "measure"}
