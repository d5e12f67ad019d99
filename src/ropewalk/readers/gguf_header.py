"""The header of a GGUF file, read with a bound on every count: keys and tensors, no weights.

in   a path
out  its metadata and its tensors' shapes; or the sentence how the file is damaged

The format (ggml's docs/gguf.md): "GGUF", version, number of tensors, number of keys; then the keys, each a name, a type and a
value; then for each tensor a name, its shape, its type and where its data starts. Every count is held against what is left of the
file before anything is read, so that a damaged or a hostile one costs no memory and no time.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ropewalk.errors import UserError, refuse_irregular

#: GGUF's number of a type → how struct reads it.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
#: Deeper nesting of arrays than any writer makes.
_DEPTH = 4
#: Name, shape, type and where the data begins.
_Tensor = tuple[str, tuple[int, ...], int, int]


@dataclass(frozen=True)
class Header:
    """What a GGUF file says of itself.

    Attributes:
        keys: metadata by name. Arrays are lists.
        tensors: shape by name, in the order of the file; the first number is the innermost dimension.
    """

    keys: dict[str, Any]
    tensors: dict[str, tuple[int, ...]]

    @property
    def architecture(self) -> str:
        """llama.cpp's word for the family."""
        return str(self.keys.get("general.architecture", ""))

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key of the architecture, `llama.context_length` for "context_length"."""
        return self.keys.get(f"{self.architecture}.{key}", default)


def read_header(path: Path) -> Header:
    """The header of a GGUF file.

    Raises:
        UserError: no GGUF file, one cut off, or counts that its size cannot hold.
    """
    refuse_irregular(path, "a GGUF file is a file")
    try:
        with open(path, "rb") as stream:
            return _Reader(stream, path.stat().st_size).header()
    except _Damaged as error:
        raise UserError(f"{path} is no whole GGUF file ({error}); fetch or convert it again") from None
    except OSError as error:
        raise UserError(f"{path} could not be read ({error.strerror}); check the path") from None


class _Damaged(Exception):
    """How a file breaks the format."""


class _Reader:
    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.stream, self.size = stream, size

    def header(self) -> Header:
        if self._bytes(4) != b"GGUF":
            raise _Damaged("it does not begin with GGUF")
        version = self._one("I")
        if version not in (2, 3):
            raise _Damaged(f"its version is {version}, not 2 or 3")
        tensors, keys = self._one("Q"), self._one("Q")
        self._refuse(keys, 12, "keys")
        self._refuse(tensors, 24, "tensors")
        metadata = {self._string(): self._value(self._one("I")) for _ in range(keys)}
        listed = [self._tensor() for _ in range(tensors)]
        self._refuse_cut_off(listed, metadata.get("general.alignment", 32))
        return Header(metadata, {name: shape for name, shape, _, _ in listed})

    def _refuse_cut_off(self, listed: list[_Tensor], alignment: Any) -> None:
        """Refuse a file that ends before its tensors do, whose data begins at the next multiple of the alignment."""
        if not isinstance(alignment, int) or alignment < 1:
            raise _Damaged(f"its alignment is {alignment!r}")
        start, sizes = -(-self.stream.tell() // alignment) * alignment, _bytes_of_types()
        for name, shape, kind, offset in listed:
            per_block, length = sizes.get(kind, (math.inf, 1))
            end = start + offset + int(math.prod(shape) // per_block) * length
            if end > self.size:
                raise _Damaged(f"the data of {name} ends at byte {end}, and the file has {self.size}")

    def _left(self) -> int:
        return self.size - self.stream.tell()

    def _refuse(self, count: int, at_least: int, what: str) -> None:
        """Refuse a count of things that take so many bytes each, at least, and have no room in the rest of the file."""
        if count * at_least > self._left():
            raise _Damaged(f"it promises {count} {what}, more than its {self.size} bytes hold")

    def _bytes(self, count: int) -> bytes:
        self._refuse(count, 1, "bytes")
        return self.stream.read(count)

    def _one(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self._bytes(struct.calcsize(f"<{code}")))[0]

    def _string(self) -> str:
        return self._bytes(self._one("Q")).decode("utf-8", errors="replace")

    def _value(self, kind: int, depth: int = 0) -> Any:
        if kind in _SCALARS:
            return self._one(_SCALARS[kind])
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY or depth == _DEPTH:
            raise _Damaged(
                f"a value has type {kind}, which does not exist" if kind != _ARRAY else "arrays lie in arrays"
            )
        of, count = self._one("I"), self._one("Q")
        if of in _SCALARS:
            self._refuse(count, struct.calcsize(f"<{_SCALARS[of]}"), "values")
            code = f"<{count}{_SCALARS[of]}"
            return list(struct.unpack(code, self._bytes(struct.calcsize(code))))
        self._refuse(count, 8, "values")
        return [self._value(of, depth + 1) for _ in range(count)]

    def _tensor(self) -> _Tensor:
        name, dimensions = self._string(), self._one("I")
        self._refuse(dimensions, 8, "dimensions")
        shape = tuple(self._one("Q") for _ in range(dimensions))
        return name, shape, self._one("I"), self._one("Q")


def _bytes_of_types() -> dict[int, tuple[int, int]]:
    """A tensor type's number → values in a block, bytes of a block; empty where the gguf package is not installed."""
    try:
        from gguf.constants import GGML_QUANT_SIZES
    except ImportError:
        return {}
    return {int(kind): sizes for kind, sizes in GGML_QUANT_SIZES.items()}
