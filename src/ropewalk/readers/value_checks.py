"""The check of weights' values.

in   a directory
out  findings, a sentence each
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ropewalk.checkpoint.digests import READ_UNASKED
from ropewalk.checkpoint.finite import damage
from ropewalk.checkpoint.tensor_problems import listed, several
from ropewalk.errors import UserError
from ropewalk.readers.diagnosis import Finding

_GB = 10**9


def finite(
    directory: Path, files: Iterable[Path], *, full: bool, headers: Mapping[str, dict[str, Any]] = MappingProxyType({})
) -> Iterator[Finding]:
    """15. No weight is NaN or infinite, and no matrix has one value throughout. full: however long it takes to read them.

    Args:
        directory: of a model or an adapter.
        files: of weights in it or below.
        headers: of those that were read before, by their paths below the directory.
    """
    files = sorted({*files})
    size = sum(file.stat().st_size for file in files)
    if size > READ_UNASKED and not full:
        yield Finding(
            15, "not checked", f"values not read: to look for NaN in {size / _GB:.0f} GB takes minutes; add --full"
        )
        return
    named = [(file, file.relative_to(directory).as_posix()) for file in files]
    faults = [fault for file, name in named if (fault := _fault(file, name, headers.get(name)))]
    yield from (Finding(15, "wrong", fault) for fault in faults)
    if files and not faults:
        yield Finding(15, "ok", "each was read, none is NaN or infinite, and no matrix has one value throughout")


def _fault(file: Path, name: str, header: dict[str, Any] | None) -> str:
    """What is said of a file whose numbers no training makes; empty of one with sound ones."""
    try:
        found = damage(file, header)
    except UserError as error:
        return str(error)
    except OSError as error:
        return f"{name} cannot be read ({error.strerror}); take it from a copy, or make the model again"
    if found.not_finite:
        return f"weights are finite numbers, but {name} has {several(found.not_finite)} with NaN or infinity ({listed(found.not_finite)}); fetch or make the model again"
    if found.constant:
        return f"weights were trained, but {name} has {several(found.constant)} with one value throughout ({listed(found.constant)}), all zeros for example; fetch or make the model again"
    return ""
