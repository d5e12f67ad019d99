"""Where a step is logged: always as a row on record and an event of the logger, to TensorBoard and Weights & Biases when asked.

in   the figures of one optimiser step
out  a `records.Step`, and the same figures in every log that was asked for
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.files import disk_errors
from ropewalk.errors import UserError
from ropewalk.planner.chips import Mfu
from ropewalk.progress import Progress, clock, is_first_process
from ropewalk.records import Recorder, Run, Step, to_line
from ropewalk.settings.extras import bringing
from ropewalk.settings.train import TrainSettings


class Log:
    """Logs every step. Of the processes that torchrun started only the first keeps files and has a Weights & Biases run.

    Args:
        settings: what is asked for.
        out: the directory that the run writes into.
        run: the header of the records.
        first: steps already taken.
    """

    def __init__(self, settings: TrainSettings, out: Path, run: Run, first: int) -> None:
        self._recorder = Recorder(out / "records.jsonl", run, elsewhere=False)
        self._sinks: list[Any] = []
        if settings.tensorboard and is_first_process():
            self._sinks.append(_tensorboard(out / "tensorboard", first))
        if settings.wandb and is_first_process():
            self._sinks.append(_wandb(settings.wandb, run))
        self._steps = settings.steps
        self._progress = Progress("training", settings.steps, done=first, news=True)
        self._progress.begin()

    def step(self, step: Step) -> None:
        """Write one step everywhere. Raises UserError if the disk refuses."""
        with disk_errors(self._recorder.path or "records"):
            self._recorder.add(step)
        for sink in self._sinks:
            sink.step(step)
        self._progress.advance(detail=line(step, self._steps))

    def close(self) -> None:
        """Finish whatever is open."""
        self._progress.end()
        for sink in self._sinks:
            sink.close()


def line(step: Step, steps: int) -> str:
    """One step in one line: step, loss, learning rate, gradient norm, tokens/s, MFU, peak memory, time left."""
    mfu = Mfu(step.mfu, step.mfu_of_data_sheet)
    return (
        f"step {step.step}/{steps}  loss {step.loss:.4f}  lr {step.learning_rate:.2e}  grad {step.grad_norm:.3f}  "
        f"{step.tokens_per_second:,.0f} tokens/s  {mfu}{'  ' if step.mfu else ''}peak {step.peak_bytes / 2**30:.1f} GiB  {clock(step.seconds_left)} left"
    )


class _tensorboard:
    def __init__(self, directory: Path, first: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(
                f"--tensorboard needs a tensorboard package that loads ({error}); {bringing('tensorboard')} anew"
            ) from None
        # A resumed run logs the steps after its checkpoint a second time; purge_step hides the first copies.
        self._writer = SummaryWriter(directory, purge_step=first + 1 if first else None)

    def step(self, step: Step) -> None:
        for name, value in asdict(step).items():
            if name != "step" and value is not None:
                self._writer.add_scalar(f"train/{name}", value, step.step)

    def close(self) -> None:
        self._writer.close()


class _wandb:
    def __init__(self, project: str, run: Run) -> None:
        try:
            import wandb  # pyrefly: ignore[missing-import]
        except ImportError as error:
            raise UserError(f"--wandb needs a wandb package that loads ({error}); {bringing('wandb')} anew") from None
        # The same id when a run is resumed, so that it goes on as one curve.
        try:
            self._run = wandb.init(project=project, id=run.id, resume="allow", config=json.loads(to_line(run)))
        except wandb.Error as error:
            raise UserError(
                f"Weights & Biases did not take the run ({error}); run `wandb login`, or set WANDB_MODE=offline, or leave --wandb out"
            ) from None

    def step(self, step: Step) -> None:
        values = {
            f"train/{name}": value for name, value in asdict(step).items() if name != "step" and value is not None
        }
        self._run.log(values, step=step.step)

    def close(self) -> None:
        self._run.finish()
