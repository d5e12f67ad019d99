"""The check of weights' values.

in   a directory
out  findings, a sentence each
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ropewalk.checkpoint.digests import READ_UNASKED, noted_digests
from ropewalk.checkpoint.finite import Damage, Matrix, damage
from ropewalk.checkpoint.outliers import Outlier
from ropewalk.checkpoint.tensor_problems import listed, several, tokens_of
from ropewalk.errors import UserError
from ropewalk.readers.diagnosis import Finding
from ropewalk.readers.odd_matrices import oddities, padding
from ropewalk.sentences import counted

_GB = 10**9
#: Where no digest says that the values are those that were written.
_UNSEEN = (
    "; what no reading of values can see: two matrices of one shape that were swapped, a part of one that is wrong, the weights of another model of "
    "this shape; a digest from where they were made does (check 14), or a measurement"
)


def finite(
    directory: Path,
    files: Iterable[Path],
    *,
    full: bool,
    compare: bool = True,
    headers: Mapping[str, dict[str, Any]] = MappingProxyType({}),
    norms_from: int | None = None,
) -> Iterator[Finding]:
    """15. No weight is NaN, infinite or absurdly far from the rest of its tensor, and no matrix has one value throughout, no norm makes everything 0. 16. None is unlike its siblings (odd_matrices.py).

    Args:
        directory: of a model or an adapter.
        files: of weights in it or below.
        full: however long it takes to read them.
        compare: check 16 too; it takes as long again, and refuses nothing.
        headers: of those that were read before, by their paths below the directory.
        norms_from: what its norms add to their weight (families.py); None: not known, and they are not looked at.
    """
    files = sorted({*files})
    size = sum(file.stat().st_size for file in files)
    if size > READ_UNASKED and not full:
        yield Finding(
            15, "not checked", f"values not read: to look for NaN in {size / _GB:.0f} GB takes minutes; add --full"
        )
        return
    matrices, faults = dict[str, Matrix](), list[str]()
    for file in files:
        name = file.relative_to(directory).as_posix()
        read = _read(file, name, headers.get(name), compare, norms_from)
        if isinstance(read, str):
            faults.append(read)
            continue
        matrices |= read.matrices
        if fault := _fault(read, name):
            faults.append(fault)
    yield from (Finding(15, "wrong", fault) for fault in faults)
    if files and not faults:
        names = {file.relative_to(directory).as_posix() for file in files}
        unseen = "" if names <= noted_digests(directory).keys() else _UNSEEN
        yield Finding(
            15,
            "ok",
            f"each was read, none is NaN, infinite or absurdly far from the rest of its tensor, and no matrix has one value throughout{unseen}",
        )
    token_ids = cache(lambda: {*tokens_of(directory).values()})
    odd = list(oddities(matrices, token_ids))
    yield from (Finding(16, "note", sentence) for sentence in odd)
    if matrices and not odd:
        alike = "none is far from its siblings in scale or a copy of one, and no token's row is zeros"
        yield Finding(16, "ok", "; ".join([alike, *padding(matrices, token_ids)]))


def _read(file: Path, name: str, header: dict[str, Any] | None, compare: bool, norms_from: int | None) -> Damage | str:
    """What was read of a file, or why it could not be."""
    try:
        return damage(file, header, compare=compare, norms_from=norms_from)
    except UserError as error:
        return str(error)
    except OSError as error:
        return f"{name} cannot be read ({error.strerror}); take it from a copy, or make the model again"


def _fault(read: Damage, name: str) -> str:
    """What is said of a file whose numbers no training makes; empty of one with sound ones."""
    if read.not_finite:
        return f"weights are finite numbers, but {name} has {several(read.not_finite)} with NaN or infinity ({listed(read.not_finite)}); fetch or make the model again"
    if read.constant:
        return f"weights were trained, but {name} has {several(read.constant)} with one value throughout ({listed(read.constant)}), all zeros for example; fetch or make the model again"
    if read.outliers:
        return (
            f"no training makes a value of thousands of times the rest of its tensor, but {name} has {several(read.outliers)} with such: "
            f"{listed([_outlier(each) for each in read.outliers])}; a flipped bit of an exponent does that; fetch or make the model again"
        )
    return ""


def _outlier(found: Outlier) -> str:
    place = ", ".join(map(str, found.place))
    more = f" ({counted(found.count - 1, 'more value')} as far)" * (found.count > 1)
    return f"{found.name}[{place}] is {found.value:.3g}, and the median magnitude there {found.typical:.3g}{more}"
