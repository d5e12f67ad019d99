"""Run by torchrun in test_ablation_together.py: the rows of an ablation by two processes together, in a directory that holds a tiny model.

usage: torchrun --nproc-per-node 2 ablating_ranks.py DIRECTORY [short of memory]
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import warnings
from pathlib import Path
from unittest import mock

import torch

import ropewalk
from ropewalk.distributed import ranks, spread
from ropewalk.errors import UserError
from ropewalk.model.loss import NextTokenLoss
from ropewalk.suite import measurements, row_run, stages
from ropewalk.suite.stages import Outcome, Stage
from ropewalk.training.log import Log

METHODS = ["none", "linear", "longrope"]


def rows(place: Path, name: str, **options) -> list[Outcome]:
    """Three untrained rows and two trained ones of the model in `place`; options of `ablate` in place of these."""
    asked = dict(
        test=[place / "test"], data=[place / "train.txt"], validation=[place / "validation.txt"], factors=[2], tokens=[0, 1024], methods=METHODS,
        learning_rates=[1e-3], step_tokens=512, documents=3, prompt_windows=[400], depths=3, trials=1, generations=1, device="cpu",
        measure=["perplexity", "gain", "passkey", "validation"],
    )  # fmt: skip
    return ropewalk.ablate(place / "model", out=place / name, **{**asked, **options})


def fails(*_) -> None:
    raise UserError("one rank cannot read this")


def stages_of_which_one_fails(place: Path, *, second: bool) -> list[Outcome]:
    """The second process cannot go on in the first stage, where the first one waits for it; the other stages are sound, or too large."""

    def meets() -> None:
        assert ranks.gathered({ranks.rank(): "here"}) == {0: "here", 1: "here"}

    def large() -> None:
        if second:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")
        meets()

    todo = {"alone": fails if second else meets, "sound": meets, "large": large, "last": meets}
    (place / "stages").mkdir(exist_ok=True)
    (place / "stages/stages.jsonl").touch()
    with mock.patch.object(ranks, "share_passes", return_value=False):  # but for what "sharded" has left behind
        outcomes = stages.run([Stage(name, "model", {}, run) for name, run in todo.items()], place / "stages")
    return [dataclasses.replace(outcome, seconds=0.0) for outcome in outcomes]  # each process has its own clock


def main() -> None:
    warnings.simplefilter("ignore")
    place, second = Path(sys.argv[1]), os.environ["RANK"] == "1"
    if sys.argv[2:]:
        short = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")
        with mock.patch.object(NextTokenLoss, "forward", side_effect=short) if second else mock.MagicMock():
            rows(place, "short", methods=["linear"], tokens=[1024])
        return
    said = {"rows": rows(place, "two"), "again": rows(place, "two"), "held": rows(place, "held", tokens=[0])}
    with mock.patch.object(spread, "WHOLE_SHARE", 0.0):
        said["sharded"] = rows(place, "sharded", methods=["linear", "none"])
    with mock.patch.object(measurements.passkey, "measure", fails) if second else mock.MagicMock():
        said["failing"] = rows(place, "failing", tokens=[0], methods=["none"])
    with mock.patch.object(Log, "step", fails) if not second else mock.MagicMock():
        said["unlogged"] = rows(place, "unlogged", tokens=[0, 1024], methods=["linear"])
    unwritten = dict(tokens=[1024], methods=["linear"])
    with mock.patch.object(row_run, "write_row", fails):
        said["unwritten"] = rows(place, "unwritten", **unwritten)
    with mock.patch.object(row_run, "Loop", None):
        said["written"] = rows(place, "unwritten", **unwritten)
    said["stages"] = stages_of_which_one_fails(place, second=second)
    said["uneven"] = rows(place, "uneven", tokens=[1024], methods=["linear"], step_tokens=384)
    every = ranks.gathered({ranks.rank(): {name: [vars(each) for each in outcomes] for name, outcomes in said.items()}})
    if not second:
        (place / "said.json").write_text(json.dumps(every))


if __name__ == "__main__":
    main()
