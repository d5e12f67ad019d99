"""Where a step is told: a record line always, a bar or a line on the terminal, TensorBoard and Weights & Biases when asked.

in   the figures of one optimiser step
out  a `record.Step`; the same figures wherever they were asked for
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.files import disk_errors
from ropewalk.errors import UserError
from ropewalk.records import Recorder, Run, Step
from ropewalk.settings.train import TrainSettings

#: Seconds between lines where stderr is no terminal (a log file, a batch system).
_BETWEEN_LINES = 10.0


class Log:
    """Tells every step. Of the processes that torchrun started only the first keeps files and has a Weights & Biases run.

    Args:
        settings: what is asked for.
        run: the header of the records.
        first: steps already taken.
        progress: whether to tell the terminal.
    """

    def __init__(self, settings: TrainSettings, run: Run, first: int, *, progress: bool) -> None:
        out = Path(settings.out)
        self._recorder = Recorder(out / "records.jsonl", run)
        self._sinks: list[Any] = []
        is_first = os.environ.get("RANK", "0") == "0"
        if settings.tensorboard and is_first:
            self._sinks.append(_tensorboard(out / "tensorboard", first))
        if settings.wandb and is_first:
            self._sinks.append(_wandb(settings.wandb, run))
        self._terminal = _terminal(settings.steps, first) if progress else None

    def step(self, step: Step) -> None:
        """Write one step everywhere. Raises UserError if the disk refuses."""
        with disk_errors(self._recorder.path or "records"):
            self._recorder.add(step)
        for sink in self._sinks:
            sink.step(step)
        if self._terminal is not None:
            self._terminal.step(step)

    def say(self, sentence: str) -> None:
        """A sentence on the terminal, above the bar."""
        if self._terminal is not None:
            self._terminal.say(sentence)

    def close(self) -> None:
        """Finish the bar and whatever else is open."""
        for sink in [*self._sinks, *([self._terminal] if self._terminal is not None else [])]:
            sink.close()


def line(step: Step, steps: int) -> str:
    """One step in one line: step, loss, learning rate, gradient norm, tokens/s, MFU, peak memory, time left."""
    mfu = "" if step.mfu is None else f"  MFU {step.mfu:.3f}"
    return (
        f"step {step.step}/{steps}  loss {step.loss:.4f}  lr {step.learning_rate:.2e}  grad {step.grad_norm:.3f}  "
        f"{step.tokens_per_second:,.0f} tokens/s{mfu}  peak {step.peak_bytes / 2**30:.1f} GiB  {clock(step.seconds_left)} left"
    )


def clock(seconds: float) -> str:
    """Hours, minutes and seconds: 1:02:03, or 2:03."""
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _terminal(steps: int, first: int) -> _Bar | _Lines:
    return _Bar(steps, first) if sys.stderr.isatty() else _Lines(steps)


class _Lines:
    """The first step, the last, and one every ten seconds in between."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._next = 0.0

    def step(self, step: Step) -> None:
        now = time.monotonic()
        if now >= self._next or step.step == self._steps:
            self._next = now + _BETWEEN_LINES
            self.say(line(step, self._steps))

    def say(self, sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)

    def close(self) -> None:
        pass


class _Bar:
    def __init__(self, steps: int, first: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (BarColumn(), TextColumn("{task.description}"))
        self._steps = steps
        self._progress = Progress(*columns, console=Console(stderr=True), refresh_per_second=2)
        self._task = self._progress.add_task(f"step {first}/{steps}", total=steps, completed=first)
        self._progress.start()

    def step(self, step: Step) -> None:
        self._progress.update(self._task, completed=step.step, description=line(step, self._steps))

    def say(self, sentence: str) -> None:
        self._progress.console.print(sentence, markup=False)

    def close(self) -> None:
        self._progress.stop()


class _tensorboard:
    def __init__(self, directory: Path, first: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(
                f"--tensorboard needs a tensorboard package that loads ({error}); install ropewalk[log] anew"
            ) from None
        # Steps after the checkpoint that a resumed run starts from are told a second time; purge_step hides the first telling.
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
            raise UserError(f"--wandb needs a wandb package that loads ({error}); install ropewalk[log] anew") from None
        # The same id when a run is resumed, so that it goes on as one curve.
        try:
            self._run = wandb.init(project=project, id=run.id, resume="allow", config=asdict(run))
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
