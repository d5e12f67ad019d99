"""Archives of files, and files as they are opened, on disk or in one.

in   a path
out  `OpenFile`s: the file itself, or each file in a .zip or a .tar (packed or not); nothing is written to disk
"""

from __future__ import annotations

import contextlib
import io
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ropewalk.data.compression import SUFFIXES, Most, damage_named, open_bytes
from ropewalk.errors import refuse_irregular, told

#: One word for a packed archive → as it is spelled at length.
_SHORT = {".tgz": ".tar", ".txz": ".tar", ".tbz2": ".tar"}
ARCHIVES = (".zip", ".tar")


@dataclass(frozen=True)
class OpenFile:
    """A file that is read.

    Attributes:
        path: on disk; of the archive, if it lies in one.
        member: its name in an archive.
        opened: its bytes, if it lies in an archive; they can be read once.
    """

    path: Path
    member: str = ""
    opened: io.BufferedIOBase | None = None

    def __str__(self) -> str:
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    @property
    def suffix(self) -> str:
        """Its kind, without that of its compression."""
        return suffix_of(self.member or self.path.name)

    @property
    def is_hidden(self) -> bool:
        """Whether its name in an archive, or that of a folder there, says that it is no text of anybody's (`.git/`, `__MACOSX/`)."""
        *folders, name = PurePosixPath(self.member).parts or ("",)
        return name.startswith(".") or any(folder.startswith((".", "__")) for folder in folders)

    @contextlib.contextmanager
    def stream(self) -> Iterator[Any]:
        """Its decompressed bytes.

        Raises:
            UserError: it is damaged, cannot be read, is no file, or a bomb.
        """
        with damage_named(self.path), self.opened or open_bytes(self.path) as stream:
            yield stream

    def read(self) -> bytes:
        """All of it at once."""
        with self.stream() as stream:
            return stream.read()

    def place(self) -> Path | io.BytesIO:
        """What a library that jumps about in a file opens."""
        refuse_irregular(self.path, "data is read from files")
        return io.BytesIO(self.read()) if self.opened or self.path.suffix.lower() in SUFFIXES else self.path


def suffix_of(name: str) -> str:
    """The suffix of a name without that of its compression: `.jsonl` of `books.jsonl.xz`, `.tar` of `books.tgz`."""
    path = Path(name.lower())
    suffix = Path(path.stem).suffix if path.suffix in SUFFIXES else path.suffix
    return _SHORT.get(suffix, _SHORT.get(path.suffix, suffix))


def members(path: Path) -> Iterator[OpenFile]:
    """The files in an archive, in the archive's own order; folders and links left out.

    Raises:
        UserError: it is damaged, locked by a password, or a bomb.
    """
    with told(f"{path} cannot be read as an archive", "fetch it again, or unpack it", Exception):
        for name, opened in _zipped(path) if suffix_of(path.name) == ".zip" else _tarred(path):
            yield OpenFile(path, name, opened)


def _zipped(path: Path) -> Iterator[tuple[str, Any]]:
    refuse_irregular(path, "data is read from files")
    with zipfile.ZipFile(path) as archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir() and not _is_link(entry)]
        Most.of(path).check(sum(entry.file_size for entry in entries))  # zipfile reads no more than that of any
        for entry in entries:
            yield entry.filename, archive.open(entry)


def _is_link(entry: zipfile.ZipInfo) -> bool:
    return stat.S_ISLNK(entry.external_attr >> 16)


def _tarred(path: Path) -> Iterator[tuple[str, Any]]:
    with open_bytes(path) as packed, tarfile.open(fileobj=packed, mode="r|") as archive:
        for entry in archive:
            opened = archive.extractfile(entry) if entry.isfile() else None
            if opened is not None:
                yield entry.name, opened
