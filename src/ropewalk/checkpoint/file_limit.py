"""How large a file this process may write (`ulimit -f`), asked before anything long is done for one.

in   bytes, and what they are of
out  nothing; or a sentence with both figures
"""

from __future__ import annotations

import resource
from pathlib import Path

from ropewalk.errors import UserError

_GIB = 2**30


def size_in_words(size: float) -> str:
    """Bytes in GiB, or in MiB where they are few."""
    return f"{size / _GIB:.1f} GiB" if size >= 0.1 * _GIB else f"{size / 2**20:.1f} MiB"


def refuse_above_limit(what: str, size: float) -> None:
    """Raises UserError if a file of so many bytes is larger than this process may write. what: the file, in words."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit != resource.RLIM_INFINITY and size > limit:
        raise UserError(
            f"{what} takes {size_in_words(size)}, and this process may write no file above {size_in_words(limit)} (ulimit -f); raise that"
        )


def has_reached_limit(file: Path) -> bool:
    """Whether a file is as large as this process may write any: what another program says of it may be that the disk is full."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return limit != resource.RLIM_INFINITY and file.is_file() and file.stat().st_size >= limit
