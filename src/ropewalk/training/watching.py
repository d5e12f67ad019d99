"""Who looks at a run between its steps, and may end it: `--watch`.

in   a run, after every so many steps
out  whether it is enough; the step of an earlier model that the run is to leave in place of its last
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from ropewalk.attention_ops.transformers import as_usual

if TYPE_CHECKING:
    from ropewalk.training.loop import Loop

_logger = logging.getLogger(__name__)

#: Is shown a run; what it returns is why the run should end here, and it may have it `leave` an earlier model.
Watch = Callable[["Loop"], str | None]


class Watching:
    """What was shown of a run, and what came of it.

    Attributes:
        shown: the last step that was looked at; None before any.
        left: the step of the model that the run leaves; 0 for its last one.
        rise: for which whoever watches ends the run: a window, the least loss there, the last.
    """

    def __init__(self, watch: Watch | None) -> None:
        self._watch = watch
        self.shown: int | None = None
        self.left = 0
        self.rise: tuple[int, float, float] | None = None

    def leave(self, loop: Loop, most: int) -> int:
        """Have the run leave the model of its newest sound checkpoint of step `most` or before, and not its last one; that step, or 0 if there is none."""
        snapshot = loop.snapshots.latest(most) if loop.keep else None
        self.left = 0 if snapshot is None else snapshot.step
        return self.left

    def is_enough(self, loop: Loop, *, ended: bool = False) -> bool:
        """Show the run to whoever watches it, if it is time, as it is where it ended; whether they end it."""
        done, settings = loop.done, loop.settings
        is_time = done % settings.watch_every == 0 or done == settings.steps or ended
        if self._watch is None or not is_time or self.shown == done:
            return False
        in_time = loop.deadline.before_steps() if self.shown is None else contextlib.nullcontext()
        self.shown = done
        loop.step.drop_gradients()
        with (
            in_time,
            loop.deadline.timed("watching"),
            loop.step.activations.aside(),
            as_usual(loop.start.model),
            loop.step.autocast(),
        ):
            reason = self._watch(loop)
        if not reason and settings.watch_stop is not None:
            loop.snapshots.well = done
        if reason and loop.mesh.main:
            _logger.info(f"the run ends after step {done} of {settings.steps}: {reason}")
        return bool(reason)
