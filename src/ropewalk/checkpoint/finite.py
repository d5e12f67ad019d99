"""Which tensors of a safetensors file cannot have been trained: NaN or an infinity in them, or one value throughout. Without torch.

in   a file
out  names of tensors; every value is read once, in pieces, by several threads
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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


#: What may well be zero: an adapter's second factor until it is trained (LoRA, arXiv 2106.09685, section 4.1), and biases, which mixtures of experts stack.
_MAY_BE_ZERO = ("lora_B", "lora_embedding_B", "bias")


@dataclass(frozen=True)
class Damage:
    """Names of tensors: those with NaN or an infinity, and matrices in which all values are the same, of which no training makes one."""

    not_finite: list[str]
    constant: list[str]


def damage(file: Path, header: dict[str, Any] | None = None) -> Damage:
    """Read all values of a file. header: of the file, where it was read before.

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

    def seen(piece: tuple[str, int, int, str]) -> tuple[bool, int | None]:
        """Whether it has NaN or an infinity; the bits of its value where it has one value alone."""
        _, offset, count, dtype = piece
        width, bits = _ALL_SET[dtype]
        values = np.fromfile(file, f"<u{width}", count, offset=offset)
        # Most pieces differ within a few values, and are not compared whole.
        alike = bool((values[:64] == values[0]).all()) and bool((values == values[0]).all())
        only = int(values[0]) if alike else None
        mask = values.dtype.type(bits)
        return bool((np.bitwise_and(values, mask, out=values) == mask).any()), only

    listed = list(pieces())
    of_pieces = by_threads(seen, listed)
    broken = dict.fromkeys(piece[0] for piece, (bad, _) in zip(listed, of_pieces, strict=True) if bad)
    alone: dict[str, set[int | None]] = {}
    for piece, (_, only) in zip(listed, of_pieces, strict=True):
        alone.setdefault(piece[0], set()).add(only)
    matrices = {name for name, entry in tensors(header) if _is_matrix(name, entry["shape"])}
    same = [name for name, values in alone.items() if name in matrices and len(values) == 1 and None not in values]
    return Damage(list(broken), [name for name in same if name not in broken])


def _is_matrix(name: str, shape: list[int]) -> bool:
    """Of weights that are trained: scales of norms and biases may well be all 0 or 1."""
    sizes = [size for size in shape if size > 1]
    return len(sizes) > 1 and not any(word in name for word in _MAY_BE_ZERO)


def _begin_of_data(file: Path) -> int:
    with open(file, "rb") as stream:
        return 8 + int.from_bytes(stream.read(8), "little")
