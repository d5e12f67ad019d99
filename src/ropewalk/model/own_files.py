"""Which files of a model's directory are the model's: not those of the run that made it.

in   the name of a file in it
out  whether it goes where the model goes; what a link fetches from elsewhere does not either (checkpoint/links.py)
"""

from __future__ import annotations

import fnmatch

from ropewalk.checkpoint.digests import BEFORE_FIX
from ropewalk.checkpoint.model_card import EXPORT
from ropewalk.settings.run_file import RUN_FILE

#: What a run or a command notes of itself, with paths of this machine, and what `doctor --fix` has replaced.
_OF_A_RUN = (RUN_FILE, EXPORT, "trainer_state.json", "training_args.json", f"*{BEFORE_FIX}*")


def is_of_a_run(name: str) -> bool:
    """Whether a file tells of what was done in the directory and not of the model."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in _OF_A_RUN)
