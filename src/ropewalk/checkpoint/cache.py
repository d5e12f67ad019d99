"""Where what can be made again is kept.

in   $ROPEWALK_CACHE, or the user's cache directory
out  a path, which need not exist yet
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_directory() -> Path:
    """Where what can be made again is kept, tokenised corpora and hashes of weights: $ROPEWALK_CACHE, or the user's cache directory (on Linux $XDG_CACHE_HOME or ~/.cache)."""
    from_environment = os.environ.get("ROPEWALK_CACHE")
    return Path(from_environment) if from_environment else platformdirs.user_cache_path("ropewalk", appauthor=False)
