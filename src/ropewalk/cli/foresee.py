"""Commands that tell what to expect before anything is loaded. Parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from ropewalk.cli.shared import Flag


def theory(
    *,
    model: str | None = None,
    window: int | None = None,
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    overwrite: Flag = False,
) -> None:
    """Print and draw what the theory says of a model in a longer window: bounds, growth, angular resolution. No weights.

    Args:
        model: `hemp`, a local directory or a hub id; LLaMA 7B's rotation if not given.
        window: Tokens; the model's own window if it was extended, else 16 times that.
        out: Directory for figures and records; theory-NAME-WINDOW if not given.
        overwrite: Write into --out if it exists.
    """
    from ropewalk.forecast import theory_command

    theory_command(model, window=window, out=out, overwrite=overwrite)
