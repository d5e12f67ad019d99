"""What lies in a model's directory and below, and which links lead out of it.

in   a directory, maybe somebody else's, unpacked from an archive
out  its files; where each link out of it leads

A link can lead to any file that the directory's reader may read, and one to a directory to all that lies there: nobody looks below such a
one, and no copy of the model holds what a link fetches from elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def outside(path: Path, directory: Path) -> str:
    """Where a path in a directory leads, if that is out of it; empty for what lies there, and for one of a hub cache's blobs."""
    place, home = Path(os.path.realpath(path)), Path(os.path.realpath(directory))
    in_hub_cache = place.parent.name == "blobs" and (place.parent.parent / "snapshots").is_dir()
    return "" if place.is_relative_to(home) or in_hub_cache else os.fspath(place)


def files_below(directory: Path) -> list[Path]:
    """Every file of a directory and below it, sorted, links to files too; links to directories are not followed."""
    return sorted(path for path in _entries(directory) if path.is_file())


def links_out(directory: Path) -> dict[str, str]:
    """Where each link in a directory and below it leads that leaves the directory, by its path below it."""
    links = sorted(path for path in _entries(directory) if path.is_symlink())
    return {path.relative_to(directory).as_posix(): place for path in links if (place := outside(path, directory))}


def _entries(directory: Path) -> Iterator[Path]:
    for place, directories, files in os.walk(directory):
        yield from (Path(place, name) for name in (*directories, *files))
