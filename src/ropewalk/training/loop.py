"""The training loop: the steps of one run, from wherever it stands to its end.

in   settings, and what run.py makes ready: model, windows, devices
out  `out/`: the trained model, `checkpoints/`, `records.jsonl`

The step itself is in step.py. Between steps: the record, the checkpoints (saving.py), the clock of `--budget`, whoever watches (watching.py), signals. Resumed
from a checkpoint (standing.py), the next step computes what it would have computed: weights and optimiser come back bit for bit (training_state.py), and
everything else is a function of the step's number.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import signal
import time
from pathlib import Path
from typing import Any

import torch

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.steps import WATCH_STOP, model_step
from ropewalk.distributed import ranks
from ropewalk.distributed.mesh import Mesh
from ropewalk.records import ModelInfo
from ropewalk.settings import run_file
from ropewalk.settings.train import TrainSettings
from ropewalk.training import lora, threads, throughput, training_state
from ropewalk.training import optimizer as optimizers
from ropewalk.training.batch import Batches
from ropewalk.training.checkpoints import write_final
from ropewalk.training.deadline import Deadline, OutOfTime, seconds_of
from ropewalk.training.guard import Signals, Terminated
from ropewalk.training.header import header_of
from ropewalk.training.log import Log
from ropewalk.training.retry import shortage_told, told_as_whole, unwritten
from ropewalk.training.saving import Saving
from ropewalk.training.setup import StartingModel
from ropewalk.training.snapshots import BY_TIME, STATE, Snapshot
from ropewalk.training.standing import standing_of
from ropewalk.training.step import Interrupted, TrainingStep, seed
from ropewalk.training.watching import Watch, Watching

_logger = logging.getLogger(__name__)


class Loop:
    """One run: what it trains, and how far it has come.

    settings, start, batches, mesh: what is trained, from what, on what, where. out: what `directory_of` yielded. keep: whether the trained
        model is written there; if not, it stays in memory, and nothing but the record of its steps is written.
    asked: the settings before anything was settled by model and device, for the run's file.
    deadline: when it has to be over; never, if not given.
    watch: is shown the run every `watch_every` steps (watching.py).
    """

    def __init__(
        self,
        settings: TrainSettings,
        start: StartingModel,
        batches: Batches,
        mesh: Mesh,
        out: Path,
        *,
        keep: bool = True,
        watch: Watch | None = None,
        asked: TrainSettings | None = None,
        deadline: Deadline | None = None,
    ) -> None:
        self.settings, self.start, self.batches, self.mesh, self.keep = settings, start, batches, mesh, keep
        self.watching, self._asked = Watching(watch), asked or settings
        self.out = out
        self.model: Any = start.model
        if settings.mode == "lora":
            seed(settings.seed)  # adapters begin at random: the same in every run and on every device
            self.model = lora.add(
                start.model, rank=settings.lora_rank, alpha=settings.lora_alpha, compute=start.compute
            )
        self.deadline = deadline or Deadline()
        self.step = TrainingStep(settings, start, self.model, batches, mesh, self.deadline)
        self.done = 0
        self._changed = self._is_finished = False
        self.saving = Saving(settings, start, self.step, mesh, out, self.deadline, keep=keep)
        self.snapshots = self.saving.snapshots
        self.threads = torch.get_num_threads()
        rate = throughput.matrix_rate(mesh.device, start.compute)
        self._pace = throughput.Pace(mesh.device, self.step.flops, rate, settings.steps, mesh.world)

    def run(self) -> ModelInfo:
        """All remaining steps, then the final model. Threads and attention are the process's own again afterwards."""
        snapshot = self._resume()
        if self._is_finished:
            self.mesh.release()
            return self._info()
        before = None if snapshot is None else snapshot.about.get("threads")
        with contextlib.ExitStack() as stack:
            stack.callback(self.mesh.release)
            self.threads = stack.enter_context(threads.settled(self.settings.threads, before, self.mesh.device))
            header = header_of(
                settings=self.settings,
                start=self.start,
                batches=self.batches,
                mesh=self.mesh,
                peak=self.step.peak_rate,
                weights=self.step.parameters[0].dtype,
            )
            if snapshot is not None:  # goes on under the same id, so that its steps are one curve
                header = dataclasses.replace(header, id=snapshot.about["run"])
            log = Log(self.settings, self.out, header, self.done)
            stack.callback(log.close)
            if snapshot is not None:
                self._say(f"resumed from {snapshot.path}, step {snapshot.step}")
            with (
                shortage_told(lambda asked: self.step.too_little(self.done + 1, asked)),
                self.saving.full_told(),
                Signals(saves=self.keep) as signals,
            ):
                self._prepare()
                self._steps(log, header.id, signals, snapshot)
                self._finish()
            return self._info()

    def _write_run_file(self, snapshot: Snapshot | None) -> None:
        """The settings by which the whole run can be repeated from nothing: all its steps, and not the minutes of one of several sittings.

        Once a step is taken: a sitting that is refused before leaves the file of the one that made what lies there.
        """
        if not (self.mesh.main and self.keep):
            return
        asked = self._asked
        if snapshot is not None:
            asked = dataclasses.replace(asked, steps=max(asked.steps, snapshot.step), budget=None)
        open_ = [name for name in ("precision", "optimizer") if getattr(asked, name) == "auto"]
        chosen = " and ".join(f"--{name} {getattr(self.settings, name)}" for name in open_)
        chosen = chosen and f"auto chose {chosen}, and may choose otherwise on another device"
        changed_at = snapshot.step if snapshot and self._changed else None
        run_file.write_training(asked, self.out, chosen=chosen, changed_at=changed_at)

    def _prepare(self) -> None:
        """The disk is asked; what stays in a GPU's memory is put there; then what the layers keep can be chosen."""
        self.saving.ask_disk(self.done)
        if self.mesh.device.type == "cuda":
            optimizers.allocate_states(self.step.optimizer)
        self.step.activations.settle()

    def _info(self) -> ModelInfo:
        """The trained model, which the first process may have put in its place before another could look."""
        if not self.keep:
            return dataclasses.replace(self.start.info, steps=self.done)
        with told_as_whole(self.settings.out, "only reading it back, to say what it is,"):
            info = Checkpoint.open(self.out).info if self.mesh.main else None
        return dataclasses.replace(ranks.same(info), name=str(self.settings.out))

    def _resume(self) -> Snapshot | None:
        if not self.settings.resume:
            return None
        standing = standing_of(self.settings, self.out, self.snapshots, self._identity, self.mesh)
        snapshot, self._is_finished = standing.snapshot, standing.is_finished
        if snapshot is None:
            return None
        self._changed = bool(standing.changes)
        for change in standing.changes:
            self._say(f"from step {snapshot.step} on: {change}")
        with ranks.nobody_waits():  # what is read is shared out at once
            training_state.load(self.model, self.step.optimizer, snapshot.state, self.mesh)
        self.done = self.step.saved = snapshot.step
        if self.settings.watch_stop is not None:  # every look before was well, or the run would have ended
            self.snapshots.well = snapshot.step - snapshot.step % self.settings.watch_every
        if standing.reached > self.done:
            self._say(
                f"the model in {self.settings.out} has {standing.reached} steps, but nothing to go on from was saved after step {self.done}: those between "
                "are taken again"
            )
        return snapshot

    def _identity(self) -> dict[str, Any]:
        return {
            **self.settings.identity(),
            "learning_rate": self.step.peak_rate,
            "model": self.start.fingerprint,
            "data": self.batches.windows.digest,
        }

    def _steps(self, log: Log, run: str, signals: Signals, snapshot: Snapshot | None) -> None:
        every, first = self.settings.save_steps, self.done
        self._refuse_hopeless()
        while not (is_enough := self.watching.is_enough(self)) and self.done < self.settings.steps:
            is_seen = self.done and self.watching.shown == self.done != self.step.saved
            if is_seen and self.settings.watch_stop is not None and self.saving.is_due(self.done, seen=True):
                self._save(run, by_time=True)
            begin = time.perf_counter()
            try:
                self.deadline.check(self.deadline.next_step)
                result = self.step.take(self.done, signals)
            except Interrupted:
                raise self._stopped(run, signals) from None
            except OutOfTime as late:
                if self.mesh.any(signals.received is not None):  # in the step that left no time for another
                    raise self._stopped(run, signals) from None
                if self.done == first:
                    raise self.deadline.refusal(late.seconds, self.settings.batch) from None
                is_enough = self._end_in_time(run)
                if self.mesh.any(signals.received is not None):  # while that was shown or saved
                    raise self._stopped(run, signals) from None
                log.ended(WATCH_STOP if is_enough else "--budget", self.watching.left, self.watching.rise)
                return
            if self.done == first:
                self._write_run_file(snapshot)
            self.done += 1
            seconds = time.perf_counter() - begin
            self.deadline.step(seconds)
            signals.takes = seconds / self.step.micro_batches + self.deadline.saving
            if self.mesh.main:
                row = self._pace.row(self.done, result, seconds)
                log.step(dataclasses.replace(row, seconds_left=min(row.seconds_left, self.deadline.left)))
            self.step.activations.after_step()
            self.step.lower_in_time()
            if every and self.done % every == 0:
                self._save(run)
            elif self.saving.is_due(self.done):
                self._save(run, by_time=True)
        if is_enough:
            log.ended(WATCH_STOP, self.watching.left, self.watching.rise)

    def _refuse_hopeless(self) -> None:
        """Of a run with a budget: a first step that is longer than all of it."""
        if not self.deadline.is_set:
            return
        windows, window = self.settings.batch, self.batches.windows.window
        flops = self._pace.flops * windows * window / self.mesh.world
        ranks.together(lambda: self.deadline.refuse_hopeless(seconds_of(flops, self.mesh.device), windows))

    def _end_in_time(self, run: str) -> bool:
        """The budget is spent: show and save what was done, so that another run can go on from it; whether whoever watches would have ended it as well."""
        self.step.drop_gradients()
        self._say(
            f"the run ends after step {self.done} of {self.settings.steps}, in time for --budget; --resume goes on"
        )
        is_enough = self.watching.is_enough(self, ended=True)
        if not self.watching.left:  # else what the run goes back to may make way for it
            self._save(run)
        return is_enough

    def _save(self, run: str, *, by_time: bool = False) -> None:
        if self.keep and self.step.saved != self.done:
            about = {
                "identity": self._identity(),
                "run": run,
                "threads": self.threads,
                "precision": self.settings.precision,
                "micro_batch": self.batches.micro,
                BY_TIME: by_time,
            }
            self.saving.write(self.model, self.done, about)

    def _stopped(self, run: str, signals: Signals) -> BaseException:
        """Save what is done; what to leave with: SIGTERM with 143, SIGINT as an interrupt."""
        self.step.drop_gradients()
        if self.done:
            self._save(run)
        sentence = f"stopped by a signal after step {self.done}"
        if not self.keep:
            sentence += ", and nothing of this training is kept"
        elif self.done:
            sentence += ", which is saved; go on with --resume"
        if self.keep and 0 < (shown := model_step(self.out)) < self.done:
            sentence += f"; the model in {self.out} is still that of step {shown}"
        self._say(sentence)
        return KeyboardInterrupt() if signals.received == signal.SIGINT else Terminated(sentence)

    def _say(self, sentence: str) -> None:
        if self.mesh.main:
            _logger.info(sentence)

    def _finish(self) -> None:
        if not self.keep:
            return
        if self.watching.left:
            training_state.load(
                self.model, self.step.optimizer, self.snapshots.path(self.watching.left) / STATE, self.mesh
            )
            self.done = self.step.saved = self.watching.left
        last = self.snapshots.path(self.done) if self.step.saved == self.done else None
        with shortage_told(lambda asked: unwritten(f"the model of step {self.done}", asked, self.step.saved)):
            write_final(self.out, self.done, self.model, self.start, self.mesh, same_as=last)
