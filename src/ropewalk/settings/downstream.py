"""What a model is used for: benchmarks, summaries, and everything that the paper measures at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from ropewalk.checkpoint.run_directory import refuse_unlike
from ropewalk.errors import UserError
from ropewalk.settings.command import Settings
from ropewalk.settings.extras import EXTRAS
from ropewalk.settings.options import (
    Batched,
    Directory,
    Files,
    Flag,
    MeasuringOptions,
    NamedModel,
    OpeningOptions,
    OptionalDirectory,
    OptionalFiles,
    OptionalMinutes,
    OptionalModel,
    OptionalNamedModel,
    PythonOnly,
    Spreading,
)
from ropewalk.settings.values import Count, LearningRate, Seed, Share, Temperature, Tokens

#: A directory that has it holds a suite.
JOURNAL = "stages.jsonl"
BenchmarkTask = Literal["boolq", "piqa", "race-middle", "race-high", "winogrande"]
SizeName = Literal["auto", "small", "full"]


@dataclass(frozen=True)
class Decoding(Settings):
    """How the next token is chosen: the likeliest one (temperature 0), or sampled.

    Attributes:
        temperature: logits are divided by it; 0.5 in section 3.5.
        top_p: sampled from the likeliest tokens that together have this probability; 0.95 in section 3.5.
        seed: of sampling; unused at temperature 0.
    """

    temperature: Temperature = 0.5
    top_p: Share = 0.95
    seed: Seed = 0

    @property
    def name(self) -> str:
        return "sampled" if self.temperature else "greedy"


@dataclass(frozen=True, kw_only=True)
class BenchmarksSettings(MeasuringOptions, Batched):
    """Zero-shot accuracy in the original window through lm-eval (section 3.4), paired with the base's if that is given."""

    tasks: Sequence[BenchmarkTask] | None = None
    """All five if not given."""
    data: OptionalDirectory = None
    """Directory of <task>.jsonl files (or .xz, .gz, .zst); the hub's sets if not given."""
    base: OptionalModel = None
    """The model before its extension."""
    limit: Count | None = None
    """The first so many items of each."""
    window: Tokens | None = None
    """Tokens a prompt may have; the original window if not given, for both models."""


@dataclass(frozen=True, kw_only=True)
class SummarizeSettings(MeasuringOptions):
    """Summaries of long documents, drawn and greedy, scored by ROUGE (section 3.5); fine-tunes on --train first."""

    data: Files
    """JSON-lines files with document and summary, or data-set ids as owner/name:split, to measure on."""
    train: OptionalFiles = None
    """Pairs to fine-tune on first; none of them may be in --data."""
    trained: OptionalDirectory = None
    """Directory of the fine-tuned model; needed with --train, and training goes on from what lies there."""
    epochs: Count = 10
    """Passes over the pairs (paper: 10)."""
    batch_size: Count = 64
    """Pairs a step (not stated in section 3.5; section 3.1 has 64)."""
    learning_rate: LearningRate | None = None
    """2e-5, from 33B parameters on 1e-5, if not given (paper)."""
    window: Tokens | None = None
    """Tokens of document, prompt and summary; the paper's 16384, or the model's own if that is shorter."""
    document_tokens: Tokens | None = None
    """Tokens of a document that are shown (paper: 15000); what fits a smaller window."""
    summary_tokens: Tokens | None = None
    """The longest summary (paper: 1000); its share of a smaller window."""
    temperature: Temperature = 0.5
    """Of the drawn summaries (paper: 0.5)."""
    top_p: Share = 0.95
    """Share of the likeliest tokens drawn from (paper: 0.95)."""
    decodings: Annotated[Sequence[Decoding] | None, PythonOnly] = None
    """Ways of decoding, a row each, in place of --temperature's and greedy."""
    seed: Seed = 0
    """Of the draws, and of the training order."""
    limit: Count | None = None
    """The first so many documents."""
    batch: Count | None = None
    """Documents at a time; from the memory if not given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train is None and self.trained is not None:
            raise UserError(
                f"fine-tuning into {self.trained} needs pairs to train on; give --train, or measure what lies there by naming it as MODEL"
            )


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(Spreading, OpeningOptions):
    """Everything the paper measures, as far as it fits this machine, and the page; a killed run goes on where it was."""

    model: NamedModel = field(kw_only=False)
    """`hemp`, a local directory or a hub id."""
    out: Directory
    """Directory of records.jsonl, stages.jsonl and report.html; a suite that lies there already goes on."""
    suite: Literal["paper"] = "paper"
    """Which measurements."""
    base: OptionalNamedModel = None
    """The model before its extension; benchmarks are then paired, and the untrained extension is measured too."""
    size: SizeName = "auto"
    """full is the paper's, small a quarter of an hour on two cores; auto is full where there is a GPU."""
    data: OptionalFiles = None
    """Long documents for perplexity and attention; the standard library's held-out modules if not given."""
    math: OptionalFiles = None
    """Further documents for perplexity, in a row of their own (paper: proof-pile)."""
    benchmarks: OptionalDirectory = None
    """Directory of benchmark files; the hub's sets if not given."""
    pairs: OptionalFiles = None
    """Documents and summaries; no summaries if not given."""
    train_pairs: OptionalFiles = None
    """Pairs to fine-tune on before summarising."""
    budget: OptionalMinutes = None
    """Minutes for each perplexity, which is then an estimate."""
    documents: Count | None = None
    """Documents of the perplexity, if not the size's number."""
    items: Count | None = None
    """Items of each benchmark, if not the size's number."""
    change: Annotated[dict[str, Any] | None, PythonOnly] = None
    """Any other fields of `suite.size.Size`, in place of the size's."""
    seed: Seed = 0
    """Of everything that is drawn."""
    overwrite: Flag = False
    """Replace the suite in --out; it stays until the new one is finished."""

    def packages(self) -> dict[str, Sequence[str]]:
        rouge = [] if self.pairs is None else ["rouge_score"]
        return {"ropewalk evaluate": ["lm_eval", *rouge, *EXTRAS["report"]]}

    def refuse_at_start(self) -> None:
        super().refuse_at_start()
        if not self.overwrite:
            refuse_unlike(self.out, (JOURNAL,))
