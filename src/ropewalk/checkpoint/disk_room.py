"""What a disk has room for, asked before anything is written.

in   where something will be written, and its size
out  bytes that are free there; or a sentence with both figures
"""

from __future__ import annotations

import shutil
from pathlib import Path

from ropewalk.errors import UserError
from ropewalk.sentences import sizes_apart

#: Files of a model that are copied.
_SMALL = ("*.json", "*.model", "*.txt", "*.jinja", "*.py")


def free(out: Path) -> int:
    """Bytes that the disk of a directory has room for, which need not be there yet."""
    return shutil.disk_usage(nearest(out)).free


def nearest(out: Path) -> Path:
    """A directory, or what of its path is there already."""
    return next(place for place in (out, *out.absolute().parents) if place.exists())


def refuse_without_room(out: str | Path, size: int) -> None:
    """Raises UserError where a disk has no room for so many bytes at `out`."""
    if size > (room := free(Path(out))):
        takes, has = sizes_apart(size, room)
        raise UserError(f"{out} takes {takes}, and its disk has {has} free; make room, or choose another --out")


def beside_weights(path: Path) -> int:
    """Bytes of what a model has beside its weights: config, tokenizer, templates as they were, and what ropewalk writes of it."""
    return 2**16 + sum(file.stat().st_size for kind in _SMALL for file in path.glob(kind) if file.is_file())
