"""`ropewalk ablate`: the rows of a grid, each trained and measured in one go, in one process; of each a file of records stays.

in   a model, documents, axes
out  `out/ROW.jsonl`, whole or absent; below `out/.work`, what is being made

Any number of processes share a directory: a row is held by the lock of its directory below `.work` (checkpoint/processes.py), which is free again when its
process ends, however it ends. The model that is measured is loaded once a process; each row puts its rotation and its weights into it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ropewalk.checkpoint import guard
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.files import disk_errors, refuse_unwritable
from ropewalk.checkpoint.processes import locked, one_at_a_time
from ropewalk.data.documents import refuse_missing
from ropewalk.distributed import ranks
from ropewalk.distributed.mesh import Mesh
from ropewalk.errors import UserError
from ropewalk.evals.factor_search import search
from ropewalk.evals.loaded import LoadedModel, fingerprint, open_model
from ropewalk.model.devices import device_for
from ropewalk.model.load import refuse_unknown_code
from ropewalk.model.save import as_on_disk
from ropewalk.model.verify import pin_rope
from ropewalk.settings import run_file
from ropewalk.settings.ablate import AblateSettings
from ropewalk.settings.command import takes
from ropewalk.settings.mixture import sources_of
from ropewalk.settings.train import TrainSettings
from ropewalk.suite.grid import Grid, Row
from ropewalk.suite.measurements import measurements
from ropewalk.suite.row_files import asked_of, is_whole, write_row
from ropewalk.suite.stages import Outcome, Stage, attempt
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


@takes(AblateSettings)
def ablate(settings: AblateSettings) -> list[Outcome]:
    """Run the rows of a grid that no other process has run or is running.

    Returns:
        What became of each row: nothing if it is whole, else why it is not. Of a dry run, about how many seconds each would take.

    Raises:
        UserError: a model that cannot be read or has no rotation, a method that does not exist, an `out` that holds other rows.
    """
    if ranks.size() > 1:
        raise UserError(
            "the processes of an ablation share its directory, each with a GPU of its own; start them without torchrun"
        )
    for texts in (
        settings.test,
        sources_of(settings.data),
        settings.validation,
        settings.also,
        settings.scores,
        settings.benchmarks,
    ):
        refuse_missing(texts)
    checkpoint = Checkpoint.open(settings.model, **settings.opening)
    refuse_unknown_code(checkpoint)
    grid = Grid(settings, checkpoint)
    out = Path(settings.out)
    for row in grid.rows:  # before anything is loaded
        is_whole(grid, row, out)
    if settings.dry_run:
        return [
            Outcome(row.name, grid.model_name, "" if is_whole(grid, row, out) else "to do", grid.seconds(row))
            for row in grid.rows
        ]
    refuse_unwritable(out)
    _take_directory(out)
    run_file.write(settings, out)
    bench = Bench(grid)
    outcomes: dict[Row, Outcome] = {}
    # Again, as long as there is something to do: what another process held may be free by now.
    while any([_take(grid, row, bench, outcomes) for row in grid.rows]):
        pass
    return [outcomes[row] for row in grid.rows]


def _take_directory(out: Path) -> None:
    """Mark where rows go as ropewalk's, so that nobody's texts lie among them and they are read as nobody's texts.

    Rows that were copied or cloned without the mark make a directory theirs too.

    Raises:
        UserError: it holds something else.
    """
    guard.refuse_unreadable(out.absolute())
    if not guard.is_free(out) and guard.marked(out) is None and not any(map(asked_of, out.glob("*.jsonl"))):
        raise UserError(f"rows lie in a directory of their own, and {out} holds other files; choose another --out")
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(out):
            guard.mark(out, ["*.jsonl", f"{WORK}/*", run_file.RUN_FILE])


def _take(grid: Grid, row: Row, bench: Bench, outcomes: dict[Row, Outcome]) -> bool:
    """Run a row if it is neither whole nor another process's, nor failed here; whether it was run."""
    out, at = Path(grid.settings.out), f"[{grid.rows.index(row) + 1}/{len(grid.rows)}] {grid.model_name}/{row.name}"
    tried = row in outcomes and outcomes[row].reason not in ("", _BUSY)
    if is_whole(grid, row, out) or tried:
        if not tried:
            outcomes[row] = Outcome(row.name, grid.model_name)
        return False
    if not bench.has_time_for(row):
        outcomes[row] = Outcome(row.name, grid.model_name, "no time was left for it")
        return False
    with _claimed(out / WORK / row.name) as work:
        if work is None:
            outcomes[row] = Outcome(row.name, grid.model_name, _BUSY)
            return False
        if not is_whole(grid, row, out):
            _logger.info(at)
            outcomes[row] = attempt(Stage(row.name, grid.model_name, {}, functools.partial(bench.run, row, work)))
            _logger.info(f"{at}: {outcomes[row].reason or f'{outcomes[row].seconds:.0f} s'}")
        shutil.rmtree(work, ignore_errors=True)
    return True


