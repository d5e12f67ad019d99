"""A model that is measured with its layers sharded over all processes, each of which reads something else.

in   an open checkpoint, under torchrun
out  the model: the weights of each decoder layer are sharded (FSDP2), and whole only while that layer computes; embedding, head and
     last norm, which measuring also reads outside of a pass, are whole everywhere

**Company.** All processes gather a sharded layer together, so each takes part in every pass of any of them. Before a pass, a process
says the number of its model. The lowest number that is said goes first: who said another one sends a single token through that model,
which is all of the gathering and next to none of the arithmetic, and then says its own again. Who has nothing to read says so wherever
processes meet (ranks.py), and keeps the others company until all have come there. So work is shared out as it is
for whole models, and comes to the same figures; a process that fails ends the others' wait by torchrun, as it does in any meeting.
"""

from __future__ import annotations

import functools
import itertools
import weakref
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.quantisation import quantisation
from ropewalk.distributed import mesh as meshes
from ropewalk.distributed import ranks, state
from ropewalk.distributed.load import load
from ropewalk.errors import UserError
from ropewalk.model.devices import device_for, dtype_for, free_bytes
from ropewalk.model.layers import decoder_layers
from ropewalk.model.verify import verify_positions
from ropewalk.settings.budget import WHOLE_SHARE
from ropewalk.settings.options import Shard

#: What a process says that has nothing to read.
_NOTHING = 2**31
_numbers = itertools.count()
#: Models in memory by their number, the same on every process. Weak, so that one that is done with gives its memory back.
_spread: weakref.WeakValueDictionary[int, nn.Module] = weakref.WeakValueDictionary()


def is_spread(shard: Shard, checkpoint: Checkpoint, dtype: Any = None, device: Any = None) -> bool:
    """Whether a model is to be sharded: as asked for, or where its weights take more of some process's memory than `WHOLE_SHARE`.

    dtype, device: as in `load_model`.

    Raises:
        UserError: asked for and impossible: one process alone, weights that are quantised on disk.
    """
    ranks.join()
    impossible = ""
    if ranks.size() == 1:
        impossible = "this is one process alone; start it with torchrun"
    elif quantised := quantisation(checkpoint):
        impossible = (
            f"those of {checkpoint} are quantised ({quantised}) and held whole; name the model they were made from"
        )
    if impossible and shard == "on":
        raise UserError(f"--shard on shares plain weights out over processes, and {impossible}, or leave --shard out")
    if impossible or shard != "auto":
        return not impossible and shard == "on"
    target = device_for(device)
    room = free_bytes(target) / (1 if target.type == "cuda" else ranks.local_size())
    large = checkpoint.parameters * dtype_for(dtype, target).itemsize > WHOLE_SHARE * room
    return any(ranks.gathered({ranks.rank(): large}).values())


def load_spread(checkpoint: Checkpoint, dtype: Any = None, device: Any = None) -> Any:
    """Load a model that one process reads and all hold together, verified, in evaluation mode.

    dtype, device: as in `load_model`.

    Raises:
        UserError: what `load_model` raises; a family without a list of decoder layers. On every process.
    """
    target = device_for(device)
    mesh = _mesh(target.type)
    model: Any = load(checkpoint, mesh, dtype=dtype_for(dtype, target), device=mesh.device)
    _shard(model, mesh)
    verify_positions(model, checkpoint.positions)
    return model


@functools.cache
def _mesh(kind: str) -> meshes.Mesh:
    """All processes, who meet as a mesh once."""
    return meshes.start(device=kind)


def _shard(model: Any, mesh: meshes.Mesh) -> None:
    """Spread the weights that the main process holds, and have all processes keep each other company from then on."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model.requires_grad_(False)
    layers, body = decoder_layers(model), model.base_model
    weights = state.set_aside(model) if mesh.main else {}
    devices = init_device_mesh(mesh.device.type, (mesh.world,))
    for layer in layers:
        fully_shard(layer, mesh=devices, reshard_after_forward=True)
    in_layers = {parameter for layer in layers for parameter in layer.parameters()}
    # The root, which has layers gathered ahead of their turn, and no weights of its own.
    fully_shard(body, mesh=devices, ignored_params=set(model.parameters()) - in_layers)
    state.fill(model, weights, mesh.device)
    number = next(_numbers)
    _spread[number] = body
    body.register_forward_pre_hook(lambda *_: _take_turns(number), prepend=True)
    ranks.before_meetings(_keep_company)
    # At once, so that what cannot work shows now; and outside of inference mode, whose tensors could be written to nowhere else.
    with torch.no_grad():
        _pass_one_token(body)


#: Whether this process is passing a token for the others' sake, of which nobody need be told.
_in_company = False


def _keep_company() -> None:
    """Take part in the others' passes until all have said that they have nothing to read."""
    _take_turns(_NOTHING)


def _take_turns(wanted: int) -> None:
    """Take part in the others' passes until it is the turn of the model `wanted`."""
    if _in_company:
        return
    while (turn := _lowest(wanted)) != wanted:
        with torch.inference_mode():
            _pass_one_token(_spread[turn])


def _lowest(number: int) -> int:
    lowest = torch.tensor(number)
    dist.all_reduce(lowest, op=dist.ReduceOp.MIN)
    return int(lowest)


def _pass_one_token(body: Any) -> None:
    global _in_company
    _in_company = True
    try:
        device = body.get_input_embeddings().weight.device
        body(input_ids=torch.zeros(1, 1, dtype=torch.long, device=device), use_cache=False)
    finally:
        _in_company = False
