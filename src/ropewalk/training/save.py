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

from ropewalk.checkpoint.files import disk_errors, link_or_copy, read_config, whole_directory
from ropewalk.distributed.mesh import Mesh
from ropewalk.model.save import save_model
from ropewalk.training import lora, training_state
from ropewalk.training.checkpoints import STATE, Snapshots
from ropewalk.training.devices import together
from ropewalk.training.setup import Start


def write_checkpoint(
    snapshots: Snapshots,
    step: int,
    about: dict[str, Any],
    model: Any,
    optimizer: torch.optim.Optimizer,
    begun: Start,
    mesh: Mesh,
) -> None:
    """Save a step: the model as every reader loads it, and the state that training goes on from.

    Every process comes here. Each writes its part of the state, into one place; the main one adds the model and lets the whole
    appear.

    Raises:
        UserError: on every process, if the disk refuses any of them.
    """
    parts = snapshots.root / f".{snapshots.path(step).name}.parts.partial"
    weights = _plain_weights(model, begun, mesh)
    if mesh.main:
        shutil.rmtree(parts, ignore_errors=True)
    mesh.wait()

    def write(directory: Path) -> None:
        _write_model(directory, step, weights, begun)
        os.rename(parts, directory / STATE)

    try:
        with disk_errors(snapshots.path(step)):
            training_state.save(model, optimizer, parts, mesh)
        together(mesh, lambda: snapshots.save(step, write, about) if mesh.main else None)
    finally:
        if mesh.main:
            shutil.rmtree(parts, ignore_errors=True)


def write_final(out: Path, step: int, model: Any, begun: Start, mesh: Mesh, *, same_as: Path | None) -> None:
    """Put the trained model into `out` itself. Its config.json comes last: without one a directory is no model yet.

    Args:
        same_as: a checkpoint of this very step, whose files are linked instead of written again.
    """
    is_adapted = isinstance(model, lora.peft.PeftModel)
    weights = None if same_as is not None else _plain_weights(model, begun, mesh)
    adapter = mesh.whole(lora.trainable(model)) if is_adapted else None

    def write() -> None:
        beside = out / ".final"
        for left in [beside, *out.glob(f".{beside.name}.*.partial")]:  # by a run that was killed while it wrote
            shutil.rmtree(left, ignore_errors=True)
        with whole_directory(beside) as directory:
            if weights is not None:
                _write_model(directory, step, weights, begun)
            else:
                _link(same_as or out, directory)
            if adapter is not None:
                lora.save_adapter(model, adapter, directory / "adapter", read_config(directory))
        shutil.rmtree(out / "adapter", ignore_errors=True)
        for path in sorted(beside.iterdir(), key=lambda path: path.name == "config.json"):
            os.replace(path, out / path.name)
        # Not rmdir: renaming one of two links to a file over the other does nothing, and leaves it behind (POSIX rename).
        shutil.rmtree(beside)

    together(mesh, lambda: write() if mesh.main else None)


def _link(source: Path, target: Path) -> None:
    for path in source.iterdir():
        if path.is_file():
            link_or_copy(path, target / path.name)


def _plain_weights(model: Any, begun: Start, mesh: Mesh) -> dict[str, torch.Tensor]:
    """The plain model's weights, adapters added in, whole and on the main process."""
    weights = mesh.whole(begun.model.state_dict())
    if not weights:
        return {}
    if isinstance(model, lora.peft.PeftModel):
        weights = lora.merged(model, weights)
    head = begun.model.get_output_embeddings()
    if head is not None and head.weight is begun.model.get_input_embeddings().weight:
        # Tied weights have two names and are written under the embedding's alone, as the original was.
        name = next(name for name, module in begun.model.named_modules() if module is head)
        weights.pop(f"{name}.weight", None)
    return weights


def _write_model(directory: Path, step: int, weights: dict[str, torch.Tensor], begun: Start) -> None:
    """A Hugging Face checkpoint in the dtype of the original."""
    save_model(
        begun.model, begun.tokenizer, directory, steps=step, overwrite=True, dtype=begun.dtype, state_dict=weights
    )
