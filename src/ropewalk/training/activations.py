"""`--activations`: what the layers keep for the backward pass, settled on the first micro batch (recompute.py does the choosing).

in   the loss module, the shape of a micro batch, the device
out  forward and backward passes that fit into the memory there is

    auto   on a GPU everything if it fits, else what saves most work in the memory that is left, found by trying on the first micro
           batch; on a CPU everything
    full   nothing but each layer's input: a third more work, least memory
    none   everything: no work twice, most memory
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ropewalk.distributed.mesh import Mesh
from ropewalk.settings.budget import COMPILED_FLOPS, COMPILED_WEIGHTS, head_bytes
from ropewalk.training import recompute
from ropewalk.training.optimizer import moment_bytes


class ActivationMemory:
    """Runs a step's passes; the first one settles what is kept.

    loss: the loss module, not yet sharded. setting: "auto", "full" or "none". mesh: the devices. compute: dtype of the arithmetic.
    shape: of a micro batch, (windows, tokens) of one device. work: floating-point operations of the run on one device. optimizer: its
    name in the settings. accumulated: whether a step adds up the gradients of several micro batches.
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
        optimizer: str = "adamw",
        accumulated: bool = True,
    ) -> None:
        self._loss, self._mesh, self._compute = loss, mesh, compute
        self._optimizer, self._accumulated = optimizer, accumulated
        on_gpu, self._tokens = mesh.device.type == "cuda", shape[0] * shape[1]
        self._candidates: list[recompute.Candidate] = []
        #: None as soon as nothing is left to be settled.
        self._unsettled: recompute.SelectiveCheckpointing | None = None
        if setting == "none" or (setting == "auto" and not on_gpu):
            return
        large = sum(parameter.numel() for parameter in loss.parameters()) >= COMPILED_WEIGHTS
        checkpointing = recompute.SelectiveCheckpointing(loss, compiled=on_gpu and (large or work >= COMPILED_FLOPS))
        if setting == "full":
            checkpointing.keep([recompute.NOTHING] * len(checkpointing.layers))
            return
        self._unsettled = checkpointing
        with self._autocast():  # traced now, before the layers are sharded
            self._candidates = checkpointing.candidates(loss.body, *shape, device=mesh.device)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        """As a pass will compute: sharded weights are gathered in that dtype, which autocast comes near."""
        if self._compute == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self._mesh.device.type, dtype=self._compute)

    def run(self, passes: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> Tensor:
        """`passes()`, one forward and backward pass. The first time it may be run more than once, from gradients of zero."""
        checkpointing, self._unsettled = self._unsettled, None
        if checkpointing is None:
            return passes()
        room = min(self._mesh.gather(self._room(len(checkpointing.layers), optimizer)))
        if self._mesh.world > 1:
            # All devices alike, and without trying: one that ran out of memory would leave the others waiting for it.
            checkpointing.keep(checkpointing.within(self._candidates, room))
            return passes()

        def afresh() -> Tensor:
            optimizer.zero_grad(set_to_none=True)
            return passes()

        return checkpointing.fit(afresh, self._candidates, room)

    def _room(self, layers: int, optimizer: torch.optim.Optimizer) -> int:
        parameters = list(self._loss.parameters())
        config = self._loss.model.config.get_text_config()
        reserved = reserved_bytes(
            parameters, self._optimizer, accumulated=self._accumulated, resumed=bool(getattr(optimizer, "state", None))
        )
        # Under autocast float32 weights keep what flows between layers in float32; gathered in another dtype they do not.
        size = parameters[0].element_size() if self._mesh.world == 1 else self._compute.itemsize
        stream = self._tokens * config.hidden_size * size
        head = int(head_bytes(self._tokens, config.hidden_size, config.vocab_size))
        return recompute.free_bytes(
            self._mesh.device, self._candidates, layers=layers, stream=stream, head=head, reserved=reserved
        )


def reserved_bytes(parameters: list[nn.Parameter], optimizer: str, *, accumulated: bool, resumed: bool) -> int:
    """Bytes of this device that are not taken before the first step and stay: AdamW's moments, copies in bfloat16, gradients.

    optimizer: as `TrainSettings` names it. accumulated: whether gradients of one micro batch are there while the next one goes
    forward; if not, they come as kept results go. resumed: whether the moments are there already.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    reserved = sum(_local(p) * p.element_size() for p in trained) if accumulated else 0
    if not resumed:
        reserved += sum(int(_local(p) * moment_bytes(optimizer, p)) for p in trained)
    if torch.float32 in {parameter.dtype for parameter in parameters}:  # autocast's copies
        reserved += sum(2 * _local(p) for p in parameters)
    return reserved


def _local(parameter: nn.Parameter) -> int:
    """Elements on this device: all of them, or a shard's."""
    sharded: Any = parameter
    return sharded.to_local().numel() if hasattr(sharded, "to_local") else sharded.numel()