_BUSY = "another process runs it"


@contextlib.contextmanager
def _claimed(work: Path) -> Iterator[Path | None]:
    """An empty directory that this process alone has; None if another one has it."""
    with contextlib.ExitStack() as stack:
        try:
            with disk_errors(work):
                work.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(work))
        except (UserError, FileNotFoundError):  # gone just now, with its row
            yield None
            return
        for left in work.glob("*.jsonl"):  # of a process that was killed
            left.unlink()
        yield work


@dataclass
class Bench:
    """What the rows of a process share: the model that is measured, the texts, compiled layers."""

    grid: Grid
    _began: float = field(default_factory=time.perf_counter)
    _shapes: set[tuple[int, int]] = field(default_factory=set)
    _pace: float = 1.0

    @property
    def settings(self) -> AblateSettings:
        return self.grid.settings

    @functools.cached_property
    def loaded(self) -> LoadedModel:
        return open_model(self.grid.source, dtype=self.settings.dtype, device=self.settings.device)

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
        """Train a row if it is to be, measure it, and put its records in their place."""
        records, began = work / "records.jsonl", time.perf_counter()
        recipe = self.grid.recipe(row, work, lambda: self._searched(row))
        checkpoint = trained_checkpoint(recipe)
        weights, steps = self._trained(recipe, checkpoint, work) if row.tokens else (self.base, 0)
        trained = time.perf_counter()
        loaded = self._becomes(checkpoint, weights, steps)
        del weights
        left_out = {}
        for name, measure in measurements(self.grid, row, loaded, records):
            try:
                measure()
            except UserError as error:  # a window too small for the prompts, say
                left_out[name] = str(error)
                _logger.warning(f"{row.name}: {name} is left out: {error}")
        seconds = {"training": trained - began, "measuring": time.perf_counter() - trained}
        self._pace = sum(seconds.values()) / self.grid.seconds(row)
        write_row(self.grid, row, records, {"seconds": seconds, "left_out": left_out})

    def _searched(self, row: Row) -> Path:
        """LongRoPE's factors for this row's window; searched by the first process that needs them, while others wait."""
        data = self.settings.validation or self.settings.data
        if data is None:
            raise UserError(
                "LongRoPE's factors are searched on documents that nothing is measured on; give --validation or --data, or leave longrope out"
            )
        found = Path(self.settings.out) / WORK / f"longrope-x{row.factor:g}.json"
        with _waiting(found.with_suffix("")):
            search(
                model=self.grid.source,
                data=data,
                window=self.grid.new_window(row),
                out=found,
                documents=_SEARCHED,
                population=_POPULATION,
                generations=self.settings.generations,
                dtype=self.settings.dtype,
                device=self.settings.device,
            )
        return found

    def _trained(
        self, recipe: TrainSettings, checkpoint: Checkpoint, work: Path
    ) -> tuple[dict[str, torch.Tensor], int]:
        """The weights of a row after its training, as a saved model has them, and its steps."""
        mesh = Mesh(device_for(recipe.device))
        with _waiting(work.parent / "tokens"):  # one process tokenises, the others read what it kept
            batches = batches_of(recipe, checkpoint, mesh)
        recipe = settled(recipe, checkpoint, mesh, work)
        self._room_for_compiled(batches)
        loop = Loop(recipe, starting_model(recipe, checkpoint=checkpoint), batches, mesh, work, keep=False)
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

    def _becomes(self, checkpoint: Checkpoint, weights: dict[str, torch.Tensor], steps: int) -> LoadedModel:
        """The measured model with a row's rotation and weights."""
        _ = self.base  # taken before anything is put in its place
        model = self.loaded.model
        with torch.no_grad():
            for name, value in model.named_parameters():
                value.copy_(weights[name])
        pin_rope(model, checkpoint.rope)
        info = dataclasses.replace(checkpoint.info, steps=steps, fingerprint="")
        loaded = dataclasses.replace(self.loaded, info=info)
        whole = fingerprint(loaded) if steps else checkpoint.fingerprint
        return dataclasses.replace(loaded, info=dataclasses.replace(info, fingerprint=whole))


@contextlib.contextmanager
def _waiting(place: Path) -> Iterator[None]:
    """One process at a time; the others wait."""
    while True:
        with _claimed(place) as held:
            if held is not None:
                yield
                return
        time.sleep(1)
