"""One step of training: the gradient of its windows, then the optimiser.

in   what is trained, on what, where; the step's number
out  weights that have moved by one step; loss, gradient norm, learning rate

A step reads its windows (batch.py), with LongCE first in short contexts (short_context.py), adds up the gradient of their summed loss over micro batches and devices, divides by the number
of scored tokens once, looks at loss and gradient (guard.py), and only then lets the optimiser move. The loss itself is computed in
model/loss.py, `NextTokenLoss.forward`; `_forward_and_backward` calls it. All but weights and optimiser, data and random numbers alike, is a
function of the step's number.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ropewalk.attention_ops.transformers import attends_in_blocks, is_plain_causal
from ropewalk.distributed import ranks
from ropewalk.distributed.mesh import Mesh
from ropewalk.errors import UserError
from ropewalk.model.label_weights import PUBLISHED_MOST, taken_out
from ropewalk.model.loss import NextTokenLoss
from ropewalk.model.verify import verify_positions
from ropewalk.sentences import counted
from ropewalk.settings.budget import gradients_wait
from ropewalk.settings.train import TrainSettings
from ropewalk.training import optimizer as optimizers
from ropewalk.training import throughput
from ropewalk.training.activations import ActivationMemory
from ropewalk.training.batch import Batches
from ropewalk.training.deadline import Deadline
from ropewalk.training.guard import Guard, Signals, blame
from ropewalk.training.regime import is_short, what_fits
from ropewalk.training.retry import too_little, until_it_fits
from ropewalk.training.setup import StartingModel
from ropewalk.training.short_context import ShortContext
from ropewalk.training.throughput import StepResult

_logger = logging.getLogger(__name__)


class Interrupted(Exception):
    """A signal arrived in the middle of a step; what the step has done so far is dropped."""


class TrainingStep:
    """Takes the steps of a run, one after the other.

    model: what is trained, `start.model` or it with adapters. deadline: looked at between micro batches.
    """

    def __init__(
        self,
        settings: TrainSettings,
        start: StartingModel,
        model: Any,
        batches: Batches,
        mesh: Mesh,
        deadline: Deadline,
    ) -> None:
        self._settings, self._start, self._batches, self._mesh, self._deadline = (
            settings,
            start,
            batches,
            mesh,
            deadline,
        )
        #: Whether documents and devices are told apart by attention in blocks, and not by transformers' masks.
        self._attends_in_blocks = mesh.context_size > 1 or attends_in_blocks(start.model)
        if settings.mode == "pose" and self._is_skipping_refused:
            raise UserError(
                f"transformers takes a jump in the positions of packed documents for a border, which mode pose trains across, and attention of "
                f"{start.info.family} models, which caps or drops scores, slides in chunks or is not PyTorch's, goes through transformers; use --mode full or lora, or "
                "leave conversations and --mask-documents out"
            )
        with self.autocast():
            # Where the weights are on the main process alone, it alone looks at what the family does with them.
            self._loss: Any = ranks.together(lambda: NextTokenLoss(model))
        self._short = None if settings.longce is None else ShortContext(settings.longce, settings.longce_step)
        #: Floating-point operations a token, of the model before it is sharded.
        self.flops = throughput.flops_per_token(model, batches.windows.window)
        self.activations = self._activation_memory()
        compute = None if start.compute == torch.float32 else start.compute
        mesh.shard(self._loss, compute, window=batches.windows.window)
        verify_positions(start.model, start.positions)
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.peak_rate = settings.peak_rate(start.info.parameters)
        self.optimizer = optimizers.build(self.parameters, settings, self.peak_rate)
        self._guard = Guard()
        self._number = self._retries = self._tight = 0  # of the step that is being taken, from 1
        #: The step of the last checkpoint, which a run that ends can go on from.
        self.saved: int | None = None

    @property
    def _is_plain_causal(self) -> bool:
        """Whether every layer sees all of a sequence."""
        return is_plain_causal(self._start.model, self._batches.windows.window)

    @property
    def _is_skipping_refused(self) -> bool:
        """Whether mode pose is, of documents that masks of transformers tell apart."""
        return self._batches.in_documents and not self._attends_in_blocks

    def _activation_memory(self) -> ActivationMemory:
        settings, micro, window = self._settings, self._batches.micro, self._batches.windows.window
        tokens = settings.steps * settings.batch * window
        return ActivationMemory(
            self._loss,
            settings.activations,
            self._mesh,
            self._start.compute,
            (micro, window // self._mesh.context_size),
            work=tokens * self.flops / self._mesh.world,
            accumulated=gradients_wait(settings.batch, micro, self._mesh.data_size),
            documents=self._batches.in_documents,
            short=is_short(settings, self._start.source, self._mesh),
            adapters=settings.mode == "lora",
        )

    def take(self, done: int, signals: Signals) -> StepResult:
        """The step after `done` steps. Nothing moves if it raises.

        Raises:
            Interrupted: a signal has arrived.
            OutOfTime: it would not be done before the deadline.
            UserError: it takes more memory than there is; the loss diverged.
        """
        self._number, self._retries = done + 1, 0
        with ranks.nobody_waits():
            blocks = self._batches.blocks(done)
            counted = self._batches.windows.counted(blocks, mask_documents=self._settings.mask_documents)
            losses, blocks_read, norm = until_it_fits(lambda: self._gradients(counted, signals), self._give_up)
            loss = float(self._mesh.sum(losses.sum())) / counted
        self._guard.check(self._number, loss, norm, lambda: self._blame(losses.tolist(), blocks_read), self.saved)
        rate = optimizers.learning_rate(done, self.peak_rate, self._settings.warmup_steps)
        optimizers.set_rate(self.optimizer, rate)
        self.optimizer.step()
        return StepResult(loss, norm, rate, len(blocks) * self._batches.windows.window, self._retries)

    def _gradients(self, counted: int, signals: Signals) -> tuple[Tensor, list[list[int]], float]:
        """A step's gradients, from the beginning: the summed loss and the windows of each micro batch, and the gradients' norm."""
        done = self._number - 1
        seed(self._settings.seed, done, self._mesh.rank)
        self.drop_gradients()
        losses, blocks_read, begin = [], [], time.perf_counter()
        for micro in self._batches.micro_batches(done, self._mesh):
            if self._mesh.any(signals.received is not None):
                raise Interrupted
            if blocks_read:
                spent, share = time.perf_counter() - begin, len(blocks_read) / self.micro_batches
                self._deadline.check(spent / share - spent, spent)
            losses.append(self._forward_and_backward(micro.rows, counted))
            blocks_read.append(micro.blocks)
        return torch.stack(losses), blocks_read, float(self._mesh.clip(self.parameters, float(self._settings.clip)))

    @property
    def micro_batches(self) -> int:
        """Of a step, on each device."""
        return -(-self._settings.batch // (self._batches.micro * self._mesh.data_size))

    def _forward_and_backward(self, rows: dict[str, Tensor], counted: int) -> Tensor:
        """Gradients of one micro batch's part of the step's loss; its summed loss, in nats."""
        with self.autocast():
            if self._short is not None:
                rows = self._short.add(rows, self._loss, self._mesh, in_blocks=self._attends_in_blocks)
            inputs = self._mesh.split(rows) if self._attends_in_blocks else rows
            summed = self._loss(**taken_out(inputs, self._settings.longce_most or PUBLISHED_MOST))
        (summed / counted).backward()
        return summed.detach()

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Float32 weights multiplied in the compute type."""
        if self._start.compute == torch.float32 or self._mesh.world > 1:  # sharded weights are gathered in it
            return contextlib.nullcontext()
        return torch.autocast(self._mesh.device.type, dtype=self._start.compute)

    def drop_gradients(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def _give_up(self, asked: str) -> None:
        """Do with less memory from here on; called when a step took more than there is.

        Raises:
            UserError: nothing is left to be given up; or there are several devices, of which one alone cannot begin again.
        """
        self.drop_gradients()
        if self._mesh.world > 1 or not (self.activations.lower(self._retries) or self._smaller_micro_batch()):
            raise UserError(self.too_little(self._number, asked))
        if not self._retries:
            self._say(
                f"step {self._number} took more memory than there is ({asked}); it is begun again with less kept for the backward pass"
            )
        self._retries += 1

    def _smaller_micro_batch(self) -> bool:
        """Half as many windows at a time, where no number was asked for."""
        fewer = self._batches.micro // 2
        if fewer and self._settings.micro_batch is None:
            self._batches = dataclasses.replace(self._batches, micro=fewer)
            self._say(f"micro batches have {counted(fewer, 'window')} from now on")
            return True
        return False

    def lower_in_time(self) -> None:
        """Several devices cannot begin a step again; all keep less as soon as one of them had no memory to spare in it."""
        tight = throughput.tight_allocations(self._mesh.device)
        if self._mesh.world > 1 and any(ranks.everyones(tight > self._tight)) and self.activations.lower():
            self._say(f"step {self._number} took nearly all memory; layers keep less for the backward pass from now on")
        self._tight = tight

    def too_little(self, number: int, asked: str) -> str:
        """What ends a run in whose step of this number more memory was asked for than there is, and the options that would fit."""
        settings, several = self._settings, self._mesh.world > 1
        tried = what_fits(settings, self._start.source, self._mesh)
        if self._is_skipping_refused:
            tried = [way for way in tried if "--mode pose" not in way]
        # One device that chooses keeps as little by now.
        full = settings.activations == "none" or (several and settings.activations == "auto")
        ways = ["--activations full"] * (full and (several or not tried)) + tried
        if not tried:
            ways += [f"--micro-batch {self._batches.micro // 2}"] * (self._batches.micro > 1)
            # Training refuses a window below the model's own.
            longer = settings.window > self._start.source.positions.window
            ways += [f"a smaller {settings.option_in_memory}"] * (longer or settings.raise_sliding_window)
            on_gpu = self._mesh.device.type == "cuda"
            ways.append(f"more devices{' (--cp shares a window)' * self._is_plain_causal}" if on_gpu else "more memory")
        return too_little(
            number, asked, ways, everything=settings.activations == "none", together=full, saved=self.saved
        )

    def _blame(self, losses: list[float], blocks_read: list[list[int]]) -> str:
        """The micro batches whose loss is not finite, or the worst one, on every rank."""
        window, names = self._batches.windows.window, self._batches.names
        figures = [
            (self._mesh.rank, loss / (len(blocks) * window), names(blocks))
            for loss, blocks in zip(losses, blocks_read, strict=True)
        ]
        return blame([entry for entries in ranks.everyones(figures) for entry in entries])

    def _say(self, sentence: str) -> None:
        if self._mesh.main:
            _logger.info(sentence)


def seed(*parts: int) -> None:
    """Dropout and stochastic rounding draw from generators that depend on the step, not on what ran before it."""
    torch.manual_seed(int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1))
