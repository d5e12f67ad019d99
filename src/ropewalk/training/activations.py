"""`--activations`: what the layers keep for the backward pass (recompute.py does the choosing).

in   the loss module, the shape of a micro batch, the device
out  layers that keep what the memory there is holds; less, each time a step finds that it was too much

    auto   on a GPU everything if it fits, else what saves most work in the memory that is left; on a CPU everything
    full   nothing but each layer's input: a third more work, least memory
    none   everything: no work twice, most memory
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import nn

from ropewalk.distributed.mesh import Mesh
from ropewalk.settings.budget import COMPILED_FLOPS, COMPILED_WEIGHTS, head_bytes
from ropewalk.training import recompute


class ActivationMemory:
    """What the layers of a run keep.

    loss: the loss module, not yet sharded. setting: "auto", "full" or "none". mesh: the devices. compute: dtype of the arithmetic.
    shape: of a micro batch, (windows, tokens) of one device. work: floating-point operations of the run on one device.
    accumulated: whether a step adds up the gradients of several micro batches.
    """

    def __init__(
        self,
        loss: Any,
        setting: str,
        mesh: Mesh,
        compute: torch.dtype,
        shape: tuple[int, int],
        *,
        work: float = 0.0,
        accumulated: bool = True,
    ) -> None:
        self._loss, self._setting, self._mesh, self._compute, self._shape = loss, setting, mesh, compute, shape
        self._accumulated, self._on_gpu = accumulated, mesh.device.type == "cuda"
        large = sum(parameter.numel() for parameter in loss.parameters()) >= COMPILED_WEIGHTS
        compiled = self._on_gpu and (large or work >= COMPILED_FLOPS)
        self._checkpointing = None if setting == "none" else recompute.SelectiveCheckpointing(loss, compiled=compiled)
        #: None until the layers were traced, which is before they are sharded. On a CPU that is left until less must be kept.
        self._candidates: list[recompute.Candidate] | None = None
        if setting == "auto" and self._on_gpu:
            self._candidates = self._traced()

    def _traced(self) -> list[recompute.Candidate]:
        assert self._checkpointing is not None
        with self._autocast():
            return self._checkpointing.candidates(self._loss.body, *self._shape, device=self._mesh.device)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        """As a pass will compute: sharded weights are gathered in that dtype, which autocast comes near."""
        if self._compute == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self._mesh.device.type, dtype=self._compute)

    def settle(self) -> None:
        """Choose what is kept, before the first pass, when all that stays is in memory; on all devices alike."""
        if self._checkpointing is None:
            return
        if self._setting == "full":
            self._checkpointing.settle([], 0)
        elif self._candidates is not None:
            self._checkpointing.settle(self._candidates, min(self._mesh.gather(self._room(self._candidates))))

    def lower(self) -> bool:
        """Keep less from the next pass on; False if nothing is left that could be given up."""
        if self._checkpointing is None:
            return False
        if self._setting == "auto" and self._candidates is None:  # on a CPU, where everything was kept until now
            if self._mesh.world > 1:
                return False
            self._candidates = self._traced()
            everything = len(self._checkpointing.layers) * self._checkpointing.layer_bytes
            self._checkpointing.settle(self._candidates, everything)
        return self._checkpointing.lower()

    def _room(self, candidates: list[recompute.Candidate]) -> int:
        assert self._checkpointing is not None
        parameters, tokens = list(self._loss.parameters()), self._shape[0] * self._shape[1]
        config = self._loss.model.config.get_text_config()
        # Under autocast float32 weights keep what flows between layers in float32; gathered in another dtype they do not.
        size = parameters[0].element_size() if self._mesh.world == 1 else self._compute.itemsize
        return recompute.free_bytes(
            self._mesh.device,
            candidates,
            layers=len(self._checkpointing.layers),
            stream=tokens * config.hidden_size * size,
            head=int(head_bytes(tokens, config.hidden_size, config.vocab_size)),
            reserved=reserved_bytes(parameters, accumulated=self._accumulated),
        )


def reserved_bytes(parameters: list[nn.Parameter], *, accumulated: bool) -> int:
    """Bytes of this device that are not taken before the first pass, and are needed beside what is kept: copies in bfloat16, gradients.

    accumulated: whether gradients of one micro batch are there while the next one goes forward (settings/budget.py).
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    reserved = sum(_local(p) * p.element_size() for p in trained) if accumulated else 0
    if torch.float32 in {parameter.dtype for parameter in parameters}:  # autocast's copies
        reserved += sum(2 * _local(p) for p in parameters)
    return reserved


def _local(parameter: nn.Parameter) -> int:
    """Elements on this device: all of them, or a shard's."""
    sharded: Any = parameter
    return sharded.to_local().numel() if hasattr(sharded, "to_local") else sharded.numel()
