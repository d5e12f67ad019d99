"""Files as they are opened, on disk or in an archive, and the folders that they lie in.

in   a path
out  `OpenFile`s: the file itself, or each file in a .zip or a .tar (packed or not); nothing is written to disk
     `Directory` and `Contents`: the folders of a directory, and those of an archive, told alike
"""

from __future__ import annotations

import collections
import contextlib
import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from ropewalk.data.compression import SUFFIXES, Most, damage_named, decompressed, open_bytes
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
        size: how many these are.
    """

    path: Path
    member: str = ""
    opened: io.BufferedIOBase | None = None
    size: int = 0

    def __str__(self) -> str:
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    @property
    def suffix(self) -> str:
        """Its kind, without that of its compression."""
        return suffix_of(self.member or self.path.name)

    @property
    def inside(self) -> PurePosixPath:
        """Where it lies in an archive."""
        return PurePosixPath(self.member.lstrip("/"))

    @property
    def most(self) -> Most:
        """How many bytes it may hold, decompressed."""
        return Most.of(self.path) if self.opened is None else Most(str(self), self.size)

    @contextlib.contextmanager
    def stream(self) -> Iterator[Any]:
        """Its decompressed bytes.

        Raises:
            UserError: it is damaged, cannot be read, is no file, or a bomb.
        """
        with damage_named(str(self)), self._decompressed() as stream:
            yield stream

    def _decompressed(self) -> io.BufferedIOBase:
        if self.opened is None:
            return open_bytes(self.path)
        return decompressed(self.opened, PurePosixPath(self.member).suffix, self.most)

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
    return (file for file in _entries(path) if file.opened)


def _entries(path: Path) -> Iterator[OpenFile]:
    """Also links, which are not opened."""
    with told(f"{path} cannot be read as an archive", "fetch it again, or unpack it", Exception):
        yield from _zipped(path) if suffix_of(path.name) == ".zip" else _tarred(path)


def _zipped(path: Path) -> Iterator[OpenFile]:
    refuse_irregular(path, "data is read from files")
    with zipfile.ZipFile(path) as archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        Most.of(path).check(sum(entry.file_size for entry in entries))  # zipfile reads no more than that of any
        for entry in entries:
            opened: Any = None if stat.S_ISLNK(entry.external_attr >> 16) else archive.open(entry)
            yield OpenFile(path, entry.filename, opened, entry.file_size)


def _tarred(path: Path) -> Iterator[OpenFile]:
    with open_bytes(path) as packed:
        # A file on disk is skipped through; what is decompressed comes in one stream.
        with tarfile.open(fileobj=packed, mode="r:" if packed.seekable() else "r|") as archive:
            for entry in archive:
                opened: Any = archive.extractfile(entry) if entry.isfile() else None
                if opened or entry.islnk() or entry.issym():
                    yield OpenFile(path, entry.name, opened, entry.size)


class Directory:
    """A directory's folders.

    Attributes:
        top: the folder of all others, as they are named here.
        first: what is done before one of its files is named on a command line.
        links: as `Contents` has it; on disk links are listed, and may be read.
    """

    first = ""
    links = 0

    def __init__(self, path: Path) -> None:
        self.path = self.top = path
        self._listed: dict[PurePath, tuple[list[str], list[str]]] = {}

    def named(self, folder: PurePath) -> str:
        """What messages call one of its folders, or files."""
        return str(folder)

    def listed(self, folder: PurePath) -> tuple[Sequence[str], Sequence[str]]:
        """Names of the folders and of the files in a folder; none where it may not be read."""
        if folder not in self._listed:
            self._listed[folder] = next(os.walk(folder), ("", [], []))[1:]
        return self._listed[folder]

    def is_link(self, folder: PurePath) -> bool:
        """Whether it is the name of another."""
        return os.path.islink(folder)

    def text(self, file: PurePath) -> str:
        """A file's. Raises OSError, ValueError."""
        return Path(file).read_text(encoding="utf-8")

    def opened(self, files: Iterable[PurePath]) -> Iterator[OpenFile]:
        """These of its files."""
        return (OpenFile(Path(file)) for file in files)


class Contents:
    """An archive's folders, as `Directory` tells of those on disk.

    Attributes:
        links: how many there are in it; none of them is read.

    Raises:
        UserError: what `members` raises.
    """

    first = "unpack it and "
    top = PurePosixPath()

    def __init__(self, path: Path) -> None:
        self.path, self.links = path, 0
        self._folders: dict[PurePath, dict[str, None]] = collections.defaultdict(dict)
        self._files: dict[PurePath, list[str]] = collections.defaultdict(list)
        for file in _entries(path):
            self.links += file.opened is None
            self._files[file.inside.parent] += [file.inside.name] * (file.opened is not None)
            for folder in file.inside.parents[:-1]:
                self._folders[folder.parent].setdefault(folder.name)

    def named(self, folder: PurePath) -> str:
        """What messages call one of its folders, or files."""
        return str(self.path) if folder == self.top else f"{self.path}:{folder}"

    def listed(self, folder: PurePath) -> tuple[Sequence[str], Sequence[str]]:
        """Names of the folders and of the files in a folder."""
        return list(self._folders.get(folder, ())), self._files.get(folder, [])

    def is_link(self, folder: PurePath) -> bool:
        """Never: links are counted apart."""
        return False

    def text(self, file: PurePath) -> str:
        """A file's. Raises UserError, ValueError."""
        return next(each for each in members(self.path) if each.inside == file).read().decode()

    def opened(self, files: Iterable[PurePath]) -> Iterator[OpenFile]:
        """These of its files, in the archive's own order."""
        chosen = {*files}
        return (file for file in members(self.path) if file.inside in chosen)


Tree = Directory | Contents
