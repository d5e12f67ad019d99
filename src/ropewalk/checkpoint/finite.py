"""Which tensors of a safetensors file cannot have been trained, and what tells each matrix from its siblings in other layers. Without torch.

in   a file
out  names of tensors with NaN or an infinity, or with one value throughout, norms that make everything 0; values absurdly far from the rest of their tensor; of each matrix
     its scale, a signature, its rows of zeros; every value is read once, in pieces, by several threads
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.checkpoint.digests import by_threads
from ropewalk.checkpoint.headers import begin_of_data, check_safetensors, tensors
from ropewalk.checkpoint.outliers import Outlier, bits_of_one, is_large, outlier, shift
from ropewalk.checkpoint.tensor_problems import is_by_token

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
#: The exponent's bits are those, but for E4M3.
_EXPONENT = {dtype: bits for dtype, (_, bits) in _ALL_SET.items()} | {"F8_E4M3": 0x78}


#: What may well be zero: an adapter's second factor until it is trained (LoRA, arXiv 2106.09685, section 4.1), and biases, which mixtures of experts stack.
_MAY_BE_ZERO = ("lora_B", "lora_embedding_B", "bias")
#: The weights of norms, as transformers, GPT-2 and InternLM name them; biases may be zero.
_NORM = re.compile(r"(^|\.)(\w*norm\w*|ln_\w+)\.weight$")
#: The norm of a linear attention's output multiplies by its weight in every family (Qwen3-Next).
_GATED_NORM = ".linear_attn.norm.weight"
#: A scale is taken from every so many-th value: no divisor of any width, so that the values come from all columns.
_SAMPLED = 17


@dataclass(frozen=True)
class Matrix:
    """What tells a matrix from others of its shape.

    Attributes:
        scale: mean of the binary exponents of values that are not zero: a factor of 2 is 1, and a few huge values hardly count.
        signature: the same of two matrices whose bits are the same; of two others with a chance of 2^-64.
        zero_rows: of an embedding or a head, the ids whose rows are all zeros.
    """

    scale: float
    signature: tuple[int, bytes]
    zero_rows: tuple[int, ...] = ()


@dataclass(frozen=True)
class Damage:
    """Names of tensors: those with NaN or an infinity; matrices in which all values are the same, and norms that make everything 0, of which no
    training makes one.

    outliers: the largest of each other tensor that has values absurdly far from its rest.
    matrices: every other matrix, by its name, where what tells them apart was asked for.
    """

    not_finite: list[str]
    constant: list[str]
    outliers: list[Outlier]
    matrices: dict[str, Matrix]


@dataclass(frozen=True)
class _Piece:
    """Consecutive values of one tensor, whole rows where it has a row a token. offset: bytes in the file. row: its first."""

    name: str
    dtype: str
    offset: int
    count: int
    width: int
    row: int


@dataclass(frozen=True)
class _Marks:
    """What tells a piece from others: exponents as their sum over a count."""

    exponents: tuple[int, int]
    words: int
    sample: bytes
    zero_rows: tuple[int, ...]


@dataclass(frozen=True)
class _Read:
    """What is kept of a piece: the bits of its largest magnitude, and of its value where it has one alone; its marks, where they are asked for."""

    piece: _Piece
    largest: int
    only: int | None
    marks: _Marks | None

    @property
    def broken(self) -> bool:
        """Whether it has NaN or an infinity: magnitudes are in the order of their bits, these at the end."""
        return self.largest >= _ALL_SET[self.piece.dtype][1]


def damage(
    file: Path, header: dict[str, Any] | None = None, *, compare: bool = True, norms_from: int | None = None
) -> Damage:
    """Read all values of a file. header: of the file, where it was read before. compare: its matrices too, which takes as long again.

    norms_from: 0 where norms multiply by their weight, 1 where by 1 + it; None where that is not known, and norms are not looked at.

    Raises:
        UserError: a truncated or damaged file.
        OSError: it cannot be read.
    """
    header = check_safetensors(file) if header is None else header
    pieces = list(_pieces(header, begin_of_data(file)))
    read: dict[str, list[_Read]] = {}
    for result in by_threads(lambda piece: _read(file, piece, compare), pieces):
        read.setdefault(result.piece.name, []).append(result)
    broken = [name for name, results in read.items() if any(result.broken for result in results)]
    sound = {
        name: read[name]
        for name, entry in tensors(header)
        if name in read and name not in broken and _is_matrix(name, entry["shape"])
    }
    constant = [name for name, results in sound.items() if _is_constant(results)]
    if norms_from is not None:
        shapes = {name: entry["shape"] for name, entry in tensors(header) if name in read}
        norms = [name for name, shape in shapes.items() if _NORM.search(name) and sum(size > 1 for size in shape) == 1]
        constant += [name for name in norms if _makes_nothing(name, read[name], norms_from)]
    outliers = [
        found
        for name, entry in tensors(header)
        if name in read and name not in broken and (found := _outlier(file, read[name], entry["shape"]))
    ]
    compared = sound if compare else {}
    matrices = {name: _matrix(results) for name, results in compared.items() if name not in constant}
    return Damage(broken, constant, outliers, matrices)


def _pieces(header: dict[str, Any], begin_of_data: int) -> Iterator[_Piece]:
    for name, entry in tensors(header):
        size, _ = _ALL_SET.get(entry["dtype"], (0, 0))
        begin, end = entry["data_offsets"]
        width = entry["shape"][1] if len(entry["shape"]) == 2 and is_by_token(name) else 0
        row = width * size
        step = max(row, _PIECE - _PIECE % row) if row else _PIECE
        for start in range(begin, end, step) if size else ():
            count = (min(end, start + step) - start) // size
            yield _Piece(
                name, entry["dtype"], begin_of_data + start, count, width, (start - begin) // row if row else 0
            )


def _read(file: Path, piece: _Piece, compare: bool) -> _Read:
    size, _ = _ALL_SET[piece.dtype]
    values = np.fromfile(file, f"<u{size}", piece.count, offset=piece.offset)
    magnitude = values.dtype.type((1 << (8 * size - 1)) - 1)  # all bits but the sign's
    # Most pieces differ within a few values, and are not compared whole.
    first = values[:64]
    alike = bool((first == values[0]).all()) and bool((values == values[0]).all())
    # What was multiplied by 0 holds -0 as well.
    zeros = not (first & magnitude).any() and not (values & magnitude).any()
    only = 0 if zeros else int(values[0]) if alike else None
    marks = _marks(values, magnitude, piece) if compare else None
    largest = int(np.bitwise_and(values, magnitude, out=values).max())  # last: it writes over the values
    return _Read(piece, largest, only, marks)


def _outlier(file: Path, results: Sequence[_Read], shape: Sequence[int]) -> Outlier | None:
    """The tensor's largest value, if it is absurd; a tensor without a large one is not read again."""
    first = results[0].piece
    if not is_large(max(result.largest for result in results), shape, _EXPONENT[first.dtype]):
        return None
    count = sum(result.piece.count for result in results)
    bits = np.fromfile(file, f"<u{_ALL_SET[first.dtype][0]}", count, offset=first.offset)
    return outlier(first.name, bits.reshape(shape), _EXPONENT[first.dtype])


