"""When a run saves a checkpoint, and whether the disk has room for it.

in   a run's settings, what it trains, where it writes
out  `checkpoints/`, by checkpoints.py; sentences where there is no room
"""

from __future__ import annotations

import contextlib
import logging
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ropewalk.distributed import ranks
from ropewalk.distributed.mesh import Mesh
from ropewalk.errors import UserError
from ropewalk.sentences import size_in_words
from ropewalk.settings import run_file
from ropewalk.settings.train import TrainSettings
from ropewalk.training import disk
from ropewalk.training.checkpoints import write_checkpoint
from ropewalk.training.deadline import Deadline
from ropewalk.training.retry import shortage_told, unwritten
from ropewalk.training.setup import StartingModel
from ropewalk.training.snapshots import CHECKPOINTS, Snapshots
from ropewalk.training.step import TrainingStep

_logger = logging.getLogger(__name__)


class Saving:
    """The checkpoints of a run while it lasts.

    step: takes its steps, and knows the last that was saved. deadline: times what saving takes. The others: as in `Loop`.
    """

    def __init__(
        self,
        settings: TrainSettings,
        start: StartingModel,
        step: TrainingStep,
        mesh: Mesh,
        out: Path,
        deadline: Deadline,
        *,
        keep: bool,
    ) -> None:
        self._settings, self._start, self._step, self._mesh = settings, start, step, mesh
        self._out, self._deadline, self._keep = out, deadline, keep
        self.snapshots = Snapshots(out / CHECKPOINTS, keep=settings.keep_checkpoints)
        if keep:  # weights, and as much again for what the state leaves out
            deadline.will_save(2 * disk.state_bytes(step.parameters, settings.optimizer))

    def ask_disk(self, done: int) -> None:
        """Before the first step, which comes after step `done`.

        Raises:
            UserError: on every process, as `disk.ask` on the main one.
        """
        ranks.together(lambda: self._ask_disk(done) if self._mesh.main and self._keep else None)

    def _ask_disk(self, done: int) -> None:
        there = len(self.snapshots.steps()) if self._settings.resume else 0
        planned = self._still(done, there)
        disk.ask(self._out, self._settings, self._start.source, planned, done=done, there=there)

    def _still(self, done: int, there: int) -> disk.Writes:
        return disk.still(self._settings, self._start.source, self._step.parameters, done=done, there=there)

    def is_due(self, done: int, *, seen: bool = False) -> bool:
        """Whether a checkpoint comes by time; on all processes, by the main one's clock and disk. After the last step the model itself does.

        seen: it was looked at and found well, so that a later stop may go back to it.
        """
        if not (self._keep and self._settings.saves_by_time and done < self._settings.steps):
            return False
        return ranks.same(self._mesh.main and (seen or self._deadline.is_checkpoint_due()) and self._has_room(done))

    def _has_room(self, done: int) -> bool:
        """Whether the disk has room for a checkpoint beside all that is still to come; none is asked for before the run, so it may not."""
        if disk.free(self._out) >= self._still(done, len(self.snapshots.steps())).with_one_more.total:
            return True
        saved, keep = self._step.saved, self._settings.keep_checkpoints
        _logger.info(
            f"no checkpoint after step {done}: the disk of {self._settings.out} has no room for one beside what the run writes to its end; a kill "
            f"loses the steps since {f'step {saved}' if saved else 'the first'}; make room"
            + ", or give a smaller --keep-checkpoints"
            * (keep > 1)
        )
        return False

    @contextlib.contextmanager
    def full_told(self) -> Iterator[None]:
        """A disk that fills while the run lasts ends it with what of it is whole, what it has yet to write, and the line that goes on."""
        try:
            yield
        except UserError as error:
            if self._keep and disk.is_full(error):
                error.args = (f"{error}; {self._goes_on()}",)
            raise

    def _goes_on(self) -> str:
        saved, there = self._step.saved or 0, len(self.snapshots.steps())
        rest = size_in_words(self._still(saved, there).total)
        whole = (
            f"the checkpoint of step {saved} is whole, {self.snapshots.path(saved)}"
            if saved
            else "no checkpoint was saved before"
        )
        file = self._out / run_file.RUN_FILE  # of a run that is to replace another, beside that one's
        way = f"ropewalk train --config {shlex.quote(str(file))}" if file.exists() else "the same command with"
        return f"{whole}; what is written from there on takes {rest}; when there is room, {'go on' if saved else 'begin again'}: {way} --resume"

    def write(self, model: Any, done: int, about: dict[str, Any]) -> None:
        """The checkpoint of step `done`, by all processes. about: the run, for whoever goes on from it."""
        with (
            self._deadline.timed("saving"),
            shortage_told(lambda asked: unwritten(f"the checkpoint of step {done}", asked, self._step.saved)),
        ):
            write_checkpoint(self.snapshots, done, about, model, self._step.optimizer, self._start, self._mesh)
        self._step.saved = done
        if self._mesh.main and self.snapshots.beside:
            _logger.info(
                f"the checkpoint of step {self.snapshots.beside} is kept beside the newest {self._settings.keep_checkpoints} (--keep-checkpoints): it is the last up to the "
                f"look that found the model well, to which --watch-stop goes back"
            )
