"""The files of a directory that could not be read, in one sentence: each by name where they are few, else one of each kind and how many are like it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

#: Files that are all named, and kinds of reasons of which one is.
_FEW, _KINDS = 3, 5
_NUMBER = re.compile(r"0x[0-9a-f]+|\d+")


class LeftOut:
    """Files and why each is not read."""

    def __init__(self) -> None:
        self._by_kind: dict[str, list[str]] = {}

    @property
    def count(self) -> int:
        """How many files."""
        return sum(map(len, self._by_kind.values()))

    def add(self, names: Sequence[str], reason: str) -> None:
        """One more. names: by which its reason, a sentence, may call it. Reasons that differ by the file and by numbers alone are of one kind."""
        kind = reason
        for name in names:
            kind = kind.replace(name, "")
        self._by_kind.setdefault(_NUMBER.sub("", kind), []).append(reason)

    def said_of(self, place: Path) -> str:
        """How many were left out of a directory, which, and why."""
        kinds = sorted(self._by_kind.values(), key=len, reverse=True)
        if self.count <= _FEW:
            said = [reason for kind in kinds for reason in kind]
        else:
            said = [kind[0] + f" (and so {len(kind) - 1} more)" * (len(kind) > 1) for kind in kinds[:_KINDS]]
            said += [f"{sum(map(len, kinds[_KINDS:]))} for other reasons"] * (len(kinds) > _KINDS)
        return f"{self.count} file{' was' if self.count == 1 else 's were'} left out of {place}: {'; '.join(said)}"
