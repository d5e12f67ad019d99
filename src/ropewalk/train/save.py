"""Writing models during and after training: a checkpoint's directory, and the final model beside the records.

in   a model in training
out  Hugging Face checkpoints in the original's dtype, RoPE in every spelling, the steps taken in the `ropewalk` block
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from ropewalk import checkpoint
from ropewalk import model as models
from ropewalk.train import lora
from ropewalk.train.devices import Alone
from ropewalk.train.snapshot import STATE, Snapshots
from ropewalk.train.start import Start


def write_checkpoint(
    snapshots: Snapshots,
    step: int,
    about: dict[str, Any],
    model: Any,
    optimizer: torch.optim.Optimizer,
    begun: Start,
    devices: Alone,
) -> None:
    """Save a step: the model as every reader loads it, and the state that training goes on from."""

    def write(directory: Path) -> None:
        _write_model(directory, step, model, begun, devices)
        devices.save(model, optimizer, directory / STATE)

    snapshots.save(step, write, about)


def write_final(out: Path, step: int, model: Any, begun: Start, devices: Alone, *, same_as: Path | None) -> None:
    """Put the trained model into `out` itself. Its config.json comes last: without one a directory is no model yet.

    Args:
        same_as: a checkpoint of this very step, whose files are linked instead of written again.
    """
    with checkpoint.disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    beside = out / ".final"
    shutil.rmtree(beside, ignore_errors=True)
    if same_as is None:
        with checkpoint.whole_directory(beside) as directory:
            _write_model(directory, step, model, begun, devices)
    else:
        with checkpoint.whole_directory(beside) as directory:
            for path in same_as.iterdir():
                if path.is_file():
                    checkpoint.link_or_copy(path, directory / path.name)
    if isinstance(model, lora.peft.PeftModel):
        shutil.rmtree(out / "adapter", ignore_errors=True)
        lora.save_adapter(model, beside / "adapter", checkpoint.read_config(beside))
    for path in sorted(beside.iterdir(), key=lambda path: path.name == "config.json"):
        os.replace(path, out / path.name)
    # Not rmdir: renaming one of two links to a file over the other does nothing, and leaves it behind (POSIX rename).
    shutil.rmtree(beside)


def _write_model(directory: Path, step: int, model: Any, begun: Start, devices: Alone) -> None:
    """The plain model (adapters added in) in the dtype of the original."""
    weights = lora.merged(model) if isinstance(model, lora.peft.PeftModel) else model.state_dict()
    weights = devices.whole(weights)
    head = begun.model.get_output_embeddings()
    if head is not None and head.weight is begun.model.get_input_embeddings().weight:
        # Tied weights have two names and are written under the embedding's alone, as the original was.
        name = next(name for name, module in begun.model.named_modules() if module is head)
        weights.pop(f"{name}.weight", None)
    models.save(
        begun.model, begun.tokenizer, directory, steps=step, overwrite=True, dtype=begun.dtype, state_dict=weights
    )
