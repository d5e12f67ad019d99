"""Which files of a model's directory are the model's: not those of the run that made it, nor what a link fetches from elsewhere.

in   a directory, the name of a file in it
out  whether it goes where the model goes

A directory may be somebody else's, unpacked from an archive: a link in it can lead to any file that its reader may read, and a copy of the
model would then hold that file's content.
"""

from __future__ import annotations

import fnmatch
import os
from pathlib import Path

from ropewalk.checkpoint.model_card import EXPORT
from ropewalk.readers.mend import BEFORE_FIX
from ropewalk.settings.run_file import RUN_FILE

#: What a run or a command notes of itself, with paths of this machine, and what `doctor --fix` has replaced.
_OF_A_RUN = (RUN_FILE, EXPORT, "trainer_state.json", "training_args.json", f"*{BEFORE_FIX}*")


def is_of_a_run(name: str) -> bool:
    """Whether a file tells of what was done in the directory and not of the model."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in _OF_A_RUN)


def outside(path: Path, directory: Path) -> str:
    """Where a file of a directory leads, if that is out of it; empty for a file that lies there, and for one of a hub cache's blobs."""
    place, home = Path(os.path.realpath(path)), Path(os.path.realpath(directory))
    in_hub_cache = place.parent.name == "blobs" and (place.parent.parent / "snapshots").is_dir()
    return "" if place.is_relative_to(home) or in_hub_cache else os.fspath(place)
