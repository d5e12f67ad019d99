"""`ropewalk plan`: a training recipe, and the machines it is planned for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from ropewalk.errors import UserError
from ropewalk.settings.options import NamedModel
from ropewalk.settings.train import Recipe


@dataclass(frozen=True, kw_only=True)
class PlanSettings(Recipe):
    """Say what training would take before anything is loaded: memory by part, layout, tokens/s, hours, cost."""

    model: NamedModel = field(kw_only=False)
    """`hemp`, a local directory, a hub id (its config.json alone is fetched), or llama-7b, -13b, -33b, -65b."""
    gpus: Annotated[str | None, tyro.conf.arg(metavar="8xH100")] = None
    """How many of which chip, by data sheet; without it this machine, timed for ten seconds."""
    cp: int | None = None
    """Devices that share one window; chosen if not given."""
    replicas: int | None = None
    """Copies of the weights, each sharded over its own devices; chosen if not given."""
    price: float | None = None
    """Of a chip and hour, in any currency."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.price is not None and not 0 <= self.price < math.inf:
            raise UserError(
                f"a price is a finite number of at least 0, got {self.price}; leave it out if you do not know it"
            )
