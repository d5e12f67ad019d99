"""The training loop: the steps of one run, from wherever it stands to its end.

in   settings, and what run.py makes ready: model, windows, devices
out  `out/`: the trained model, `checkpoints/`, `records.jsonl`

A step reads its windows (batch.py), with LongCE first in short contexts (short_context.py), adds up the gradient of their summed loss over micro batches and devices, divides by the number
of scored tokens once, looks at loss and gradient (guard.py), and only then lets the optimiser move. The loss itself is computed in
model/loss.py, `NextTokenLoss.forward`; `_forward_and_backward` calls it. Resumed from a checkpoint, the next step computes what it would
have computed: weights and optimiser come back bit for bit (training_state.py), and everything else, data and random numbers alike, is
a function of the step's number.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ropewalk.attention_ops.transformers import as_usual, is_plain_causal
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.distributed.mesh import Mesh
from ropewalk.errors import UserError
from ropewalk.model.label_weights import PUBLISHED_MOST, taken_out
from ropewalk.model.loss import NextTokenLoss
from ropewalk.model.verify import verify_positions
from ropewalk.records import ModelInfo
from ropewalk.settings import run_file
from ropewalk.settings.budget import gradients_wait
from ropewalk.settings.train import CHANGEABLE, TrainSettings
from ropewalk.training import disk, lora, threads, throughput, training_state
from ropewalk.training import optimizer as optimizers
from ropewalk.training.activations import ActivationMemory
from ropewalk.training.batch import Batches
from ropewalk.training.checkpoints import write_checkpoint, write_final
from ropewalk.training.deadline import Deadline, OutOfTime
from ropewalk.training.guard import Guard, Signals, Terminated, blame
from ropewalk.training.header import header_of
from ropewalk.training.log import Log
from ropewalk.training.regime import what_fits
from ropewalk.training.retry import shortage_told, too_little, until_it_fits
from ropewalk.training.setup import StartingModel
from ropewalk.training.short_context import ShortContext
from ropewalk.training.snapshots import CHECKPOINTS, Snapshot, Snapshots, refuse_other_run

_logger = logging.getLogger(__name__)


class _Stop(Exception):
    """A signal arrived in the middle of a step; what the step has done so far is dropped."""


class Loop:
    """One run: what it trains, and how far it has come.

    settings, start, batches, mesh: what is trained, from what, on what, where. out: what `directory_of` yielded. keep: whether the trained
        model is written there; if not, it stays in memory, and nothing but the record of its steps is written.
    asked: the settings before anything was settled by model and device, for the run's file.
    deadline: when it has to be over; never, if not given.
    watch: is shown the run every `watch_every` steps; what it returns is why the run should end here.
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
        watch: Callable[[Loop], str | None] | None = None,
        asked: TrainSettings | None = None,
        deadline: Deadline | None = None,
    ) -> None:
        self.settings, self.start, self.batches, self.mesh, self.keep = settings, start, batches, mesh, keep
        self._watch, self._asked = watch, asked or settings
        self.out: Path = mesh.same(out)  # the first process knows
        self.model: Any = start.model
        if settings.mode == "lora":
            _seed(settings.seed)  # adapters begin at random: the same in every run and on every device
            self.model = lora.add(start.model, rank=settings.lora_rank, alpha=settings.lora_alpha)
        #: Whether documents and devices are told apart by attention in blocks; windows that slide must go through transformers' masks.
        self._attends_in_blocks = mesh.context_size > 1 or is_plain_causal(start.model)
        with self._autocast():
            # Where the weights are on the main process alone, it alone looks at what the family does with them.
            self.loss: Any = mesh.together(lambda: NextTokenLoss(self.model))
        self._short = None if settings.longce is None else ShortContext(settings.longce, settings.longce_step)
        flops = throughput.flops_per_token(self.model, batches.windows.window)
        self.activations = self._activation_memory(flops)
        mesh.shard(self.loss, None if start.compute == torch.float32 else start.compute)
        verify_positions(start.model, start.positions)
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.peak = settings.peak_rate(start.info.parameters)
        self.optimizer = optimizers.build(self.parameters, settings, self.peak)
        self.snapshots = Snapshots(self.out / CHECKPOINTS, keep=settings.keep_checkpoints)
        self.guard = Guard()
        self.done = 0
        self._shown: int | None = None
        self.deadline = deadline or Deadline()
        if keep:  # weights, and as much again for what the state leaves out
            self.deadline.will_save(2 * disk.state_bytes(self.parameters, settings.optimizer))
        self.threads = torch.get_num_threads()
        self._saved: int | None = None
        rate = throughput.matrix_rate(mesh.device, start.compute)
        self._pace = throughput.Pace(mesh.device, flops, rate, settings.steps, mesh.world)
        self._retries = self._tight = 0  # of the step that is being taken

    def _activation_memory(self, flops: float) -> ActivationMemory:
        settings, micro, window = self.settings, self.batches.micro, self.batches.windows.window
        tokens = settings.steps * settings.batch * window
        return ActivationMemory(
            self.loss,
            settings.activations,
            self.mesh,
            self.start.compute,
            (micro, window // self.mesh.context_size),
            work=tokens * flops / self.mesh.world,
            accumulated=gradients_wait(settings.batch, micro, self.mesh.data_size),
        )

    def run(self) -> ModelInfo:
        """All remaining steps, then the final model. Threads and attention are the process's own again afterwards."""
        snapshot = self._resume()
        before = None if snapshot is None else snapshot.about.get("threads")
        with contextlib.ExitStack() as stack:
            stack.callback(self.mesh.release)
            self.threads = stack.enter_context(threads.settled(self.settings.threads, before, self.mesh.device))
            header = header_of(
                settings=self.settings,
                start=self.start,
                batches=self.batches,
                mesh=self.mesh,
                peak=self.peak,
                weights=self.parameters[0].dtype,
            )
            if snapshot is not None:  # goes on under the same id, so that its steps are one curve
                header = dataclasses.replace(header, id=snapshot.about["run"])
            log = Log(self.settings, self.out, header, self.done)
            if self.mesh.main and self.keep:
                run_file.write(self._asked, self.out)
            stack.callback(log.close)
            if snapshot is not None:
                self._say(f"resumed from {snapshot.path}, step {snapshot.step}")
            with shortage_told(self._too_little), Signals() as signals:
                self._prepare()
                self._steps(log, header.id, signals)
                self._finish()
            return self._info()

    def _prepare(self) -> None:
        """The disk is asked; what stays in a GPU's memory is put there; then what the layers keep can be chosen."""
        self.mesh.together(self._ask_disk)
        if self.mesh.device.type == "cuda":
            optimizers.allocate_states(self.optimizer)
        self.activations.settle()

    def _ask_disk(self) -> None:
        if self.mesh.main and self.keep:
            there = len(self.snapshots.steps()) if self.settings.resume else 0
            disk.ask(self.out, self.settings, self.start.source, self.parameters, done=self.done, there=there)

    def _info(self) -> ModelInfo:
        """The trained model, which the first process may have put in its place before another could look."""
        if not self.keep:
            return dataclasses.replace(self.start.info, steps=self.done)
        info = Checkpoint.open(self.out).info if self.mesh.main else None
        return dataclasses.replace(self.mesh.same(info), name=str(self.settings.out))

    def _resume(self) -> Snapshot | None:
        if not self.settings.resume:
            return None
        snapshot = None
        if self.mesh.main:
            self.snapshots.sweep()
            snapshot = self.snapshots.latest()
        snapshot = self.mesh.same(snapshot)
        if snapshot is None and self.mesh.same((self.out / "config.json").is_file()):
            raise UserError(
                f"{self.settings.out} holds a finished model and no checkpoint that a run can go on from, and to begin anew would replace it; put the "
                "checkpoints back, choose another --out, or add --overwrite and leave --resume out"
            )
        if snapshot is not None:
            changed = refuse_other_run(
                snapshot, self._identity(), allow=CHANGEABLE if self.settings.allow_changes else ()
            )
            for change in changed:
                self._say(f"from step {snapshot.step} on: {change}")
            training_state.load(self.model, self.optimizer, snapshot.state, self.mesh)
            self.done = self._saved = snapshot.step
        return snapshot

    def _identity(self) -> dict[str, Any]:
        return {
            **self.settings.identity(),
            "learning_rate": self.peak,
            "model": self.start.fingerprint,
            "data": self.batches.windows.digest,
        }

    def _steps(self, log: Log, run: str, signals: Signals) -> None:
        every, first = self.settings.save_every, self.done
        self._refuse_hopeless()
        while not self._is_enough() and self.done < self.settings.steps:
            begin = time.perf_counter()
            try:
                self._look_at_the_clock(self.deadline.next_step)
                figures = self._step(signals)
            except _Stop:
                raise self._stopped(run, signals) from None
            except OutOfTime as late:
                if self.done == first:
                    raise self.deadline.refusal(late.seconds, self.settings.batch) from None
                self._end_in_time(run)
                return
            self.done += 1
            seconds = time.perf_counter() - begin
            self.deadline.step(seconds)
            if self.mesh.main:
                row = self._pace.row(self.done, *figures, seconds, self._retries)
                log.step(dataclasses.replace(row, seconds_left=min(row.seconds_left, self.deadline.left)))
            self.activations.after_step()
            self._lower_in_time()
            if every and self.done % every == 0:
                self._save(run)

    def _refuse_hopeless(self) -> None:
        """Of a run with a budget: a first step that is longer than all of it."""
        windows, window = self.settings.batch, self.batches.windows.window
        flops = self._pace.flops * windows * window / self.mesh.world
        self.mesh.together(lambda: self.deadline.refuse_hopeless(flops, self.mesh.device, windows))

    def _end_in_time(self, run: str) -> None:
        """The budget is spent: show and save what was done, so that another run can go on from it."""
        self.optimizer.zero_grad(set_to_none=True)
        self._say(
            f"the run ends after step {self.done} of {self.settings.steps}, in time for --budget; --resume goes on"
        )
        self._is_enough(ended=True)
        self._save(run)

    def _is_enough(self, *, ended: bool = False) -> bool:
        """Show the run to whoever watches it, if it is time; whether they end it."""
        is_time = self.done % self.settings.watch_every == 0 or self.done == self.settings.steps or ended
        if self._watch is None or not is_time or self._shown == self.done:
            return False
        in_time = self.deadline.before_steps() if self._shown is None else contextlib.nullcontext()
        self._shown = self.done
        self.optimizer.zero_grad(set_to_none=True)
        with (
            in_time,
            self.deadline.timed("watching"),
            self.activations.aside(),
            as_usual(self.start.model),
            self._autocast(),
        ):
            reason = self._watch(self)
        if reason:
            self._say(f"the run ends after step {self.done} of {self.settings.steps}: {reason}")
        return bool(reason)

    def _step(self, signals: Signals) -> tuple[float, float, float, int]:
        """One optimiser step: loss in nats a token, gradient norm, learning rate, tokens. Nothing moves if it raises."""
        step, settings, self._retries = self.done, self.settings, 0
        blocks = self.batches.blocks(step)
        counted = self.batches.windows.counted(blocks, mask_documents=settings.mask_documents)
        with self.mesh.nobody_waits():
            losses, blocks_read, norm = until_it_fits(lambda: self._gradients(counted, signals), self._give_up)
        loss = float(self.mesh.sum(losses.sum())) / counted
        self.guard.check(step + 1, loss, norm, lambda: self._blame(losses.tolist(), blocks_read))
        rate = optimizers.learning_rate(step, self.peak, settings.warmup)
        optimizers.set_rate(self.optimizer, rate)
        self.optimizer.step()
        return loss, norm, rate, len(blocks) * self.batches.windows.window

    def _gradients(self, counted: int, signals: Signals) -> tuple[Tensor, list[list[int]], float]:
        """A step's gradients, from the beginning: the summed loss and the windows of each micro batch, and the gradients' norm."""
        _seed(self.settings.seed, self.done, self.mesh.rank)
        self.optimizer.zero_grad(set_to_none=True)
        losses, blocks_read, begin = [], [], time.perf_counter()
        for micro in self.batches.micro_batches(self.done, self.mesh):
            if self.mesh.any(signals.received is not None):
                raise _Stop
            if blocks_read:
                spent, share = time.perf_counter() - begin, len(blocks_read) / self._micros
                self._look_at_the_clock(spent / share - spent, spent)
            losses.append(self._forward_and_backward(micro.rows, counted))
            blocks_read.append(micro.blocks)
        return torch.stack(losses), blocks_read, float(self.mesh.clip(self.parameters, float(self.settings.clip)))

    @property
    def _micros(self) -> int:
        """Micro batches of a step, on each device."""
        return -(-self.settings.batch // (self.batches.micro * self.mesh.data_size))

    def _look_at_the_clock(self, rest: float, spent: float = 0.0) -> None:
        """Raises OutOfTime if a step that takes `rest` more seconds would come too late. Without a budget nobody looks."""
        if self.deadline.is_set and self.mesh.same(rest > self.deadline.left):
            raise OutOfTime(rest + spent)

    def _give_up(self, asked: str) -> None:
        """Do with less memory from here on; called when a step took more than there is.

        Raises:
            UserError: nothing is left to be given up; or there are several devices, of which one alone cannot begin again.
        """
        self.optimizer.zero_grad(set_to_none=True)
        if self.mesh.world > 1 or not (self.activations.lower(self._retries) or self._smaller_micro_batch()):
            raise UserError(self._too_little(asked))
        if not self._retries:
            self._say(
                f"step {self.done + 1} took more memory than there is ({asked}); it is begun again with less kept for the backward pass"
            )
        self._retries += 1

    def _smaller_micro_batch(self) -> bool:
        """Half as many windows at a time, where no number was asked for."""
        fewer = self.batches.micro // 2
        if fewer and self.settings.micro_batch is None:
            self.batches = dataclasses.replace(self.batches, micro=fewer)
            self._say(f"micro batches have {fewer} windows from now on")
            return True
        return False

    def _lower_in_time(self) -> None:
        """Several devices cannot begin a step again; all keep less as soon as one of them had no memory to spare in it."""
        tight = throughput.tight_allocations(self.mesh.device)
        if self.mesh.world > 1 and self.mesh.any(tight > self._tight) and self.activations.lower():
            self._say(f"step {self.done} took nearly all memory; layers keep less for the backward pass from now on")
        self._tight = tight

    def _too_little(self, asked: str) -> str:
        on_gpu = self.mesh.device.type == "cuda"
        return too_little(
            self.done + 1, asked, what_fits(self.settings, self.start.source, self.mesh) if on_gpu else []
        )

    def _forward_and_backward(self, rows: dict[str, Tensor], counted: int) -> Tensor:
        """Gradients of one micro batch's part of the step's loss; its summed loss, in nats."""
        with self._autocast():
            if self._short is not None:
                rows = self._short.add(rows, self.loss, self.mesh, in_blocks=self._attends_in_blocks)
            inputs = self.mesh.split(rows) if self._attends_in_blocks else rows
            summed = self.loss(**taken_out(inputs, self.settings.longce_most or PUBLISHED_MOST))
        (summed / counted).backward()
        return summed.detach()

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.start.compute == torch.float32 or self.mesh.world > 1:  # sharded weights are gathered in it
            return contextlib.nullcontext()
        return torch.autocast(self.mesh.device.type, dtype=self.start.compute)

    def _blame(self, losses: list[float], blocks_read: list[list[int]]) -> str:
        """The micro batches whose loss is not finite, or the worst one, on every rank."""
        window, names = self.batches.windows.window, self.batches.names
        figures = [
            (self.mesh.rank, loss / (len(blocks) * window), names(blocks))
            for loss, blocks in zip(losses, blocks_read, strict=True)
        ]
        return blame([entry for entries in self.mesh.gather(figures) for entry in entries])

    def _save(self, run: str) -> None:
        if self.keep and self._saved != self.done:
            about = {
                "identity": self._identity(),
                "run": run,
                "threads": self.threads,
                "precision": self.settings.precision,
            }
            with self.deadline.timed("saving"):
                write_checkpoint(self.snapshots, self.done, about, self.model, self.optimizer, self.start, self.mesh)
            self._saved = self.done

    def _stopped(self, run: str, signals: Signals) -> BaseException:
        """Save what is done; what to leave with: SIGTERM with 143, SIGINT as an interrupt."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.done:
            self._save(run)
        sentence = f"stopped by a signal after step {self.done}"
        sentence += ", which is saved; go on with --resume" if self.keep else ""
        self._say(sentence)
        return KeyboardInterrupt() if signals.received == signal.SIGINT else Terminated(sentence)

    def _say(self, sentence: str) -> None:
        if self.mesh.main:
            _logger.info(sentence)

    def _finish(self) -> None:
        if not self.keep:
            return
        last = self.snapshots.path(self.done) if self._saved == self.done else None
        write_final(self.out, self.done, self.model, self.start, self.mesh, same_as=last)


def _seed(*parts: int) -> None:
    """Dropout and stochastic rounding draw from generators that depend on the step, not on what ran before it."""
    torch.manual_seed(int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1))
