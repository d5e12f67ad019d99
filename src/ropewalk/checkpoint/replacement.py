"""A run that was begun to replace another, in `.OUT.new` beside it (run_directory.py): whoever looks at the one sees both.

in   `--out`
out  where a resumed run lies; sentences that say what each of the two holds, and which is gone on with
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from ropewalk.checkpoint import marks
from ropewalk.checkpoint.processes import refuse_locked
from ropewalk.checkpoint.steps import Unfinished, at_stake, model_step
from ropewalk.errors import UserError
from ropewalk.sentences import counted


def place_beside(place: Path) -> Path:
    """Where a run is written that is to replace what lies in a place."""
    return place.with_name(f".{place.name}.new")


def begun(out: str | Path) -> Path | None:
    """A replacement of `out` that was begun and has not taken its place; None if there is none."""
    place = Path(os.path.realpath(out))
    return beside if place.name and marks.marked(beside := place_beside(place)) is not None else None


def goes_on_in(out: str | Path) -> Path:
    """Where a run that is resumed into `out` lies: a replacement of it that was begun comes first."""
    return begun(out) or Path(os.path.realpath(out))


def both(out: str | Path) -> str:
    """What `out` and the replacement beside it hold, and the commands that take the one or the other; empty if none was begun."""
    if (beside := begun(out)) is None:
        return ""
    try:
        refuse_locked(beside)  # what is being written is neither gone on with nor deleted
    except UserError as error:
        return f"{_is_to_replace(beside, out)}: {error}"
    return f"{_is_to_replace(beside, out)}; train --resume goes on with that one, train --overwrite --yes begins it anew, and {_back(beside, out)}"


def taken_up(beside: Path, out: str | Path) -> str:
    """What is said where a run goes on with the replacement."""
    return f"{_is_to_replace(beside, out)}; this goes on with that one; {_back(beside, out)}"


def _is_to_replace(beside: Path, out: str | Path) -> str:
    return f"{beside} holds a run that is to replace {out}{_came(beside)}"


def _back(beside: Path, out: str | Path) -> str:
    held = f"returns to what {out} holds{_came(Path(out))}" if os.path.lexists(out) else "deletes it"
    return f"`rm -r {shlex.quote(str(beside))}` {held}"


def _came(run: Path) -> str:
    """How far a training run came; empty of what is none, or of whose steps nothing is known."""
    if (found := Unfinished.of(run)) is not None:
        return f" ({found})"
    return f" (finished, {counted(step, 'step')})" if (step := model_step(run)) else ""


def at_stake_with(out: Path, *, begins: bool) -> str:
    """What `at_stake` says of all that --overwrite deletes. begins: it begins a replacement anew, as train does, which deletes one that was begun."""
    runs = [out, begun(out) if begins else None]
    return ", and ".join(lost for run in runs if run is not None and (lost := at_stake(run)))


def refuse_unfinished(run: Path) -> None:
    """Raises UserError if a directory that is to be read as a model holds a run that has not written its model yet."""
    if (found := Unfinished.of(run)) is None:
        return
    here = f"{run} holds an unfinished run, {found}, and no model yet"
    last = f"name its last checkpoint, {found.last}" if found.last else ""
    if sentence := both(run):
        raise UserError("; ".join(filter(None, (here, last, sentence))))
    raise UserError(f"{here}; {last}{', or ' * bool(last)}go on with `ropewalk train … --resume`")
