"""Whether the records are those that were committed, to the byte: what a figure is held against that no other line of its file repeats.

in   lab/records/SHA256SUMS, by `sha256sum` (lab/README.md has the command), and the files below it
out  those that it does not list; a refusal of those that differ or are gone
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from ropewalk.errors import UserError
from ropewalk.sentences import counted

SUMS = "SHA256SUMS"


def refuse_altered(directory: Path) -> list[Path]:
    """Hold all record files below a directory against its list; none of one that has no list.

    Returns:
        The files that are not in it: rows of one's own.

    Raises:
        UserError: the list has a line that is none; files that are listed hold something else, or are not there.
    """
    path = directory / SUMS
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        if not re.fullmatch(r"[0-9a-f]{64} [ *].+", line):
            raise UserError(
                f"a line of {path} is a digest of 64 hexadecimal digits, two characters and a file's name, but line {number} is {line[:80]!r}; "
                "git checkout restores it, and lab/README.md says how it is written"
            )
    # Of the two characters the second tells text from binary.
    listed = {directory / line[66:]: line[:64] for line in lines}
    altered = [file for file, digest in listed.items() if _digest(file) != digest]
    if altered:
        raise UserError(
            f"the page is drawn from records as they were committed, by {path}, and {counted(len(altered), 'file')} "
            f"{'is' if len(altered) == 1 else 'are'} not: {altered[0]} {'differs' if altered[0].is_file() else 'is not there'}; git checkout restores it, and of a "
            "row that was run again lab/README.md says how the list is written"
        )
    return [file for file in sorted(directory.rglob("*.jsonl")) if file not in listed]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
