"""What a training run is asked to do: the paper's recipe as defaults, and every value checked before anything is loaded.

Section numbers are those of Chen et al. 2023, arXiv 2306.15595. What the paper leaves open says so.
"""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ropewalk.checkpoint.files import refuse_to_lose, refuse_unwritable
from ropewalk.errors import UserError
from ropewalk.settings.command import Settings, check_whole, option_name
from ropewalk.settings.options import Checkpointed, Data, Flag
from ropewalk.settings.scaling import TrainMethod, parameter_names

Mode = Literal["full", "lora", "pose"]
Precision = Literal["auto", "float32", "bfloat16", "bfloat16-stochastic"]
Activations = Literal["auto", "full", "none"]
Optimizer = Literal["adamw", "adamw-8bit", "adamw-offload"]

#: 33B and 65B train at half the rate of 7B and 13B (section 3.1); the border lies between 13 and 33 thousand million.
_LARGE_MODEL = 20e9
#: Far more than any machine has cores; from some tens of thousands on, OpenMP crashes without a word.
_MOST_THREADS = 1024


@dataclass(frozen=True, kw_only=True)
class Recipe(Settings):
    """What is trained and how: all that memory and time depend on. The planner reads no more of a run than this."""

    HINTS = {"precision": "plain bfloat16 weights are not offered, since updates of 2e-5 vanish in them"}

    window: int
    """Tokens, L'; the model is extended to it first if its own window is shorter."""
    steps: int = 1000
    """Optimiser steps in all (section 3.1: 1000 for Position Interpolation, 10000 for direct fine-tuning)."""
    mode: Mode = "full"
    """full trains every weight (section 3.1); lora low-rank adapters, embeddings and norms (LongLoRA, arXiv 2309.12307, section 3.3); pose every weight at a short window, with skipped positions (PoSE, arXiv 2309.10400)."""
    batch_size: int = 64
    """Windows per optimiser step, over all devices (section 3.1: 64 up to 8192 tokens, else 128)."""
    micro_batch: int | None = None
    """Windows in memory at a time on one device; chosen by window and device if not given."""
    precision: Precision = "auto"
    """float32 everywhere; bfloat16: float32 weights, bfloat16 arithmetic; bfloat16-stochastic: bfloat16 weights, updates rounded stochastically. auto is float32 on a CPU and bfloat16 on a GPU."""
    optimizer: Optimizer = "adamw"
    """adamw-8bit keeps its states in 8 bits, adamw-offload in the host's memory (both need torchao)."""
    activations: Activations = "auto"
    """What layers keep for the backward pass: auto as many activations as fit, full checkpointing (each layer's input only), none of it (every activation)."""
    lora_rank: int = 8
    """Of the adapters in mode lora (LongLoRA: 8)."""
    chunk_window: int | None = None
    """Tokens in memory in mode pose; the model's original window if not given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("window", "steps", "batch_size", "lora_rank"):
            check_whole(name, getattr(self, name), at_least=1)
        for name in ("micro_batch", "chunk_window"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), at_least=1)
        if self.chunk_window is None:
            return
        if self.mode != "pose":
            raise UserError(
                f"chunk-window is mode pose's, and this is mode {self.mode}; add --mode pose or leave it out"
            )
        if self.chunk_window >= self.window:
            raise UserError(
                f"mode pose skips positions between a short window and a long one, and chunk-window {self.chunk_window} is not shorter "
                f"than window {self.window}; ask for a shorter one, or use mode full"
            )


@dataclass(frozen=True, kw_only=True)
class TrainSettings(Recipe, Checkpointed):
    """Fine-tune a model at a longer window, after extending it there. Defaults are the paper's (Chen et al. 2023, section 3.1)."""

    data: Data
    """Files (text, JSON lines, Parquet, packed or not), directories, or data-set ids as owner/name:config:split; in Python also documents."""
    method: TrainMethod = "linear"
    """How the model is extended; linear is Position Interpolation, plain extends nothing and trains on positions past L (direct fine-tuning)."""
    learning_rate: float | None = None
    """At its maximum; 2e-5, or 1e-5 from 33B parameters on, if not given (section 3.1)."""
    warmup: int = 20
    """Steps over which the rate rises linearly from 10 % of its maximum (section 3.1); constant after that (not stated)."""
    beta1: float = 0.9
    """AdamW's (section 3.1)."""
    beta2: float = 0.95
    """AdamW's (section 3.1)."""
    weight_decay: float = 0.0
    """AdamW's (section 3.1)."""
    clip: float = 1.0
    """Largest gradient norm, 0 for none. Not stated by the paper; 1.0 is LLaMA's own pretraining (arXiv 2302.13971, 2.3)."""
    save_every: int = 200
    """Steps between checkpoints (the paper measures every 200, table 3); 0 for none before the end."""
    keep_checkpoints: int = 2
    """Checkpoints from which training can be resumed; older ones keep their model and lose their optimiser state."""
    seed: int = 0
    """Of the reading order and of everything else random."""
    resume: Flag = False
    """Go on from the newest sound checkpoint in --out, or start if there is none."""
    mask_documents: Flag = False
    """Attention ends where a document ends, and positions start again there."""
    allow_short: Flag = False
    """Train even if no document is as long as the window."""
    field: str | None = None
    """The field of a row that holds its text."""
    cp: int = 1
    """Devices that share one window (context parallel)."""
    replicas: int = 1
    """Copies of the weights, each sharded over its own devices (HSDP); as many as machines, if these are joined by a slow network."""
    device: str | None = None
    """cpu, cuda, …; the GPU if there is one."""
    threads: int | None = None
    """CPU threads; if not given, OMP_NUM_THREADS, or what a second of trying finds fastest."""
    lora_alpha: int = 16
    """Of the adapters in mode lora (LongLoRA: 16)."""
    tensorboard: Flag = False
    """Also write TensorBoard files to --out/tensorboard."""
    wandb: str | None = None
    """Also log to this Weights & Biases project."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("keep_checkpoints", "cp", "replicas", "lora_alpha"):
            check_whole(name, getattr(self, name), at_least=1)
        for name in ("warmup", "save_every", "seed"):
            check_whole(name, getattr(self, name), at_least=0)
        for name in ("threads", "current_window"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), at_least=1)
        if self.threads is not None and self.threads > _MOST_THREADS:
            raise UserError(f"threads is at most {_MOST_THREADS}, got {self.threads}; leave it out to have it chosen")
        for name in ("clip", "weight_decay"):
            _number(name, getattr(self, name), lowest=0.0)
        rate = self.learning_rate
        if rate is not None and not (isinstance(rate, int | float) and math.isfinite(rate) and rate > 0):
            raise UserError(f"a learning rate is finite and above 0, got {rate!r}; leave it out for the paper's 2e-5")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} lies in [0, 1), got {getattr(self, name)}; the paper has 0.9 and 0.95")
        if self.mode == "pose" and self.mask_documents:
            raise UserError("mode pose skips positions and a document mask restarts them; use one of the two")
        if self.resume and self.overwrite:
            raise UserError(
                "--resume goes on with what lies in --out and --overwrite throws it away; use one of the two"
            )
        self._refuse_before_loading()

    def _refuse_before_loading(self) -> None:
        """Refuse an unwritable `out`, one that holds the run's own sources, and packages that are missing."""
        refuse_unwritable(self.out)
        if self.overwrite:
            sources = [self.data] if isinstance(self.data, str | Path) else self.data
            refuse_to_lose(self.out, [self.model, *(source for source in sources if isinstance(source, str | Path))])
        needs = {
            f"optimizer {self.optimizer}": (self.optimizer != "adamw", "torchao", "low-bit"),
            f"precision {self.precision}": (self.precision == "bfloat16-stochastic", "torchao", "low-bit"),
            "--tensorboard": (self.tensorboard, "tensorboard", "log"),
            "--wandb": (self.wandb is not None, "wandb", "log"),
        }
        for what, (asked, package, extra) in needs.items():
            if asked and importlib.util.find_spec(package) is None:
                raise UserError(
                    f"{what} needs {package}, which is not installed; install ropewalk[{extra}], or leave it out"
                )

    def peak_rate(self, parameters: int) -> float:
        """The learning rate asked for, or section 3.1's for a model of this size."""
        return self.learning_rate or (1e-5 if parameters >= _LARGE_MODEL else 2e-5)

    def identity(self) -> dict[str, Any]:
        """What must not change between a run and its resumption, or the two would not be one run."""
        names = (
            "window",
            "method",
            "mode",
            "batch_size",
            "seed",
            "mask_documents",
            "optimizer",
            "lora_rank",
            "lora_alpha",
        )
        return {name: getattr(self, name) for name in (*names, "chunk_window", *parameter_names())}


def _number(name: str, value: Any, *, lowest: float) -> None:
    if not (isinstance(value, int | float) and math.isfinite(value) and value >= lowest):
        raise UserError(f"{option_name(name)} is a finite number of at least {lowest:g}, got {value!r}; change it")
