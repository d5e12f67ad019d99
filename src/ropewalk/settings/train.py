"""What a training run is asked to do: the paper's recipe as defaults, and every value checked before anything is loaded.

Section numbers are those of Chen et al. 2023, arXiv 2306.15595. What the paper leaves open says so.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ropewalk.checkpoint.files import refuse_to_lose, refuse_unwritable
from ropewalk.data.documents import Document
from ropewalk.errors import UserError

Mode = Literal["full", "lora", "pose"]
TrainMethod = Literal["linear", "ntk", "yarn", "auto", "plain"]
Precision = Literal["auto", "float32", "bfloat16", "bfloat16-stochastic"]
Optimizer = Literal["adamw", "adamw-8bit", "adamw-offload"]

#: 33B and 65B train at half the rate of 7B and 13B (section 3.1); the border lies between 13 and 33 thousand million.
_LARGE = 20e9
#: Far more than any machine has cores; from some tens of thousands on, OpenMP crashes without a word.
_MOST_THREADS = 1024


@dataclass(frozen=True)
class TrainSettings:
    """One training run.

    Attributes:
        model: `hemp`, a local directory or a hub id.
        data: files, directories or data-set ids; documents, when called from Python.
        window: tokens, L'; the model is extended to it first if its own window is shorter.
        steps: optimiser steps in all (section 3.1: 1000 for Position Interpolation, 10000 for direct fine-tuning).
        out: a directory: the trained model, its checkpoints, records.jsonl.
        method: how the model is extended; "plain" extends nothing and trains on positions past L (direct fine-tuning).
        mode: "full" trains every weight (section 3.1); "lora" low-rank adapters, embeddings and norms (LongLoRA, arXiv 2309.12307,
            section 3.3); "pose" every weight at the short window, with skipped positions (PoSE, arXiv 2309.10400).
        batch_size: windows per optimiser step, over all devices (section 3.1: 64 up to 8192 tokens, else 128).
        micro_batch: windows in memory at a time on one device; chosen by window and device if not given.
        learning_rate: at its maximum; 2e-5, or 1e-5 from 33B parameters on, if not given (section 3.1).
        warmup: steps over which the rate rises linearly from 10 % of its maximum (section 3.1); constant after that (not stated).
        beta1, beta2, weight_decay: AdamW's (section 3.1).
        clip: largest gradient norm, 0 for none. Not stated by the paper; 1.0 is LLaMA's own pretraining (arXiv 2302.13971, 2.3).
        save_every: steps between checkpoints (the paper measures every 200, table 3); 0 for none before the end.
        keep: checkpoints from which training can be resumed; older ones keep their model and lose their optimiser state.
        seed: of the reading order and of everything else random.
        resume: go on from the newest sound checkpoint in `out`, or start if there is none.
        mask_documents: attention ends where a document ends, and positions start again there.
        allow_short: train even if no document is as long as the window.
        field: the field of a row that holds its text.
        precision: "float32" everywhere; "bfloat16": float32 weights, bfloat16 arithmetic; "bfloat16-stochastic": bfloat16 weights,
            updates rounded stochastically. "auto" is float32 on a CPU and bfloat16 on a GPU.
        optimizer: "adamw"; "adamw-8bit" keeps its states in 8 bits, "adamw-offload" in the host's memory (both need torchao).
        cp: devices that share one window (context parallel).
        replicas: copies of the weights, each sharded over its own devices (HSDP); for machines joined by a slow network.
        memory: what layers keep for the backward pass: "auto" what fits, "full" checkpointing, "none" of it (keep.py).
        device: "cpu", "cuda", ...; the GPU if there is one.
        threads: CPU threads; if not given, OMP_NUM_THREADS, or what a second of trying finds fastest.
        lora_rank, lora_alpha: of the adapters (LongLoRA: 8 and 16).
        chunk_window: tokens in memory in mode "pose"; the model's original window if not given.
        tensorboard: also write TensorBoard files to `out`/tensorboard.
        wandb: also log to this Weights & Biases project.
        overwrite: replace `out` if it exists.
    """

    model: str | Path
    data: str | Path | Sequence[str | Path] | Sequence[Document]
    window: int
    out: str | Path
    steps: int = 1000
    method: TrainMethod = "linear"
    mode: Mode = "full"
    batch_size: int = 64
    micro_batch: int | None = None
    learning_rate: float | None = None
    warmup: int = 20
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.0
    clip: float = 1.0
    save_every: int = 200
    keep: int = 2
    seed: int = 0
    resume: bool = False
    mask_documents: bool = False
    allow_short: bool = False
    field: str | None = None
    precision: Precision = "auto"
    optimizer: Optimizer = "adamw"
    cp: int = 1
    replicas: int = 1
    memory: str = "auto"
    device: str | None = None
    threads: int | None = None
    lora_rank: int = 8
    lora_alpha: int = 16
    chunk_window: int | None = None
    tensorboard: bool = False
    wandb: str | None = None
    overwrite: bool = False
    current_window: int | None = None
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        for name in ("window", "steps", "batch_size", "keep", "cp", "replicas", "lora_rank", "lora_alpha"):
            _whole(name, getattr(self, name), at_least=1)
        for name in ("warmup", "save_every", "seed"):
            _whole(name, getattr(self, name), at_least=0)
        for name in ("micro_batch", "threads", "chunk_window", "current_window"):
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name), at_least=1)
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
        if self.mode not in ("full", "lora", "pose"):
            raise UserError(f"a mode is full, lora or pose, got {self.mode!r}; full trains every weight")
        if self.optimizer not in get_args(Optimizer):
            raise UserError(
                f"an optimizer is one of {', '.join(get_args(Optimizer))}, got {self.optimizer!r}; use adamw"
            )
        if self.mode == "pose" and self.mask_documents:
            raise UserError("mode pose skips positions and a document mask restarts them; use one of the two")
        if self.chunk_window is not None and self.mode != "pose":
            raise UserError(
                f"chunk-window is mode pose's, and this is mode {self.mode}; add --mode pose or leave it out"
            )
        if self.chunk_window is not None and self.chunk_window >= self.window:
            raise UserError(
                f"mode pose skips positions between a short window and a long one, and chunk-window {self.chunk_window} is not shorter "
                f"than window {self.window}; ask for a shorter one, or use mode full"
            )
        if self.resume and self.overwrite:
            raise UserError(
                "--resume goes on with what lies in --out and --overwrite throws it away; use one of the two"
            )
        self._refuse_what_cannot_end_well()

    def _refuse_what_cannot_end_well(self) -> None:
        """What would otherwise show only when the model is loaded, or an old `out` is gone."""
        refuse_unwritable(self.out)
        if self.overwrite:
            named = [self.data] if isinstance(self.data, str | Path) else self.data
            refuse_to_lose(self.out, [self.model, *(one for one in named if isinstance(one, str | Path))])
        needed = {
            f"optimizer {self.optimizer}": (self.optimizer != "adamw", "torchao", "low-bit"),
            f"precision {self.precision}": (self.precision == "bfloat16-stochastic", "torchao", "low-bit"),
            "--tensorboard": (self.tensorboard, "tensorboard", "log"),
            "--wandb": (self.wandb is not None, "wandb", "log"),
        }
        for what, (asked, package, extra) in needed.items():
            if asked and importlib.util.find_spec(package) is None:
                raise UserError(
                    f"{what} needs {package}, which is not installed; install ropewalk[{extra}], or leave it out"
                )

    def peak_rate(self, parameters: int) -> float:
        """The learning rate asked for, or section 3.1's for a model of this size."""
        return self.learning_rate or (1e-5 if parameters >= _LARGE else 2e-5)

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
        return {name: getattr(self, name) for name in (*names, "chunk_window")}


def _whole(name: str, value: Any, *, at_least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise UserError(f"{name.replace('_', '-')} is a whole number of at least {at_least}, got {value!r}; change it")


def _number(name: str, value: Any, *, lowest: float) -> None:
    if not (isinstance(value, int | float) and math.isfinite(value) and value >= lowest):
        raise UserError(f"{name.replace('_', '-')} is a finite number of at least {lowest:g}, got {value!r}; change it")
