"""Which tensors of a safetensors file hold NaN or an infinity, without torch.

in   a file
out  names of tensors; every value is read once, in pieces, by several threads
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.checkpoint.digests import by_threads
from ropewalk.checkpoint.headers import check_safetensors, tensors

#: Bytes that one thread reads at a time.
_PIECE = 1 << 24
#: Of each dtype: bytes a value, and the bits that are all set in NaN and infinity and in nothing else. IEEE 754; bfloat16 is the upper half
#: of float32; of the two of 8 bits (OCP's specification), E4M3 has NaN alone.
_ALL_SET = {
    "F64": (8, 0x7FF0_0000_0000_0000),
    "F32": (4, 0x7F80_0000),
    "F16": (2, 0x7C00),
    "BF16": (2, 0x7F80),
    "F8_E5M2": (1, 0x7C),
    "F8_E4M3": (1, 0x7F),
}


def not_finite(file: Path, header: dict[str, Any] | None = None) -> list[str]:
    """Names of the tensors in which a value is NaN or infinite. header: of the file, where it was read before.

    Raises:
        UserError: a truncated or damaged file.
        OSError: it cannot be read.
    """
    header, data = check_safetensors(file) if header is None else header, _begin_of_data(file)

    def pieces() -> Iterator[tuple[str, int, int, str]]:
        for name, entry in tensors(header):
            width, _ = _ALL_SET.get(entry["dtype"], (0, 0))
            begin, end = entry["data_offsets"]
            for start in range(begin, end, _PIECE) if width else ():
                yield name, data + start, (min(end, start + _PIECE) - start) // width, entry["dtype"]

    def is_broken(piece: tuple[str, int, int, str]) -> bool:
        _, offset, count, dtype = piece
        width, bits = _ALL_SET[dtype]
        values = np.fromfile(file, f"<u{width}", count, offset=offset)
        mask = values.dtype.type(bits)
        return bool((np.bitwise_and(values, mask, out=values) == mask).any())

    listed = list(pieces())
    broken = by_threads(is_broken, listed)
    return list(dict.fromkeys(piece[0] for piece, bad in zip(listed, broken, strict=True) if bad))


def _begin_of_data(file: Path) -> int:
    with open(file, "rb") as stream:
        return 8 + int.from_bytes(stream.read(8), "little")
