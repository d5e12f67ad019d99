"""The model of a run as each of its processes begins with it: read once, however many they are.

in   an open checkpoint
out  one process: the model, on its device
     several: the model on the CPU of the main process; on the others the same model with parameters that hold nothing yet (on the
     meta device), which `Mesh.shard` fills

A model whose shards fit need not fit as a whole: not on a GPU, nor in the host's memory once for each of its processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.distributed import ranks
from ropewalk.distributed.mesh import Mesh
from ropewalk.distributed.state import put
from ropewalk.errors import UserError
from ropewalk.model.architecture import has_attention
from ropewalk.model.load import load_model
from ropewalk.model.verify import laid_out


def load(
    checkpoint: Checkpoint, mesh: Mesh | None, *, dtype: torch.dtype, device: torch.device
) -> transformers.PreTrainedModel:
    """Load a causal language model, verified, in evaluation mode, with SDPA attention.

    mesh: the processes that share the model; None is one. device: where one process has it.

    Raises:
        UserError: what `model.load` raises; the processes do not build the same model. On every process.
    """
    if mesh is None or mesh.world == 1:
        return load_model(checkpoint, dtype=dtype, device=device, attention="sdpa")

    def build() -> Any:
        if not mesh.main:
            return _without_weights(checkpoint, dtype)
        return load_model(checkpoint, dtype=dtype, device="cpu", attention="sdpa")

    model = ranks.together(build)
    outline = ranks.same(_outline(model) if mesh.main else None)
    ranks.together(lambda: None if mesh.main else _lay_out_as_main(model, outline))
    return model


@dataclass(frozen=True)
class _Outline:
    """Everything about a loaded model that its config leaves open, but for the weights.

    parameters: by name, the first name of the same tensor (another one where weights are tied), shape and dtype.
    buffers: by name, on the CPU; rotary tables among them.
    """

    parameters: dict[str, tuple[str, torch.Size, torch.dtype]]
    buffers: dict[str, Tensor]


def _outline(model: nn.Module) -> _Outline:
    first: dict[Tensor, str] = {}
    parameters = {
        name: (first.setdefault(value, name), value.shape, value.dtype)
        for name, value in model.named_parameters(remove_duplicate=False)
    }
    return _Outline(parameters, dict(model.named_buffers(remove_duplicate=False)))


def _without_weights(checkpoint: Checkpoint, dtype: torch.dtype) -> Any:
    attention = {"attn_implementation": "sdpa"} if has_attention(checkpoint, "sdpa") else {}
    return laid_out(checkpoint, dtype=dtype, **attention).eval()


def _lay_out_as_main(model: nn.Module, main: _Outline) -> None:
    """Lay a model without weights out as the main process's: what is tied, and in which dtypes, shows only in loading."""
    outline = _outline(model)
    different = set(outline.parameters) ^ set(main.parameters) or set(outline.buffers) ^ set(main.buffers)
    if different:
        raise UserError(
            f"every process builds the same model, but {min(different)} is not in all of them; install the same transformers "
            "on every machine"
        )
    empty: dict[str, nn.Parameter] = {}
    for name, (first, shape, dtype) in main.parameters.items():
        if first == name:
            empty[name] = nn.Parameter(torch.empty(shape, dtype=dtype, device="meta"))
        put(model, name, empty[first])
    for name, value in main.buffers.items():
        put(model, name, value)
