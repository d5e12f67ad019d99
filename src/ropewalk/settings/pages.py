"""What is drawn or written from what is known: theory, report, demo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ropewalk.settings.command import Settings
from ropewalk.settings.options import Flag, MaybeDirectory, OtherName, Overwriting, PythonOnly

if TYPE_CHECKING:
    from ropewalk.suite.demo import DemoSizes
else:
    DemoSizes = Any


@dataclass(frozen=True, kw_only=True)
class TheorySettings(Settings):
    """Print and draw what the theory says of a model in a longer window: bounds, growth, angular resolution. No weights."""

    model: OtherName = field(default=None, kw_only=False)
    """`hemp`, a local directory or a hub id; LLaMA 7B's rotation (head 128, base 10000, window 2048) if not given."""
    window: int | None = None
    """Tokens; the model's own window if it was extended, else 16 times that."""
    out: MaybeDirectory = None
    """Directory for figures and records; theory-NAME-WINDOW if not given."""
    overwrite: Flag = False
    """Write into --out if it exists."""


@dataclass(frozen=True, kw_only=True)
class ReportSettings(Overwriting):
    """Turn record files into one self-contained page."""

    records: Annotated[
        Sequence[str | Path],
        tyro.conf.Positional,
        tyro.conf.arg(constructor=list[Path], metavar="RECORDS.jsonl", help_behavior_hint="(required)"),
    ] = field(kw_only=False)
    """One or more record files."""
    out: Annotated[str | Path, tyro.conf.arg(constructor=Path, metavar="FILE.html")] = field(kw_only=False)
    """The page."""
    title: str | None = None
    """Its heading; from what was measured if not given."""
    left_out: Annotated[Sequence[str], PythonOnly] = ()
    """What was meant to be measured and was not, each in a sentence."""


@dataclass(frozen=True, kw_only=True)
class DemoSettings(Overwriting):
    """Run the whole job on the embedded model and this machine's standard library, in minutes, and write the page."""

    out: Annotated[str | Path, tyro.conf.arg(constructor=Path, metavar="DIR", help_behavior_hint="(default: demo)")] = (
        field(default=Path("demo"), kw_only=False)
    )
    """Directory of the models, the records and report.html."""
    sizes: Annotated[DemoSizes | None, PythonOnly] = None
    """Other sizes than what one CPU core does in minutes."""