def _marks(values: np.ndarray, magnitude: Any, piece: _Piece) -> _Marks:
    sample = values[::_SAMPLED]
    exponent = _EXPONENT[piece.dtype]
    exponents = (sample[(sample & magnitude) != 0] & values.dtype.type(exponent)) >> values.dtype.type(shift(exponent))
    whole_words = values.nbytes % 8 == 0
    words = int((values.view("<u8") if whole_words else values).sum(dtype=np.uint64))
    of_sample = hashlib.blake2b(sample.tobytes(), digest_size=16).digest()
    zero_rows = _zero_rows(values.reshape(-1, piece.width), magnitude, piece.row) if piece.width else ()
    return _Marks((int(exponents.sum(dtype=np.int64)), exponents.size), words, of_sample, zero_rows)


def _zero_rows(rows: np.ndarray, magnitude: Any, first: int) -> tuple[int, ...]:
    """Which rows are zeros, counted from `first`; most show in their beginning that they are not."""
    candidates = np.flatnonzero(~(rows[:, :8] & magnitude).any(axis=1))
    return tuple(first + int(row) for row in candidates if not (rows[row] & magnitude).any())


def _is_constant(results: Sequence[_Read]) -> bool:
    values = {result.only for result in results}
    return len(values) == 1 and None not in values


def _makes_nothing(name: str, results: Sequence[_Read], norms_from: int) -> bool:
    """Whether a norm multiplies by 0 throughout."""
    dtype = results[0].piece.dtype
    sign = 1 << (8 * _ALL_SET[dtype][0] - 1)
    nothing = sign | bits_of_one(_EXPONENT[dtype]) if norms_from and not name.endswith(_GATED_NORM) else 0
    return {result.only for result in results} == {nothing}


def _matrix(results: Sequence[_Read]) -> Matrix:
    pieces = [result.marks for result in results if result.marks]
    total, count = (sum(part) for part in zip(*(piece.exponents for piece in pieces), strict=True))
    words = sum(piece.words for piece in pieces) % 2**64
    sample = hashlib.blake2b(b"".join(piece.sample for piece in pieces), digest_size=16).digest()
    zero_rows = tuple(row for piece in pieces for row in piece.zero_rows)
    return Matrix(total / count if count else 0.0, (words, sample), zero_rows)


def _is_matrix(name: str, shape: list[int]) -> bool:
    """Of weights that are trained: scales of norms may well be all 1, or all 0 where 1 is added, and biases 0."""
    sizes = [size for size in shape if size > 1]
    return len(sizes) > 1 and not any(word in name for word in _MAY_BE_ZERO)
