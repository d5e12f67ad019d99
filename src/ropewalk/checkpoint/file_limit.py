"""How large a file this process may write (`ulimit -f`), asked before anything long is done for one.

in   bytes, and what they are of
out  nothing; or a sentence with both figures
"""

from __future__ import annotations

import resource
from pathlib import Path

from ropewalk.errors import UserError
from ropewalk.sentences import sizes_apart


def refuse_above_limit(what: str, size: float) -> None:
    """Raises UserError if a file of so many bytes is larger than this process may write. what: the file, in words."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit != resource.RLIM_INFINITY and size > limit:
        takes, may = sizes_apart(size, limit)
        raise UserError(f"{what} takes {takes}, and this process may write no file above {may} (ulimit -f); raise that")


def has_reached_limit(file: Path) -> bool:
    """Whether a file is as large as this process may write any: what another program says of it may be that the disk is full."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return limit != resource.RLIM_INFINITY and file.is_file() and file.stat().st_size >= limit
