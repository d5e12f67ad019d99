"""Compressed files (.gz, .xz, .bz2, .zst) as streams of bytes, and the error for a damaged one.

in   a path; or a file that is open, in an archive say, and its suffix
out  a binary stream of the decompressed bytes; a `UserError` that names the file if it is damaged, cut short, no file, or a bomb

A few bytes can decompress to more than any machine holds. Text shrinks to a third or a tenth, a hundredth where it repeats itself; a
file that grows by more than `_RATIO` is refused once it has grown past `_HARMLESS`, unless $ROPEWALK_DECOMPRESSED_BYTES allows more.
"""

from __future__ import annotations

import bz2
import contextlib
import functools
import gzip
import io
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from ropewalk.errors import UserError, reason, refuse_irregular

SUFFIXES = (".gz", ".xz", ".bz2", ".zst")
LIMIT = "ROPEWALK_DECOMPRESSED_BYTES"
_RATIO, _HARMLESS = 200, 1 << 26
#: What a damaged file in an archive raises.
_ARCHIVES = (zipfile.BadZipFile, tarfile.TarError)
#: Compressed bytes that are decompressed at once; of a zstd bomb they make 128 MiB, which are then handed on and not copied.
_SLICE = 1 << 12


def open_bytes(path: Path) -> io.BufferedIOBase:
    """The decompressed bytes of a file; one with any other suffix is read as it is.

    Raises:
        UserError: it is a pipe or a device.
    """
    refuse_irregular(path, "data is read from files")
    return decompressed(open(path, "rb"), path.suffix, Most.of(path))


def decompressed(file: io.BufferedIOBase, suffix: str, most: Most) -> io.BufferedIOBase:
    """The bytes of an open file whose name ends in that suffix, at most so many."""
    opened = _OPENERS.get(suffix.lower())
    return file if opened is None else io.BufferedReader(_Bounded(file, opened(file), most), 1 << 20)


@contextlib.contextmanager
def damage_named(path: str | Path) -> Iterator[None]:
    """Turn the exceptions of reading a damaged or forbidden file into an error that names it."""
    try:
        yield
    except (lzma.LZMAError, EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError, *_ARCHIVES) as error:
        raise UserError(
            f"{path} cannot be decompressed ({error}); it is damaged or cut short: fetch it again"
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({reason(error)}); check that it exists, and its permissions") from None


@dataclass(frozen=True)
class Most:
    """How many bytes a file may hold, decompressed.

    Attributes:
        name: what the file is called.
        size: its bytes as they are.
    """

    name: str
    size: int

    @classmethod
    def of(cls, path: Path) -> Most:
        """Of a file on disk."""
        return cls(str(path), path.stat().st_size)

    @functools.cached_property
    def most(self) -> int:
        """These bytes."""
        return _limit() or max(_HARMLESS, _RATIO * self.size)

    def check(self, decompressed: int) -> None:
        """Raises UserError for more than that."""
        if decompressed > self.most:
            raise UserError(
                f"{self.name} decompresses to more than {self.most} bytes from {self.size}, which is no text; if it is, set {LIMIT} to the "
                "bytes that it has"
            )


class _Bounded(io.RawIOBase):
    """What a file decompresses to, as far as that is no bomb."""

    def __init__(self, file: io.BufferedIOBase, decompressed: Any, most: Most) -> None:
        self._file, self._decompressed, self._read, self._most = file, decompressed, 0, most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = self._decompressed.readinto(buffer)
        self._read += size
        self._most.check(self._read)
        return size

    def close(self) -> None:
        self._decompressed.close()
        self._file.close()
        super().close()


def _limit() -> int | None:
    """The bytes that the environment allows; None where it says nothing."""
    limit = os.environ.get(LIMIT)
    if limit and not limit.isdecimal():
        raise UserError(f"{LIMIT} is a number of bytes, got {limit!r}; unset it, or write digits alone")
    return int(limit) if limit else None


class _Zst(io.RawIOBase):
    """All frames of a .zst file. zstandard's own reader ends without an error where a file was cut short; this one raises."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self._file = file
        self._frame: Any = None
        self._compressed = b""
        self._decompressed = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._decompressed and self._refill():
            pass
        size = min(len(buffer), len(self._decompressed))
        buffer[:size], self._decompressed = self._decompressed[:size], self._decompressed[size:]
        return size

    def _refill(self) -> bool:
        """Decompress one more chunk; False at the end of the file."""
        self._compressed = self._compressed or self._file.read(_SLICE)
        if not self._compressed:
            if self._frame is not None:
                raise EOFError("the last frame has no end")
            return False
        if self._frame is None:
            self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._decompressed = memoryview(self._frame.decompress(self._compressed))
        self._compressed = b""
        if self._frame.eof:
            self._compressed, self._frame = self._frame.unused_data, None
        return True


_OPENERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys((".gz", ".tgz"), lambda file: gzip.GzipFile(fileobj=file, mode="rb")),
    **dict.fromkeys((".xz", ".txz"), lzma.LZMAFile),
    **dict.fromkeys((".bz2", ".tbz2"), bz2.BZ2File),
    ".zst": _Zst,
}
