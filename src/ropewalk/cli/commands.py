"""The commands: which settings each takes, and what it does with them. The settings' fields are its options.

make.py        extend, search, train, merge, export, report, card, push, demo
measure.py     perplexity, gain, data score, passkey, retrieval, ruler, attention
downstream.py  benchmarks, summarize, evaluate, ablate
predict.py     theory, plan, doctor
talk.py        chat, generate
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from ropewalk.cli import downstream, make, measure, predict, talk
from ropewalk.settings.ablate import AblateSettings
from ropewalk.settings.chat import ChatSettings, GenerateSettings
from ropewalk.settings.doctor import DoctorSettings
from ropewalk.settings.downstream import BenchmarksSettings, EvaluateSettings, SummarizeSettings
from ropewalk.settings.export import ExportSettings, MergeSettings, PushSettings
from ropewalk.settings.extend import ExtendSettings
from ropewalk.settings.extras import installed
from ropewalk.settings.measure import (
    AttentionSettings,
    DataScoreSettings,
    GainSettings,
    PasskeySettings,
    PerplexitySettings,
    RetrievalSettings,
    RulerSettings,
)
from ropewalk.settings.options import Flag
from ropewalk.settings.pages import CardSettings, DemoSettings, ReportSettings, TheorySettings
from ropewalk.settings.plan import PlanSettings
from ropewalk.settings.search import SearchSettings
from ropewalk.settings.train import TrainSettings


@dataclass(frozen=True, kw_only=True)
class Terminal:
    """What every command can be told of the terminal."""

    quiet: Flag = False
    """Errors and the result alone."""
    verbose: Flag = False
    """Also every option as it applies, debugging messages, and where an error comes from."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="run.yaml")] = None
    """Options from a file, as every run writes one beside its records; what is typed wins."""


@dataclass(frozen=True, kw_only=True)
class ByStep:
    """Commands that measure a model can measure each checkpoint of a run."""

    by_step: Flag = False
    """MODEL is the --out of a training run: measure what it began from and each of its checkpoints (tables 3 and 4)."""


@dataclass(frozen=True, kw_only=True)
class AsJson:
    """Commands whose result other programs read."""

    json: Flag = False
    """Print the result as JSON."""


@dataclass(frozen=True, kw_only=True)
class InFull:
    """Commands that print a conclusion, and have more to say than it takes to decide."""

    full: Flag = False
    """Every figure, not the conclusion and what it rests on alone."""


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """Commands that take long."""

    dry_run: Flag = False
    """Say what would be done and what it takes, and write nothing."""


@dataclass(frozen=True, kw_only=True)
class ItemsOnly:
    """Commands that make what they ask a model."""

    items_only: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Make the items and write them there, a file a task and length, to look at and check; no model reads them."""


@dataclass(frozen=True, kw_only=True)
class Yes:
    """Commands that ask."""

    yes: Flag = False
    """Do not ask."""


@dataclass(frozen=True)
class Command:
    """One command.

    settings: its options. run: what is called with them and prints the result. needs: extras without which it cannot begin
    (settings/extras.py). more: options that only the command line has. examines: whether it computes, by its options, where torch is installed.
    """

    settings: type
    run: Callable[[Any], None]
    needs: tuple[str, ...] = ()
    more: tuple[type, ...] = ()
    examines: Callable[[Any], bool] = lambda _: False

    @property
    def loads(self) -> bool:
        """Whether a model comes into memory, and torch with it."""
        return bool({"train", "eval"} & set(self.needs))

    def opens(self, options: Any) -> bool:
        """Whether torch comes into memory."""
        return self.loads or (self.examines(options) and installed("torch"))

    @property
    def classes(self) -> tuple[type, ...]:
        """All whose fields are options of it."""
        return self.settings, *self.more, Terminal


_TRAIN, _EVAL = ("train",), ("eval",)
COMMANDS: dict[str, Command] = {
    "demo": Command(DemoSettings, make.demo, ("train", "report"), (DryRun,)),
    "extend": Command(ExtendSettings, make.extend, _TRAIN, (DryRun, AsJson)),
    "search": Command(SearchSettings, make.search, _TRAIN, (DryRun,)),
    "train": Command(TrainSettings, make.train, _TRAIN, (DryRun,)),
    "merge": Command(MergeSettings, make.merge, _TRAIN),
    "export": Command(ExportSettings, make.export, _TRAIN),
    "perplexity": Command(PerplexitySettings, measure.perplexity, _TRAIN, (ByStep, AsJson)),
    "gain": Command(GainSettings, measure.gain, _TRAIN, (ByStep, AsJson)),
    "data score": Command(DataScoreSettings, measure.data_score, _TRAIN, (AsJson,)),
    "passkey": Command(PasskeySettings, measure.passkey, _TRAIN, (ByStep, AsJson)),
    "retrieval": Command(RetrievalSettings, measure.retrieval, _TRAIN, (AsJson,)),
    "ruler": Command(RulerSettings, measure.ruler, _EVAL, (ItemsOnly, ByStep, AsJson)),
    "benchmarks": Command(BenchmarksSettings, downstream.benchmarks, _EVAL, (AsJson,)),
    "summarize": Command(SummarizeSettings, downstream.summarize, _EVAL, (AsJson,)),
    "evaluate": Command(EvaluateSettings, downstream.evaluate, ("eval", "report"), (DryRun,)),
    "ablate": Command(AblateSettings, downstream.ablate, _TRAIN),
    "attention": Command(AttentionSettings, measure.attention, _TRAIN, (InFull, AsJson)),
    "chat": Command(ChatSettings, talk.chat, _TRAIN),
    "generate": Command(GenerateSettings, talk.generate, _TRAIN),
    "theory": Command(TheorySettings, predict.theory, (), (InFull, AsJson)),
    "plan": Command(PlanSettings, predict.plan, examines=lambda options: options.is_of_this_machine),
    "doctor": Command(DoctorSettings, predict.doctor, (), (AsJson,), examines=lambda _: True),
    "report": Command(ReportSettings, make.report, ("report",)),
    "card": Command(CardSettings, make.card, ("report",)),
    "push": Command(PushSettings, make.push, (), (DryRun, Yes)),
}
