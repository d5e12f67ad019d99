"""Which value of a tensor is so far from the rest that no training makes it: what one flipped bit of an exponent does.

in   the bits of a tensor's values, and which of them are the exponent's
out  the largest value, its place, and what the rest is
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

#: Binary orders above the median of its tensor's magnitudes. The furthest in SmolLM2-135M, gemma-3-270m, hemp and a model of the lab (656
#: tensors) are 6.4 of a matrix (a q_proj of gemma) and 9.6 of a norm (152 in gemma, median 0.2). The highest exponent bit moves a value below 2
#: by 128 in bfloat16 and float32, and by 16 in float16.
_FAR = 14
#: And it is 2 to this or more, in a vector and in a matrix: of small values, some may be far above others. The largest there are 1656 and 9.25;
#: norms that are stored less one, as gemma's, may have a median near zero.
_LARGE_VECTOR, _LARGE_MATRIX = 16, 10
#: Whatever the rest is, 2 to this is too large: a norm squares in float32 what such a weight makes, and that overflows.
_OVERFLOWS = 63


@dataclass(frozen=True)
class Outlier:
    """The largest value of a tensor that has absurd ones.

    Attributes:
        place: its indices.
        typical: the median of the tensor's magnitudes, zeros left out.
        count: how many of its values are absurd.
    """

    name: str
    place: tuple[int, ...]
    value: float
    typical: float
    count: int


def is_large(magnitude: int, shape: Sequence[int], exponent: int) -> bool:
    """Whether these bits, without the sign's, could be an outlier's in a tensor of this shape. exponent: the bits that are its exponent."""
    return magnitude >= _bits(_least(shape), exponent)


def outlier(name: str, bits: np.ndarray, exponent: int) -> Outlier | None:
    """The tensor's largest value, where it is absurd. bits: of all its finite values, in its shape, as unsigned numbers; they are written over."""
    flat = bits.reshape(-1)
    sign = flat.dtype.type(1 << (8 * flat.itemsize - 1))
    negative = flat & sign != 0
    flat &= ~sign  # magnitudes are in the order of their bits
    values = flat[flat != 0]
    typical = int(np.partition(values, values.size // 2)[values.size // 2])
    far = min((typical >> shift(exponent)) - _bias(exponent) + _FAR, _OVERFLOWS)
    count = int((flat >= _bits(max(far, _least(bits.shape)), exponent)).sum())
    if not count:
        return None
    largest = int(flat.argmax())
    value = _value(int(flat[largest]), exponent) * (-1 if negative[largest] else 1)
    place = tuple(int(index) for index in np.unravel_index(largest, bits.shape))
    return Outlier(name, place, value, _value(typical, exponent), count)


def _least(shape: Sequence[int]) -> int:
    return _LARGE_MATRIX if sum(size > 1 for size in shape) > 1 else _LARGE_VECTOR


def shift(exponent: int) -> int:
    """How many bits stand below those of the exponent."""
    return (exponent & -exponent).bit_length() - 1


def _bias(exponent: int) -> int:
    return (exponent >> shift(exponent)) // 2


def bits_of_one(exponent: int) -> int:
    """The bits of 1."""
    return int(_bits(0, exponent))


def _bits(order: int, exponent: int) -> Any:
    """The bits of 2 to this, or more than any value's where the format does not reach so far."""
    return (order + _bias(exponent)) << shift(exponent)


def _value(bits: int, exponent: int) -> float:
    mantissa, order = (bits & ((1 << shift(exponent)) - 1)) / (1 << shift(exponent)), bits >> shift(exponent)
    return math.ldexp(1 + mantissa, order - _bias(exponent)) if order else math.ldexp(mantissa, 1 - _bias(exponent))
