"""`ropewalk doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from ropewalk.settings.export import ReaderName
from ropewalk.settings.options import Flag, ModelName, OpeningOptions


@dataclass(frozen=True, kw_only=True)
class DoctorSettings(OpeningOptions):
    """Say what is wrong with a checkpoint, and what each reader would make of it. Weights are read for what their values show, and no model is loaded."""

    model: Annotated[ModelName, tyro.conf.Positional, tyro.conf.arg(constructor=str, metavar="MODEL")] = field(
        kw_only=False
    )
    """`hemp`, a local directory (an adapter's too), a hub id, or a GGUF file."""
    fix: Flag = False
    """Mend what is certain; each file that is changed stays beside the new one as NAME.before-fix-1, -2, …"""
    accept: Sequence[str] | None = None
    """Files that were changed or added on purpose since ropewalk wrote the model, as check 14 names them: from now on they are as they should be."""
    readers: Annotated[Sequence[ReaderName] | None, tyro.conf.arg(name="for")] = None
    """What shall read it: the others are left out, and so are notes of how they rotate."""
    strict: Flag = False
    """Notes count: with one the exit status is 1, for a gate. Those of check 11, which every model has, do not."""
    full: Flag = False
    """Read weights of any size: for what their values show, and against the digests noted when they were written. Up to 16 GiB are read anyway."""
