"""Options that several commands share, each defined once: its types, and groups of fields that settings inherit.

A field's type is what Python takes, with its range (values.py); `tyro.conf.arg(constructor=…)` is what the command line makes of a word.
What only Python can give (a model in memory, a tokenizer) is marked `PythonOnly`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ropewalk.checkpoint.processes import refuse_locked
from ropewalk.checkpoint.replacement import at_stake_with
from ropewalk.errors import UserError
from ropewalk.settings import values
from ropewalk.settings.command import Settings
from ropewalk.settings.scaling import ScalingOptions
from ropewalk.settings.values import Minutes, Tokens
from ropewalk.settings.windows import WindowAnswers, WindowOptions

if TYPE_CHECKING:  # none of it is imported: settings are read before torch and transformers are
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ropewalk.checkpoint.checkpoint import ModelName
    from ropewalk.data.documents import Document

    Loadable = ModelName | PreTrainedModel
    Name = str | Path
    Names = str | Path | Sequence[str | Path]
    Texts = Names | Sequence[Document]
    Tokenizer = PreTrainedTokenizerBase
    TorchDtype = torch.dtype
    TorchDevice = torch.device
else:  # what can be asked of an object without importing its class
    ModelName, Loadable = Annotated[Any, values.MODEL], Annotated[Any, values.MODEL_OR_LOADED]
    Name, Names, Texts = Annotated[Any, values.PATH], Annotated[Any, values.PATHS], Annotated[Any, values.TEXTS]
    Tokenizer = Annotated[Any, values.TOKENIZER]
    TorchDtype, TorchDevice = Annotated[Any, values.DTYPE], Annotated[Any, values.DEVICE]

Shard = Literal["auto", "on", "off"]
DtypeName = Literal["auto", "float32", "bfloat16", "float16"]
#: A switch that is off unless named; without its `--no-` twin, which would only lengthen every help page.
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
PythonOnly = tyro.conf.Suppress


def _word(kind: Any, metavar: str, *, optional: bool = False) -> Any:
    """What the command line makes of a word, where Python takes more: `kind` is called with it, `metavar` is shown in the help."""
    if optional:
        return tyro.conf.arg(constructor=kind | None, metavar=metavar, help_behavior_hint="")
    return tyro.conf.arg(constructor=kind, metavar=metavar)


#: A model that must lie on disk or on the hub; `AnyModel` may be in memory too.
NamedModel = Annotated[ModelName, tyro.conf.Positional, _word(str, "MODEL")]
OptionalNamedModel = Annotated[ModelName | None, _word(str, "MODEL", optional=True)]
AnyModel = Annotated[Loadable, tyro.conf.Positional, _word(str, "MODEL")]
OptionalModel = Annotated[Loadable | None, _word(str, "MODEL", optional=True)]
Data = Annotated[Texts, _word(list[str], "DATA...")]
Files = Annotated[Names, _word(list[str], "DATA...")]
OptionalFiles = Annotated[Names | None, _word(list[str], "DATA...", optional=True)]
Directory = Annotated[Name, _word(Path, "DIR")]
OptionalDirectory = Annotated[Name | None, _word(Path, "DIR", optional=True)]
OptionalRecordFile = Annotated[Name | None, _word(Path, "FILE.jsonl", optional=True)]
#: Read, where an empty word must not become the working directory.
OptionalScores = Annotated[Name | None, _word(str, "FILE.jsonl", optional=True)]
OptionalRecords = Annotated[Sequence[Name] | None, _word(list[str], "RECORDS.jsonl...", optional=True)]
OptionalTokens = Annotated[Sequence[Tokens] | None, _word(list[Tokens], "TOKENS...", optional=True)]
OptionalMinutes = Annotated[Minutes | None, tyro.conf.arg(metavar="MINUTES|1h")]


class Opening(WindowAnswers, total=False):
    """What `Checkpoint.open` is told beside a name."""

    trust_remote_code: bool


@dataclass(frozen=True, kw_only=True)
class Trusting(Settings):
    """A checkpoint that may bring code of its own."""

    trust_remote_code: Flag = False
    """Run the model code that comes with the checkpoint."""


@dataclass(frozen=True, kw_only=True)
class OpeningOptions(WindowOptions, Trusting):
    """A checkpoint that is opened, and what its files alone do not settle."""

    @property
    def opening(self) -> Opening:
        """All of it, by the names that `Checkpoint.open` has."""
        return Opening(**self.answers, trust_remote_code=self.trust_remote_code)


@dataclass(frozen=True, kw_only=True)
class Loading(Settings):
    """How a model is brought into memory."""

    dtype: Annotated[DtypeName | TorchDtype | None, tyro.conf.arg(constructor=DtypeName)] = "auto"
    """Of the weights; bfloat16 on a GPU, float32 on a CPU."""
    device: Annotated[str | TorchDevice | None, _word(str, "STR", optional=True)] = None
    """cuda, cpu, …; the GPU if there is one."""


@dataclass(frozen=True, kw_only=True)
class Spreading(Loading):
    """How a model that is measured is brought into the memory of one process or of many."""

    shard: Shard = "auto"
    """Under torchrun: on shards the layers' weights over the processes (FSDP2), off has each hold them whole; auto shards what takes more than 70 % of a device's free memory. Figures are the same."""

    @property
    def loading(self) -> dict[str, Any]:
        """All of it, by the names that `open_model` has."""
        return {"dtype": self.dtype, "device": self.device, "shard": self.shard}


@dataclass(frozen=True, kw_only=True)
class MeasuringOptions(Spreading, OpeningOptions):
    """A model that is measured, and where that goes on record."""

    model: AnyModel = field(kw_only=False)
    """`hemp`, a local directory or a hub id; in Python also a transformers model, then with its tokenizer."""
    tokenizer: Annotated[Tokenizer | None, PythonOnly] = None
    """Of a model that is given as an object."""
    out: OptionalRecordFile = None
    """Record file to append to; a killed run goes on from it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.out is not None:
            from ropewalk.records import check_file

            check_file(self.out)


@dataclass(frozen=True, kw_only=True)
class Batched(Settings):
    """Forward passes of a size."""

    batch_tokens: Tokens | None = None
    """Tokens of one forward pass; for speed and memory, figures change by rounding only."""


def unasked(options: Any) -> str:
    """What --overwrite would delete of what was trained while --yes is not given; empty for nothing. options: of any command."""
    out, asks = (
        getattr(options, "out", None),
        getattr(options, "overwrite", False) and not getattr(options, "yes", True),
    )
    return at_stake_with(Path(out), begins=hasattr(options, "resume")) if asks and out is not None else ""


@dataclass(frozen=True, kw_only=True)
class Overwriting(Settings):
    """A result that may replace an earlier one."""

    overwrite: Flag = False
    """Replace --out if ropewalk made it; it stays until the new one is whole."""
    yes: Flag = False
    """With --overwrite: even if --out holds a training run's checkpoints or its model."""

    def refuse_at_start(self) -> None:
        super().refuse_at_start()
        if at_risk := unasked(self):
            refuse_locked(vars(self)["out"])  # they are being written
            raise UserError(
                f"--overwrite would delete {at_risk}; add --yes to have that deleted, go on with it (train --resume), or choose another --out"
            )


@dataclass(frozen=True, kw_only=True)
class Checkpointed(Overwriting, ScalingOptions, OpeningOptions):
    """A checkpoint that becomes another one."""

    model: NamedModel = field(kw_only=False)
    """`hemp`, a local directory or a hub id."""
    out: Directory
    """Directory of the new checkpoint."""
