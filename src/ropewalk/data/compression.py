"""Packed files (.gz, .xz, .zst) as streams of bytes, and what a damaged one is told the user.

in   a path
out  a binary stream of what is inside; a `UserError` that names the file if it is damaged or cut short
"""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import zstandard

from ropewalk.errors import UserError

SUFFIXES = (".gz", ".xz", ".zst")


def open_bytes(path: Path) -> IO[bytes]:
    """The unpacked bytes of a file; any other suffix is read as it is."""
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if suffix == ".xz":
        return lzma.open(path, "rb")
    if suffix == ".zst":
        return io.BufferedReader(_Zst(path), 1 << 20)
    return open(path, "rb")


@contextlib.contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turn what reading a damaged or forbidden file raises into a sentence that names it."""
    try:
        yield
    except (lzma.LZMAError, EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
        raise UserError(f"{path} cannot be unpacked ({error}); it is damaged or cut short: fetch it again") from None
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); check that it is there, and its permissions"
        ) from None


class _Zst(io.RawIOBase):
    """All frames of a .zst file. zstandard's own reader ends quietly where a file was cut short; this one raises."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "rb")
        self._frame: Any = None
        self._packed = b""
        self._out = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._out and self._refill():
            pass
        size = min(len(buffer), len(self._out))
        buffer[:size], self._out = self._out[:size], self._out[size:]
        return size

    def _refill(self) -> bool:
        """Unpack one more chunk; False at the end of the file."""
        self._packed = self._packed or self._file.read(1 << 20)
        if not self._packed:
            if self._frame is not None:
                raise EOFError("the last frame has no end")
            return False
        if self._frame is None:
            self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._out = self._frame.decompress(self._packed)
        self._packed = b""
        if self._frame.eof:
            self._packed, self._frame = self._frame.unused_data, None
        return True

    def close(self) -> None:
        self._file.close()
        super().close()
