"""Where a step is logged: always as a row on record and an event of the logger, to TensorBoard, Trackio and Weights & Biases when asked.

in   the figures of one optimiser step
out  a `records.Step`, and the same figures in every log that was asked for
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.files import disk_errors
from ropewalk.checkpoint.half_written import known_as
from ropewalk.checkpoint.steps import ENDED_BY, MODEL_STEP, RISE
from ropewalk.errors import UserError, told
from ropewalk.planner.chips import Mfu
from ropewalk.progress import Progress, clock, is_first_process
from ropewalk.records import Recorder, Run, Step, append_lines, to_line
from ropewalk.settings.extras import bringing
from ropewalk.settings.train import TrainSettings
from ropewalk.training.disk import filling


class Log:
    """Logs every step. Of the processes that torchrun started only the first keeps files and tells other programs.

    Args:
        settings: what is asked for.
        out: the directory that the run writes into.
        run: the header of the records.
        first: steps already taken.
    """

    def __init__(self, settings: TrainSettings, out: Path, run: Run, first: int) -> None:
        self._recorder = Recorder(out / "records.jsonl", run, elsewhere=False)
        asked = settings.logs if is_first_process() else {}
        self._sinks: list[Any] = [_SINKS[name](project, out, run, first) for name, project in asked.items()]
        self._steps = settings.steps
        self._progress = Progress("training", settings.steps, done=first, news=True)
        self._progress.begin()

    def step(self, step: Step) -> None:
        """Write one step everywhere. Raises UserError if the disk refuses."""
        path = self._recorder.path or Path("records")
        with filling(path, len(to_line(step, self._recorder.run.id))), disk_errors(path):
            self._recorder.add(step)
        for sink in self._sinks:
            sink.step(step)
        self._progress.advance(detail=line(step, self._steps))

    def ended(self, by: str, model_step: int = 0, rise: tuple[int, float, float] | None = None) -> None:
        """Say on record which option ended the run, in its header once more: one that was killed has come to no end. model_step: of the model that it leaves, 0 for its last. rise: of a perplexity that ended it."""
        if is_first_process() and self._recorder.path is not None:
            run = self._recorder.run
            left: dict[str, Any] = {MODEL_STEP: model_step} if model_step else {}
            left |= {RISE: list(rise)} if rise else {}
            again = replace(run, settings={**run.settings, ENDED_BY: by, **left})
            with disk_errors(self._recorder.path):
                append_lines(self._recorder.path, [to_line(again)])

    def close(self) -> None:
        """Finish whatever is open."""
        self._progress.end()
        for sink in self._sinks:
            sink.close()


def line(step: Step, steps: int) -> str:
    """One step in one line: step, time left, loss, learning rate, gradient norm, tokens/s, peak memory, MFU; what a narrow terminal cuts off is last."""
    mfu = str(Mfu(step.mfu, step.mfu_of_data_sheet))
    return (
        f"step {step.step}/{steps}  {clock(step.seconds_left)} left  loss {step.loss:.4f}  lr {step.learning_rate:.2e}  grad {step.grad_norm:.3f}  "
        f"{step.tokens_per_second:,.0f} tokens/s  peak {step.peak_bytes / 2**30:.1f} GiB{mfu and f'  {mfu}'}"
    )


class _TensorBoard:
    def __init__(self, _: str, out: Path, __: Run, first: int) -> None:
        with _loading("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter
        # A resumed run logs the steps after its checkpoint a second time; purge_step hides the first copies.
        self._writer = SummaryWriter(out / "tensorboard", purge_step=first + 1 if first else None)

    def step(self, step: Step) -> None:
        for name, value in _figures(step).items():
            self._writer.add_scalar(name, value, step.step)

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    _run: Any  # of either library

    def __init__(self, project: str, out: Path, run: Run, _: int) -> None:
        with _loading("wandb"):
            import wandb  # pyrefly: ignore[missing-import]
        # The same id when a run is resumed, so that it goes on as one curve.
        try:
            self._run = wandb.init(
                project=project, id=run.id, name=known_as(out).name, resume="allow", config=json.loads(to_line(run))
            )
        except wandb.Error as error:
            raise UserError(
                f"Weights & Biases did not take the run ({error}); run `wandb login`, or set WANDB_MODE=offline, or train without it"
            ) from None

    def step(self, step: Step) -> None:
        self._run.log(_figures(step), step=step.step)

    def close(self) -> None:
        self._run.finish()


class _Trackio(_Wandb):
    def __init__(self, project: str, out: Path, run: Run, first: int) -> None:
        with _loading("trackio"):
            import trackio  # pyrefly: ignore[missing-import]
        # It keeps both copies of a step that is logged twice: a resumed run is a curve of its own, in one group with the first.
        name = f"{known_as(out).name}-{run.id}" + (f"-from-{first}" if first else "")
        with told("Trackio did not take the run", "leave --log trackio out", Exception), redirect_stdout(sys.stderr):
            self._run = trackio.init(
                project, name=name, group=known_as(out).name, config=json.loads(to_line(run)), embed=False
            )

        # It ends the run at once; the run's own does so again, and says so, when the process ends.
        self._finish = trackio.finish

    def close(self) -> None:
        with redirect_stdout(sys.stderr):
            self._finish()


_SINKS: dict[str, Callable[[str, Path, Run, int], Any]] = {
    "tensorboard": _TensorBoard,
    "wandb": _Wandb,
    "trackio": _Trackio,
}


@contextmanager
def _loading(package: str) -> Iterator[None]:
    """What is there and does not load is a sentence."""
    try:
        yield
    except ImportError as error:
        raise UserError(
            f"--log {package} needs a {package} package that loads ({error}); {bringing(package)} anew"
        ) from None


def _figures(step: Step) -> dict[str, float]:
    return {f"train/{name}": value for name, value in asdict(step).items() if name != "step" and value is not None}
