"""Where a run stands when it is taken up: at a checkpoint that is its own, at its end, or at its beginning.

in   a run's settings and directory, what decides its weights
out  a `Standing`; or a sentence, where another run lies there
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.steps import asked_of, model_step, taken
from ropewalk.distributed import ranks
from ropewalk.distributed.mesh import Mesh
from ropewalk.errors import UserError
from ropewalk.sentences import counted
from ropewalk.settings.train import CHANGEABLE, TrainSettings
from ropewalk.training.header import digests_of
from ropewalk.training.snapshots import Snapshot, Snapshots, refuse_other_run

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Standing:
    """Where a run stands, on all processes.

    Attributes:
        snapshot: the checkpoint it goes on from; None where it begins, or is finished.
        reached: steps of the model in its directory.
        changes: what it does otherwise than the checkpoint's run, in words.
        is_finished: whether no step is left to take.
    """

    snapshot: Snapshot | None = None
    reached: int = 0
    changes: Sequence[str] = ()
    is_finished: bool = False


def standing_of(
    settings: TrainSettings, out: Path, snapshots: Snapshots, identity: Callable[[], dict[str, Any]], mesh: Mesh
) -> Standing:
    """Where a run that is resumed stands. identity: gives what decides its weights, by name.

    Raises:
        UserError: on every process, where another run lies in `out`, or a finished model without a checkpoint.
    """

    def refuse(snapshot: Snapshot) -> list[str]:
        allow = CHANGEABLE if settings.allow_changes else ()
        return ranks.together(lambda: refuse_other_run(snapshot, identity(), allow=allow))

    snapshot = None
    if mesh.main:
        snapshots.sweep()
        snapshot = snapshots.latest()
    snapshot, reached = ranks.same((snapshot, model_step(out)))
    if reached >= settings.steps:  # another run is refused all the same
        refuse(snapshot or ranks.same(Snapshot(out, reached, _on_record(settings, out))))
        return Standing(reached=reached, is_finished=True)
    if snapshot is not None:
        return Standing(snapshot, reached, refuse(snapshot))
    if ranks.same((out / "config.json").is_file()):
        raise UserError(
            f"{settings.out} holds a finished model and no checkpoint that a run can go on from, and to begin anew would replace it; put the "
            "checkpoints back, choose another --out, or add --overwrite and leave --resume out"
        )
    if mesh.main and (steps := taken(out)):  # by a run that was killed before its first checkpoint
        _logger.info(
            f"no checkpoint in {settings.out}: the run starts at step 1, and the {counted(steps, 'step')} on record are lost"
        )
    return Standing(reached=reached)


def _on_record(settings: TrainSettings, out: Path) -> dict[str, Any]:
    """What a checkpoint would say of a finished run that has none, by the header of its records."""
    asked = asked_of(out)
    identity = {name: asked[name] for name in settings.identity().keys() - settings.parameters if name in asked}
    if "model_fingerprint" in asked:
        identity["model"] = asked["model_fingerprint"]
    if asked.get("digests") != digests_of(settings):
        identity["data"] = "other files"
    return {"identity": identity}
