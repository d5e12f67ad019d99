"""Weights and optimiser states of a sharded model: from the main rank, and to and from a directory, for any number of ranks.

in   a model, its optimiser, a directory
out  a distributed checkpoint: each rank writes its part; another number of ranks reads what it needs of it
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from ropewalk.checkpoint.files import disk_errors
from ropewalk.distributed import ranks
from ropewalk.errors import UserError

#: Numbers of a tensor, or of a rank's part of it, below which torchao keeps its moments in full.
_FEWEST_IN_8_BITS = 4096


def set_aside(module: nn.Module) -> dict[str, Any]:
    """A module's weights, by its names; its parameters hold nothing from then on, and are tied as they were.

    FSDP2 would move real weights to the device whole, beside the shard that `fill` puts there.
    """
    weights = module.state_dict()
    empty: dict[nn.Parameter, nn.Parameter] = {}
    for name, parameter in list(module.named_parameters(remove_duplicate=False)):
        if parameter not in empty:
            empty[parameter] = nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
        put(module, name, empty[parameter])
    return weights


def put(module: nn.Module, name: str, value: Tensor) -> None:
    """Make `value` the parameter or buffer of that name, "layers.0.weight" say."""
    path, _, last = name.rpartition(".")
    setattr(module.get_submodule(path), last, value)


def fill(model: nn.Module, weights: dict[str, Any], device: torch.device) -> None:
    """Give each rank its part of the main one's weights, one tensor at a time; every rank takes part.

    model: sharded; its buffers hold what they should, its parameters are on the meta device. weights: whole, on the main rank, by
        the model's names; empty on the others.
    """
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers(remove_duplicate=False)}
    first = {parameter: name for name, parameter in model.named_parameters()}
    tied = {name: first[p] for name, p in model.named_parameters(remove_duplicate=False) if first[p] != name}
    model.to_empty(device=device)
    for name, other in tied.items():  # FSDP2 ties what it shards, and nothing ties what it does not
        put(model, name, model.get_parameter(other))
    for name, buffer in model.named_buffers(remove_duplicate=False):
        buffer.copy_(buffers[name])
    set_model_state_dict(model, weights, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True))


def unsharded(weights: dict[str, Tensor], main: bool) -> dict[str, Tensor]:
    """Unsharded copies in the host's memory, one tensor at a time; every rank takes part, only the main one keeps them."""
    out = {}
    for name, value in weights.items():
        full = value.full_tensor() if hasattr(value, "full_tensor") else value
        if main:
            out[name] = full.detach().cpu()
    return out


def sharded_like(value: Tensor, parameter: Tensor) -> Tensor:
    """An unsharded tensor, sharded as the parameter of its shape is; anything else (a count of steps) as it is."""
    if not isinstance(parameter, DTensor) or value.shape != parameter.shape:
        return value
    value = value.to(parameter.device)
    if type(value) is not Tensor:
        return _own_blocks(value, parameter)
    return distribute_tensor(value, parameter.device_mesh, parameter.placements)


def _own_blocks(value: Any, parameter: DTensor) -> DTensor:
    """This rank's part of torchao's 8-bit blocks, which cannot be scattered: as they are, or rounded anew where a shard begins within one; in full
    precision where torchao's optimiser would have it so.
    """
    mesh, placements, block = parameter.device_mesh, parameter.placements, value.block_size
    (rows, *rest), (first, *_) = compute_local_shape_and_global_offset(parameter.shape, mesh, placements)
    count, before = rows * math.prod(rest), first * math.prod(rest)
    if count >= _FEWEST_IN_8_BITS and count % block == before % block == 0:
        part = value[first : first + rows]
    else:
        part = value.dequantize()[first : first + rows]
        if count >= _FEWEST_IN_8_BITS and count % block == 0:
            part = type(value).zeros([rows, *rest], value.signed, block, value.device).copy_(part)
    # Shapes of shards may differ by rank, so the whole one is given.
    return DTensor.from_local(part, mesh, placements, run_check=False, shape=parameter.shape, stride=parameter.stride())


def copy_from_main(parameter: Tensor, value: Tensor | None) -> None:
    """Put the main rank's value into a parameter, which all ranks hold whole or have shards of; every rank takes part.

    value: whole, wherever it lies; on the main rank alone.
    """
    whole = torch.empty(parameter.shape, dtype=parameter.dtype, device=parameter.device)
    if value is not None:
        whole.copy_(value)
    if dist.is_initialized() and not isinstance(parameter, DTensor):  # shards are sent as they are made
        dist.broadcast(whole, src=0)
    parameter.copy_(sharded_like(whole, parameter))


def save(model: nn.Module, optimizer: torch.optim.Optimizer, directory: Path) -> None:
    """Write both; with one process too, so that one process's checkpoint can be read by many.

    Raises:
        UserError: the disk refused a process's part.
    """
    directory = Path(directory)
    ranks.first(functools.partial(_make, directory))
    try:
        dcp.save(_parts(model, optimizer), checkpoint_id=directory, no_dist=not dist.is_initialized())
    except CheckpointException as error:
        first = next(iter(error.failures.values()))[0]
        raise UserError(
            f"{directory} could not be written ({first}); free some space or choose another place"
        ) from None


def _make(directory: Path) -> None:
    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)


def load(model: nn.Module, optimizer: torch.optim.Optimizer, directory: Path) -> None:
    """Put back what `save` wrote, in place."""
    parts = _parts(model, optimizer)
    dcp.load(parts, checkpoint_id=Path(directory), no_dist=not dist.is_initialized())
    set_state_dict(
        model,
        optimizer,
        model_state_dict=parts["model"],
        optim_state_dict=parts["optimizer"],
        options=StateDictOptions(strict=False),
    )


def _parts(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    # Frozen weights under an adapter come from the original model, not from here.
    options = StateDictOptions(ignore_frozen_params=True)
    weights, states = get_state_dict(model, optimizer, options=options)
    return {"model": weights, "optimizer": states}
