"""Whether a model is measured on texts that it was trained on, by what its directory says of the run.

in   the name of a model or of a checkpoint of a run; the sources that are measured
out  those that it was trained on, of which a warning is logged too
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ropewalk.data.documents import copies_among, files_of, kind_of
from ropewalk.errors import UserError
from ropewalk.records.recipe import place
from ropewalk.settings import run_file
from ropewalk.settings.mixture import sources_of

_logger = logging.getLogger(__name__)


#: Runs, and their texts, that this process has warned of: a suite measures a model several times, and each checkpoint of a run by itself.
_warned: set[tuple[str, ...]] = set()


def warn_of_seen_texts(model: str, measured: Iterable[Any]) -> list[str]:
    """The texts among these that a model was trained on, under the same names or others; a sentence is logged of them, once a process."""
    run = place(model)
    trained = _trained_on(Path(run))
    names = [str(source) for source in measured if isinstance(source, str | Path)]  # a Document is no file of theirs
    of_hub = {str(source) for source in trained if kind_of(source) == "hub"}
    files = [file for source in trained if kind_of(source) != "hub" for file in files_of(source)]
    seen = [
        name for name in names if name in of_hub or (kind_of(name) != "hub" and copies_among(files_of(name), files))
    ]
    if seen and (run, *seen) not in _warned:
        _warned.add((run, *seen))
        _logger.warning(
            "%s was trained on texts of %s: what is measured there is what it learnt by heart, not how well it reads; name texts that it has not seen",
            model,
            ", ".join(seen),
        )
    return seen


def _trained_on(directory: Path) -> list[Any]:
    """The sources of a run that are still there; nothing where no run.yaml of a training lies in the directory."""
    try:
        command, options = run_file.read(directory / run_file.RUN_FILE)
        sources = sources_of(options.get("data")) if command == "train" else []
        return [
            source
            for source in sources
            if Path(source).exists() or (not Path(source).is_absolute() and kind_of(source))
        ]
    except UserError:
        return []
