"""Compressed files (.gz, .xz, .zst) as streams of bytes, and the error for a damaged one.

in   a path
out  a binary stream of the decompressed bytes; a `UserError` that names the file if it is damaged or cut short
"""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zstandard

from ropewalk.errors import UserError

SUFFIXES = (".gz", ".xz", ".zst")


def open_bytes(path: Path) -> io.BufferedIOBase:
    """The decompressed bytes of a file; one with any other suffix is read as it is."""
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return gzip.GzipFile(path, "rb")
    if suffix == ".xz":
        return lzma.LZMAFile(path, "rb")
    if suffix == ".zst":
        return io.BufferedReader(_Zst(path), 1 << 20)
    return open(path, "rb")


@contextlib.contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turn the exceptions of reading a damaged or forbidden file into an error that names it."""
    try:
        yield
    except (lzma.LZMAError, EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
        raise UserError(
            f"{path} cannot be decompressed ({error}); it is damaged or cut short: fetch it again"
        ) from None
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); check that it exists, and its permissions"
        ) from None


class _Zst(io.RawIOBase):
    """All frames of a .zst file. zstandard's own reader ends without an error where a file was cut short; this one raises."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "rb")
        self._frame: Any = None
        self._compressed = b""
        self._decompressed = b""

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
        self._compressed = self._compressed or self._file.read(1 << 20)
        if not self._compressed:
            if self._frame is not None:
                raise EOFError("the last frame has no end")
            return False
        if self._frame is None:
            self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._decompressed = self._frame.decompress(self._compressed)
        self._compressed = b""
        if self._frame.eof:
            self._compressed, self._frame = self._frame.unused_data, None
        return True

    def close(self) -> None:
        self._file.close()
        super().close()
