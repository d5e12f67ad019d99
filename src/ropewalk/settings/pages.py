"""What is drawn or written from what is known: theory, report, card, demo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ropewalk.settings.command import Settings
from ropewalk.settings.extras import EXTRAS
from ropewalk.settings.options import (
    Flag,
    Name,
    OpeningOptions,
    OptionalDirectory,
    OptionalNamedModel,
    OptionalRecords,
    Overwriting,
    PythonOnly,
)
from ropewalk.settings.values import SENTENCES, Count, CountOrNone, LearningRate, Prompts, Seed, Tokens


@dataclass(frozen=True, kw_only=True)
class TheorySettings(Overwriting, OpeningOptions):
    """Print and draw what the theory says of a model in a longer window: bounds, growth, angular resolution. No weights."""

    model: Annotated[OptionalNamedModel, tyro.conf.Positional] = field(default=None, kw_only=False)
    """`hemp`, a local directory, a hub id, or a name that `plan` knows offline (llama-7b, llama-3.1-8b, qwen3-8b, …); LLaMA 7B's rotation (head 128, base 10000, window 2048) if not given."""
    window: Tokens | None = None
    """Tokens; the model's own window if it was extended, else 16 times that."""
    out: OptionalDirectory = None
    """Directory for figures and records; nothing is written if not given."""


@dataclass(frozen=True, kw_only=True)
class ReportSettings(Overwriting):
    """Turn record files into one self-contained page; a .pdf is printed by a browser, where there is one."""

    records: Annotated[
        Sequence[Name],
        tyro.conf.Positional,
        tyro.conf.arg(constructor=list[str], metavar="RECORDS.jsonl", help_behavior_hint="(required)"),
    ] = field(kw_only=False)
    """One or more record files, or directories of them."""
    out: Annotated[Name, tyro.conf.arg(constructor=Path, metavar="FILE.html")] = field(kw_only=False)
    """The page, .html or .pdf."""
    paper: bool = True
    """The paper's figures beside one's own (Chen et al. 2023, LLaMA); --no-paper leaves them out."""
    verdict_only: Flag = False
    """The verdict alone: one page on paper, where the whole report has it as its first."""
    tables: OptionalDirectory = None
    """Directory for every table of the page as CSV, LaTeX and Markdown, intervals included."""
    figures: OptionalDirectory = None
    """Directory for every figure of the page as SVG, PDF and PNG."""
    title: str | None = None
    """Its heading; from what was measured if not given."""
    left_out: Annotated[Sequence[str], SENTENCES, PythonOnly] = ()
    """What was meant to be measured and was not, each in a sentence."""


@dataclass(frozen=True, kw_only=True)
class CardSettings(OpeningOptions):
    """Write a checkpoint's model card, its README.md, from what is on record of it; a README of your own stays."""

    model: Annotated[Name, tyro.conf.Positional, tyro.conf.arg(constructor=str, metavar="DIR")] = field(kw_only=False)
    """Directory of the checkpoint."""
    records: OptionalRecords = None
    """Record files, or directories of them: of this model, of its base, of its training; those in DIR if not given."""
    out: Annotated[Name | None, tyro.conf.arg(constructor=Path | None, metavar="FILE.md")] = None
    """Another place for the card; DIR/README.md if not given."""


@dataclass(frozen=True)
class DemoSizes(Settings):
    """The demo's sizes: what one quiet CPU core does in under six minutes.

    Attributes:
        window: L', tokens; hemp's own L is 256.
        steps, batch_size, learning_rate: of the fine-tuning; chosen on the validation modules, never on the held-out ones
            (docs/log.md). Few windows a step and a small rate, since a million tokens have to do.
        exercises: recall exercises among the training documents, about a sixth of its windows, as a fifth of hemp's pretraining
            was. Source code alone asks for no number to be found again, and a million tokens of it let that be forgotten.
        overlap: a window slides by window / overlap tokens (the paper's 256 for 2048 to 32768 would score a short window whole).
        documents, tokens_each: how many held-out modules are scored, and how many of their first tokens.
        depths, trials: of the passkey test, as in the paper (section 3.3).
    """

    window: Tokens = 1024
    steps: Count = 500
    batch_size: Count = 2
    learning_rate: LearningRate = 4e-5
    exercises: CountOrNone = 400
    overlap: Count = 4
    documents: Count = 14
    tokens_each: Tokens = 1536
    depths: Prompts = 32
    trials: Prompts = 10
    seed: Seed = 0


@dataclass(frozen=True, kw_only=True)
class DemoSettings(Overwriting):
    """Run the whole job on the embedded model and this machine's standard library, in minutes, and write the page."""

    out: Annotated[Name, tyro.conf.arg(constructor=Path, metavar="DIR", help_behavior_hint="(default: demo)")] = field(
        default=Path("demo"), kw_only=False
    )
    """Directory of the models, the records and report.html."""
    sizes: Annotated[DemoSizes | None, PythonOnly] = None
    """Other sizes than what one CPU core does in minutes."""

    def packages(self) -> dict[str, Sequence[str]]:
        return {"ropewalk demo": EXTRAS["report"]}
