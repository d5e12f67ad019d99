"""One row of a grid: its rotation, its training, its measurements; what a process keeps from one row to the next.

in   a grid, one of its rows, a directory that this process (or torchrun) holds
out  the row's file of records, in its place; after a failure what was done of it, for the next time (kept.py)
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import logging
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.distributed import ranks, state
from ropewalk.distributed.mesh import Mesh
from ropewalk.errors import UserError
from ropewalk.evals.factor_search import search
from ropewalk.evals.loaded import LoadedModel, fingerprint, open_model
from ropewalk.model.save import as_on_disk
from ropewalk.model.verify import pin_rope
from ropewalk.settings.ablate import AblateSettings
from ropewalk.settings.train import TrainSettings
from ropewalk.suite.claims import waiting
from ropewalk.suite.grid import Grid
from ropewalk.suite.kept import RECORDS, STATE, Kept
from ropewalk.suite.measurements import measurements
from ropewalk.suite.row import Row
from ropewalk.suite.row_files import write_row
from ropewalk.training.batch import Batches, batches_of
from ropewalk.training.checkpoints import plain_weights
from ropewalk.training.loop import Loop
from ropewalk.training.regime import settled
from ropewalk.training.setup import starting_model, trained_checkpoint

_logger = logging.getLogger(__name__)
WORK = ".work"
#: Shapes of training whose compiled layers are kept; PyTorch keeps eight in all, and each may need two.
_COMPILED = 3
#: Of a search for factors, beside its generations: vectors and documents.
_POPULATION, _SEARCHED = 16, 2


def say(sentence: str, level: int = logging.INFO) -> None:
    if ranks.rank() == 0:
        _logger.log(level, sentence)


@dataclass
class Bench:
    """What the rows of a process share: the model that is measured, the texts, compiled layers."""

    grid: Grid
    mesh: Mesh
    _said: set[tuple[str, str]] = field(default_factory=set)
    _began: float = field(default_factory=time.perf_counter)
    _shapes: set[tuple[int, int]] = field(default_factory=set)
    _pace: float = field(default_factory=lambda: 1 / ranks.size())

    @property
    def settings(self) -> AblateSettings:
        return self.grid.settings

    @functools.cached_property
    def loaded(self) -> LoadedModel:
        return open_model(self.grid.source, dtype=self.settings.dtype, device=self.settings.device, shard="auto")

    @functools.cached_property
    def base(self) -> dict[str, torch.Tensor]:
        """The base's weights; of tied ones, which a state dict lists twice, the first name, as the files have it."""
        return {name: weight.detach().clone() for name, weight in self.loaded.model.named_parameters()}

    def has_time_for(self, row: Row) -> bool:
        """Whether a row would be done in time, by the estimate and by how far the last one was off it."""
        left = (
            math.inf
            if self.settings.minutes is None
            else 60 * self.settings.minutes - (time.perf_counter() - self._began)
        )
        return self._pace * self.grid.seconds(row) <= left

    def run(self, row: Row, work: Path) -> None:
        """Train a row if it is to be, measure it, and put its records in their place; what fails on one rank fails on all.

        What was done of it before is not done again (kept.py).
        """
        kept = ranks.first(lambda: Kept.of(work, self.grid.identity(row)))
        try:
            self._make_and_measure(row, work, kept)
        except BaseException:  # a package that is not there, Ctrl-C
            if (work / STATE).exists():
                say(
                    f"{row.name}: what is done of it stays in {work}, and the same command goes on from there",
                    logging.WARNING,
                )
            raise

    def _make_and_measure(self, row: Row, work: Path, kept: Kept) -> None:
        trained_row = ranks.together(lambda: self._made(row, work, kept))
        records, began = work / RECORDS, time.perf_counter()
        _ = ranks.together(lambda: self.base)  # taken before anything is put in its place
        becomes = functools.partial(self._becomes, *trained_row)
        del trained_row
        loaded = ranks.together(becomes)
        del becomes
        left_out, done = {}, list(kept.done)
        for name, measure in ranks.together(lambda: list(measurements(self.grid, row, loaded, records))):
            if name in done:
                continue
            try:
                ranks.together(measure)
            except ranks.Alone:
                raise
            except UserError as error:  # a window too small for the prompts, say
                left_out[name] = str(error)
                if (name, str(error)) not in self._said:  # once a command
                    self._said.add((name, str(error)))
                    say(f"{row.name}: {name} is left out, which is said once: {error}", logging.WARNING)
            else:
                ranks.first(functools.partial(kept.measured, name))
        seconds = {"training": kept.seconds, "measuring": time.perf_counter() - began}
        self._pace = sum(seconds.values()) / self.grid.seconds(row)
        facts = {"seconds": seconds, "left_out": left_out}
        facts |= {"processes": self.mesh.world} if self.mesh.world > 1 else {}
        ranks.first(lambda: write_row(self.grid, row, records, facts))

    def _made(self, row: Row, work: Path, kept: Kept) -> tuple[Checkpoint, dict[str, torch.Tensor] | None, int]:
        """What a row is: its rotation; its weights on the main process, None where they are the base's; its steps."""
        began = time.perf_counter()
        recipe = self.grid.recipe(row, work, lambda: self._searched(row))
        checkpoint = trained_checkpoint(recipe)
        if not row.tokens:
            kept.seconds = time.perf_counter() - began
            return checkpoint, None, 0
        if kept.steps:
            say(f"{row.name} goes on from what was trained of it before")
            return checkpoint, kept.weights(), kept.steps
        weights, steps = self._trained(recipe, checkpoint, work)
        gc.collect()  # sharded layers hold each other
        kept.trained(weights, steps, time.perf_counter() - began)
        return checkpoint, weights, steps

    def _searched(self, row: Row) -> Path:
        """LongRoPE's factors for this row's window; searched by the first process that needs them, while others wait."""
        data = self.settings.validation or self.settings.data
        if data is None:
            raise UserError(
                "LongRoPE's factors are searched on documents that nothing is measured on; give --validation or --data, or leave longrope out"
            )
        factors = Path(self.settings.out) / WORK / f"longrope-x{row.factor:g}.json"
        with waiting(factors.with_suffix("")):
            search(
                model=self.grid.source,
                data=data,
                window=self.grid.new_window(row),
                out=factors,
                documents=_SEARCHED,
                population=_POPULATION,
                generations=self.settings.generations,
                dtype=self.settings.dtype,
                device=self.settings.device,
            )
        return factors

    def _trained(
        self, recipe: TrainSettings, checkpoint: Checkpoint, work: Path
    ) -> tuple[dict[str, torch.Tensor], int]:
        """The weights of a row after its training, on the main process, as a saved model has them; and its steps."""
        mesh = self.mesh
        if recipe.batch % mesh.data_size:
            raise UserError(
                f"every process reads as many windows a step, and {recipe.batch} windows of {recipe.window} tokens are not divided among "
                f"{mesh.world}; change --step-tokens, or the number of processes"
            )
        with waiting(work.parent / "tokens"):  # one process tokenises, the others read what it kept
            batches = ranks.together(lambda: batches_of(recipe, checkpoint, mesh))
        recipe = settled(recipe, checkpoint, mesh, work)
        self._room_for_compiled(batches)
        loop = Loop(recipe, starting_model(recipe, mesh, checkpoint=checkpoint), batches, mesh, work, keep=False)
        steps = loop.run().steps
        with torch.no_grad():
            return as_on_disk(loop.start.model, plain_weights(loop.model, loop.start, mesh), self.grid.source), steps

    def _room_for_compiled(self, batches: Batches) -> None:
        """Drop what was compiled before PyTorch, of too many shapes, would compile none any more."""
        shape = batches.micro, batches.windows.window
        if shape not in self._shapes and len(self._shapes) == _COMPILED:
            torch.compiler.reset()
            self._shapes.clear()
        self._shapes.add(shape)

    def _becomes(self, checkpoint: Checkpoint, weights: dict[str, torch.Tensor] | None, steps: int) -> LoadedModel:
        """The measured model with a row's rotation and weights."""
        model = self.loaded.model
        with torch.no_grad():
            for name, value in model.named_parameters():
                if weights is None:
                    value.copy_(self.base[name])
                else:
                    state.copy_from_main(value, weights[name] if self.mesh.main else None)
        pin_rope(model, checkpoint.rope)
        info = dataclasses.replace(checkpoint.info, steps=steps or checkpoint.info.steps, fingerprint="")
        loaded = dataclasses.replace(self.loaded, info=info)
        whole = fingerprint(loaded) if steps else ranks.first(lambda: checkpoint.fingerprint)
        return dataclasses.replace(loaded, info=dataclasses.replace(info, fingerprint=whole))
