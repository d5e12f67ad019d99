"""`ropewalk.load_model`, which is no command: a model in memory is of use in Python alone."""

from __future__ import annotations

from dataclasses import dataclass, field

from ropewalk.settings.options import Loading, NamedModel, OpeningOptions


@dataclass(frozen=True, kw_only=True)
class LoadSettings(Loading, OpeningOptions):
    """Load a model."""

    model: NamedModel = field(kw_only=False)
    """`hemp`, a local directory, a hub id or an open checkpoint."""
    attention: str | None = None
    """transformers' `attn_implementation`; its own choice (SDPA) if not given."""
