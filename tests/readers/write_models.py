"""Write a tiny model of each family and its extension once and in two steps, for another environment to read."""

from __future__ import annotations

import sys
from pathlib import Path

from ropewalk import testing
from ropewalk.model.extend import extend

WINDOW, LONGER = 64, 192


def main(out: Path) -> None:
    for family in testing.FAMILIES:
        original = testing.tiny_directory(out / family / "original", family, WINDOW)
        extend(original, window=LONGER, out=out / family / "linear")
        extend(original, window=128, out=out / family / "once")
        extend(out / family / "once", window=LONGER, out=out / family / "twice")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
