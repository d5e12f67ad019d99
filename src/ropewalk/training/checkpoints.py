"""Models written during and after training: what a checkpoint holds (snapshots.py keeps it), and the final model.

in   a model in training, and a directory
out  `checkpoints/step-000200/`: a Hugging Face checkpoint that every measurement loads, and in `state/` what training needs to go on;
     at the end the model itself, in the same form

    step-000200/config.json, model.safetensors, tokenizer.json, …     each tensor rounded to its dtype in the original
    step-000200/state/weights.safetensors                             what is trained, as the optimiser has it (float32)
    step-000200/state/optimizer.safetensors                           AdamW's two moments
    step-000200/state/manifest.json                                   step, the run, and the SHA-256 of every file above
"""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch

from ropewalk.checkpoint import half_written, marks
from ropewalk.checkpoint.digests import noted_digests
from ropewalk.checkpoint.files import disk_errors, link_or_copy, read_config, whole_directory_of_ours
from ropewalk.distributed import ranks
from ropewalk.distributed.mesh import Mesh
from ropewalk.model.save import save_model
from ropewalk.training import disk, frozen, lora, training_state
from ropewalk.training.setup import StartingModel
from ropewalk.training.snapshots import STATE, Snapshots


def write_checkpoint(
    snapshots: Snapshots,
    step: int,
    about: dict[str, Any],
    model: Any,
    optimizer: torch.optim.Optimizer,
    start: StartingModel,
    mesh: Mesh,
) -> None:
    """Save a step: the model as every reader loads it, and the state that training goes on from.

    Every process comes here. Each writes its part of the state, into one place; the main one adds the model and lets the whole
    appear.

    Raises:
        UserError: on every process, if the disk refuses any of them.
    """
    parts = ranks.first(lambda: half_written.beside(snapshots.path(step)))
    weights = plain_weights(model, start, mesh)

    def write(directory: Path) -> None:
        _write_model(directory, step, weights, start)
        os.rename(parts, directory / STATE)

    states = (value for each in optimizer.state.values() for value in each.values() if isinstance(value, torch.Tensor))
    trained = (weight for group in optimizer.param_groups for weight in group["params"])
    state = disk.weight_bytes((*trained, *states))
    with disk.filling(
        snapshots.root, disk.model_bytes(start.source) + state
    ):  # what is free without what was half written
        try:
            with disk_errors(snapshots.path(step)):
                training_state.save(model, optimizer, parts, mesh)
            ranks.together(lambda: snapshots.save(step, write, about) if mesh.main else None)
        finally:
            if mesh.main:
                shutil.rmtree(parts, ignore_errors=True)


def write_final(out: Path, step: int, model: Any, start: StartingModel, mesh: Mesh, *, same_as: Path | None) -> None:
    """Put the trained model into `out` itself. Its config.json comes last: without one a directory is no model yet.

    Args:
        same_as: a checkpoint of this very step, whose files are linked instead of written again.
    """
    is_adapted = isinstance(model, lora.peft.PeftModel)
    # First what all take part in: what follows on the main process alone may fail there.
    adapter = mesh.unsharded(lora.trainable(model)) if is_adapted else None
    weights = None if same_as is not None else plain_weights(model, start, mesh)

    def write() -> None:
        beside = out / half_written.FINAL
        for left in [beside, *out.glob(f".{beside.name}.*.partial")]:  # by a run that was killed while it wrote
            half_written.remove(left)
        with whole_directory_of_ours(beside, sources=[same_as] if same_as else []) as directory:
            if weights is not None:
                _write_model(directory, step, weights, start)
            else:
                _link(same_as or out, directory)
            if adapter is not None:
                lora.save_adapter(
                    model,
                    adapter,
                    directory / "adapter",
                    read_config(directory),
                    start.info.name,
                    start.source.weights_fingerprint,
                )
        _put_in_place(beside, out)

    model_size = disk.model_bytes(start.source) if same_as is None else disk.beside_weights(start.source.path)
    with disk.filling(out, model_size + disk.weight_bytes((adapter or {}).values())):
        ranks.together(lambda: write() if mesh.main else None)


def _put_in_place(beside: Path, out: Path) -> None:
    """Move a model into its run's directory, whose mark lists it from then on; what somebody else put there is renamed."""
    made, ours = marks.marked(beside) or [], marks.marked(out) or []
    for name in ("config.json", "adapter"):  # first of all an earlier model is none any more
        _clear(out / name, ours)
    if ours:
        before = {name: digest for name, digest in noted_digests(out).items() if (out / name).is_file()}
        marks.mark(out, [*ours, *made], digests=before | noted_digests(beside))
    for path in sorted(beside.iterdir(), key=lambda path: path.name == "config.json"):
        if path.name != marks.MARK:
            _clear(out / path.name, ours)
            os.replace(path, out / path.name)
    # Not rmdir: renaming one of two links to a file over the other does nothing, and leaves it behind (POSIX rename).
    shutil.rmtree(beside)


def _clear(path: Path, ours: list[str]) -> None:
    """Make way: what this run made is deleted, anything else renamed."""
    files = [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]
    files = [file for file in files if file.is_symlink() or file.is_file()]
    if all(marks.is_listed(marks.listed_as(file, file.relative_to(path.parent).as_posix()), ours) for file in files):
        half_written.remove(path)
    else:
        warnings.warn(f"{path} is not this run's; it is called {half_written.set_aside(path).name} now", stacklevel=2)


def _link(source: Path, target: Path) -> None:
    """A checkpoint's model: its weights as links, what a user may edit as copies."""
    for path in source.iterdir():
        if path.name == marks.MARK:
            continue
        if path.is_file():
            (link_or_copy if path.suffix == ".safetensors" else shutil.copyfile)(path, target / path.name)
        elif path.name != STATE:
            shutil.copytree(path, target / path.name)


def plain_weights(model: Any, start: StartingModel, mesh: Mesh) -> dict[str, torch.Tensor]:
    """The plain model's weights, adapters added in, whole and on the main process."""
    weights = mesh.unsharded(start.model.state_dict())
    if not weights:
        return {}
    weights = frozen.as_stored(start.model, weights, start.source)
    if isinstance(model, lora.peft.PeftModel):
        weights = lora.merged(model, weights)
    head = start.model.get_output_embeddings()
    if head is not None and head.weight is start.model.get_input_embeddings().weight:
        # Tied weights have two names and are written under the embedding's alone, as the original was.
        name = next(name for name, module in start.model.named_modules() if module is head)
        weights.pop(f"{name}.weight", None)
    return weights


def _write_model(directory: Path, step: int, weights: dict[str, torch.Tensor], start: StartingModel) -> None:
    """A Hugging Face checkpoint with the dtypes and the tokenizer's files of the original."""
    save_model(
        start.model,
        start.tokenizer,
        directory,
        positions=start.positions,
        steps=step,
        overwrite=True,
        state_dict=weights,
        source=start.source,
        chunk=start.chunk,
    )
