"""What training needs to go on, as files: the trained weights and the optimiser's state, in the precision they are used in.

in   a model, its optimiser, a directory
out  weights.safetensors and optimizer.safetensors (optimizer.pt, read back weights-only, where states are 8-bit blocks);
     of a sharded run a distributed checkpoint, each rank its part

Either kind is read by any number of processes.

Random numbers need no place here: each step seeds its own generators from (seed, step).
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ropewalk.distributed.mesh import Mesh
from ropewalk.distributed.state import sharded_like
from ropewalk.training.lora import load_trainable, trainable

WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.safetensors"
OPTIMIZER_LOW_BIT = "optimizer.pt"


def save(model: nn.Module, optimizer: torch.optim.Optimizer, directory: Path, mesh: Mesh) -> None:
    """Write both into a new directory. The optimiser's parameters are `trainable(model)`, in that order.

    Raises:
        UserError: a sharded state could not be written.
    """
    if mesh.world > 1:
        mesh.save(model, optimizer, directory)
        return
    directory.mkdir(parents=True)
    names = list(trainable(model))
    save_file({name: value.contiguous().cpu() for name, value in trainable(model).items()}, directory / WEIGHTS)
    state = {
        f"{names[index]}/{key}": value
        for index, entry in optimizer.state_dict()["state"].items()
        for key, value in entry.items()
    }
    if all(type(value) is torch.Tensor for value in state.values()):
        save_file({key: value.contiguous().cpu() for key, value in state.items()}, directory / OPTIMIZER)
    else:
        buffer = io.BytesIO()  # torch.save hides why a disk refuses; a plain write tells
        torch.save(state, buffer)
        (directory / OPTIMIZER_LOW_BIT).write_bytes(buffer.getbuffer())


def load(model: nn.Module, optimizer: torch.optim.Optimizer, directory: Path, mesh: Mesh) -> None:
    """Put back what `save` wrote, bit for bit."""
    if not (directory / WEIGHTS).is_file():
        mesh.load(model, optimizer, directory)
        return
    load_trainable(model, load_file(directory / WEIGHTS), directory)
    if (directory / OPTIMIZER).is_file():
        flat: dict[str, Any] = load_file(directory / OPTIMIZER)
    else:
        flat = torch.load(directory / OPTIMIZER_LOW_BIT, map_location="cpu", weights_only=True)
    parameters = trainable(model)
    index_of = {name: index for index, name in enumerate(parameters)}
    state: dict[int, dict[str, Any]] = {}
    for key, value in flat.items():
        name, entry = key.rsplit("/", 1)
        if parameters[name].device.type == "cpu":
            value = (
                value.clone()
            )  # or the state is the mapped file, whose room on the disk nobody has back while the run lasts
        state.setdefault(index_of[name], {})[entry] = sharded_like(value, parameters[name])
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
