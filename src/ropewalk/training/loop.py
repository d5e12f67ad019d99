"""The training loop: the steps of one run, from wherever it stands to its end.

in   settings
out  `out/`: the trained model, `checkpoints/`, `records.jsonl`

A step reads its windows (batch.py), adds up the gradient of their summed loss over micro batches and devices, divides by the number
of scored tokens once, looks at loss and gradient (guard.py), and only then lets the optimiser move. Resumed from a checkpoint, the
next step computes what it would have computed: weights and optimiser come back bit for bit (store.py), and everything else, data and
random numbers alike, is a function of the step's number.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import shutil
import signal
import statistics
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ropewalk import records
from ropewalk.attention_ops.transformers import is_plain_causal
from ropewalk.checkpoint.files import refuse_existing
from ropewalk.data.documents import Document
from ropewalk.data.packing import PackedBlocks
from ropewalk.data.token_corpus import tokenise
from ropewalk.distributed.mesh import Mesh
from ropewalk.errors import UserError, shortage
from ropewalk.model.devices import device_name
from ropewalk.model.load import load_tokenizer, model_info
from ropewalk.model.loss import NextTokenLoss
from ropewalk.model.verify import verify_rope
from ropewalk.records import ModelInfo, Step
from ropewalk.settings.train import TrainSettings
from ropewalk.training import lora, threads, throughput, training_state
from ropewalk.training import optimizer as optimizers
from ropewalk.training.activations import Keeping
from ropewalk.training.batch import Batches, default_micro
from ropewalk.training.checkpoints import Snapshot, Snapshots, refuse_other_run
from ropewalk.training.devices import devices_for, first_here, together
from ropewalk.training.guard import Guard, Signals, Terminated, blame
from ropewalk.training.log import Log
from ropewalk.training.save import write_checkpoint, write_final
from ropewalk.training.setup import Start, start, trained_config

_logger = logging.getLogger(__name__)


class _Stop(Exception):
    """A signal arrived in the middle of a step; what the step has done so far is dropped."""


def run(settings: TrainSettings) -> ModelInfo:
    """Train, and return the state of the trained model in `settings.out`.

    Raises:
        UserError: settings, model, data or disk are not as they must be, or the loss diverged; one sentence.
        Terminated: SIGTERM; what was done is saved.
    """
    out = Path(settings.out)
    if not settings.resume:
        refuse_existing(out, overwrite=settings.overwrite)
    devices = devices_for(settings)
    # The data before the model: what is wrong with it shows in seconds, and a large model takes minutes to load.
    batches = _batches(settings, devices)
    begun = start(settings, devices)
    if settings.overwrite and devices.main:
        shutil.rmtree(out, ignore_errors=True)
    loop = Loop(settings, begun, batches, devices)
    return loop.run()


def _batches(settings: TrainSettings, devices: Mesh) -> Batches:
    window = settings.window
    found = trained_config(settings)
    if settings.mode == "pose":
        window = min(settings.chunk_window or found.rope.window, window)
    devices.check_window(window)
    tokenizer = load_tokenizer(settings.model, trust_remote_code=settings.trust_remote_code)
    with first_here(devices):
        tokens = tokenise(
            settings.data,
            tokenizer,
            field=settings.field,
            limit=settings.steps * settings.batch_size * window + 1,
            seed=settings.seed,
        )
    windows = PackedBlocks(tokens, window, allow_short=settings.allow_short)
    micro = settings.micro_batch or default_micro(window, settings.batch_size // devices.data_size, devices.device)
    return Batches(windows, settings, micro)


class Loop:
    """One run: what it trains, and how far it has come.

    settings, begun, batches, devices: what is trained, from what, on what, where.
    """

    def __init__(self, settings: TrainSettings, begun: Start, batches: Batches, devices: Mesh) -> None:
        self.settings, self.begun, self.batches, self.devices = settings, begun, batches, devices
        self.out = Path(settings.out)
        self.model: Any = begun.model
        if settings.mode == "lora":
            _seed(settings.seed)  # adapters begin at random: the same in every run and on every device
            self.model = lora.add(begun.model, rank=settings.lora_rank, alpha=settings.lora_alpha)
        self._apart = devices.world > 1 or is_plain_causal(begun.model)
        with self._arithmetic():
            # Where the weights are on the main process alone, it alone looks at what the family does with them.
            self.root: Any = together(devices, lambda: NextTokenLoss(self.model))
        shape = (batches.micro, batches.windows.window // devices.context_size)
        self._flops = throughput.flops_per_token(self.model, batches.windows.window)
        tokens = settings.steps * settings.batch_size * batches.windows.window
        self.keeping = Keeping(
            self.root,
            settings.activations,
            devices,
            begun.compute,
            shape,
            work=tokens * self._flops / devices.world,
            optimizer=settings.optimizer,
            accumulated=settings.batch_size > batches.micro * devices.data_size,
        )
        devices.shard(self.root, None if begun.compute == torch.float32 else begun.compute)
        verify_rope(begun.model)
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.peak = settings.peak_rate(begun.state.parameters)
        self.optimizer = optimizers.build(self.parameters, settings, self.peak)
        self.snapshots = Snapshots(self.out / "checkpoints", keep=settings.keep_checkpoints)
        self.guard = Guard()
        self.done = 0
        self.threads = torch.get_num_threads()
        self._saved: int | None = None
        self._durations: deque[float] = deque(maxlen=20)
        self._rate = throughput.matrix_rate(devices.device, begun.compute)

    def run(self) -> ModelInfo:
        """All remaining steps, then the final model."""
        found = self._resume()
        before = None if found is None else found.about.get("threads")
        self.threads = threads.settle(self.settings.threads, before, self.devices.device)
        header = self._header(found)
        log = Log(self.settings, header, self.done)
        if found is not None:
            self._say(f"resumed from {found.path}, step {found.step}")
        try:
            with Signals() as signals:
                self._steps(log, header.id, signals)
                self._finish()
        finally:
            log.close()
        return model_info(self.out)

    def _resume(self) -> Snapshot | None:
        if not self.settings.resume:
            return None
        found = None
        if self.devices.main:
            self.snapshots.sweep()
            found = self.snapshots.latest()
        found = self.devices.same(found)
        if found is not None:
            refuse_other_run(found, self._identity())
            training_state.load(self.model, self.optimizer, found.state, self.devices)
            self.done = self._saved = found.step
        return found

    def _identity(self) -> dict[str, Any]:
        return {
            **self.settings.identity(),
            "model": self.begun.fingerprint,
            "data": self.batches.windows.tokens.digest,
        }

    def _header(self, found: Snapshot | None) -> records.Run:
        settings = dataclasses.asdict(dataclasses.replace(self.settings, data=_named(self.settings.data)))
        header = records.new_run(
            self.begun.state,
            device=device_name(self.devices.device),
            dtype=f"{_short(self.parameters[0].dtype)} weights, {_short(self.begun.compute)} arithmetic",
            seed=self.settings.seed,
            settings={
                **{key: str(value) if isinstance(value, Path) else value for key, value in settings.items()},
                "learning_rate": self.peak,
                "micro_batch": self.batches.micro,
                "world_size": self.devices.world,
                "cpu_threads": torch.get_num_threads(),
                "windows": len(self.batches.windows),
            },
        )
        # A resumed run goes on under the same id, so that its steps are one curve.
        return header if found is None else dataclasses.replace(header, id=found.about["run"])

    def _steps(self, log: Log, run: str, signals: Signals) -> None:
        every = self.settings.save_every
        while self.done < self.settings.steps:
            begin = time.perf_counter()
            try:
                figures = self._step(signals)
            except _Stop:
                raise self._stopped(run, signals) from None
            except torch.OutOfMemoryError as error:
                raise UserError(
                    f"step {self.done + 1} takes more memory than there is ({shortage(error)}); --activations full, a smaller --micro-batch, --optimizer "
                    "adamw-8bit or more GPUs (--cp shares a window) take less, and --resume goes on from the last checkpoint"
                ) from error
            self.done += 1
            if self.devices.main:
                log.step(self._row(*figures, time.perf_counter() - begin))
            if every and self.done % every == 0:
                self._save(run)

    def _step(self, signals: Signals) -> tuple[float, float, float, int]:
        """One optimiser step: loss in nats a token, gradient norm, learning rate, tokens. Nothing moves if it raises."""
        step, settings = self.done, self.settings
        _seed(settings.seed, step, self.devices.rank)
        blocks = self.batches.blocks(step)
        counted = self.batches.windows.counted(blocks, mask_documents=settings.mask_documents)
        self.optimizer.zero_grad(set_to_none=True)
        losses, read = [], []
        for micro in self.batches(step, self.devices):
            if self.devices.any(signals.received is not None):
                raise _Stop
            losses.append(self.keeping(lambda rows=micro.rows: self._passes(rows, counted), self.optimizer))
            read.append(micro.blocks)
        each = torch.stack(losses)
        loss = float(self.devices.sum(each.sum())) / counted
        norm = float(self.devices.clip(self.parameters, settings.clip))
        self.guard.check(step + 1, loss, norm, lambda: self._blame(each.tolist(), read))
        rate = optimizers.learning_rate(step, self.peak, settings.warmup)
        optimizers.set_rate(self.optimizer, rate)
        self.optimizer.step()
        return loss, norm, rate, len(blocks) * self.batches.windows.window

    def _passes(self, rows: dict[str, torch.Tensor], counted: int) -> torch.Tensor:
        """Forward and backward of one micro batch; its summed loss."""
        with self._arithmetic():
            summed = self.root(**(self.devices.split(rows) if self._apart else rows))
        (summed / counted).backward()
        return summed.detach()

    def _arithmetic(self) -> contextlib.AbstractContextManager[Any]:
        if self.begun.compute == torch.float32 or self.devices.world > 1:  # sharded weights are gathered in it
            return contextlib.nullcontext()
        return torch.autocast(self.devices.device.type, dtype=self.begun.compute)

    def _blame(self, losses: list[float], read: list[list[int]]) -> str:
        """The micro batches whose loss is not finite, or the worst one, on every rank."""
        window = self.batches.windows.window
        own = [
            (self.devices.rank, loss / (len(blocks) * window), self.batches.names(blocks))
            for loss, blocks in zip(losses, read, strict=True)
        ]
        everyone = [entry for entries in self.devices.gather(own) for entry in entries]
        bad = [entry for entry in everyone if not np.isfinite(entry[1])]
        return blame(bad or [max(everyone, key=lambda entry: entry[1])])

    def _row(self, loss: float, norm: float, rate: float, tokens: int, seconds: float) -> Step:
        self._durations.append(seconds)
        speed_now = tokens / seconds
        mfu = None if self._rate is None else speed_now * self._flops / (self._rate * self.devices.world)
        return Step(
            step=self.done,
            loss=loss,
            learning_rate=rate,
            grad_norm=norm,
            tokens=tokens,
            tokens_per_second=speed_now,
            seconds=seconds,
            mfu=mfu,
            peak_bytes=throughput.peak_bytes(self.devices.device),
            seconds_left=(self.settings.steps - self.done) * statistics.fmean(self._durations),
        )

    def _save(self, run: str) -> None:
        if self._saved != self.done:
            about = {"identity": self._identity(), "run": run, "threads": self.threads}
            write_checkpoint(self.snapshots, self.done, about, self.model, self.optimizer, self.begun, self.devices)
            self._saved = self.done

    def _stopped(self, run: str, signals: Signals) -> BaseException:
        """Save what is done; what to leave with: SIGTERM with 143, SIGINT as an interrupt."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.done:
            self._save(run)
        sentence = f"stopped by a signal after step {self.done}, which is saved; go on with --resume"
        self._say(sentence)
        return KeyboardInterrupt() if signals.received == signal.SIGINT else Terminated(sentence)

    def _say(self, sentence: str) -> None:
        if self.devices.main:
            _logger.info(sentence)

    def _finish(self) -> None:
        last = self.snapshots.path(self.done) if self._saved == self.done else None
        write_final(self.out, self.done, self.model, self.begun, self.devices, same_as=last)


def _seed(*parts: int) -> None:
    """Dropout and stochastic rounding draw from generators that depend on the step, not on what ran before it."""
    torch.manual_seed(int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1))


def _named(data: Any) -> list[str]:
    """What was trained on, as the records name it."""
    listed = [data] if isinstance(data, str | Path) else list(data)
    return [source.name if isinstance(source, Document) else str(source) for source in listed][:1000]


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
