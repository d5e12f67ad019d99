"""`--activations`: what the layers keep for the backward pass (recompute.py does the choosing).

in   the loss module, the shape of a micro batch, the device
out  layers that keep what the memory there is holds; less, each time a step finds that it was too much

    auto   on a GPU everything if it fits, else what saves most work in the memory that is left; on a CPU everything
    full   nothing but each layer's input: a third more work, least memory
    none   everything: no work twice, most memory

MLPs go in tiles of the sequence where the window is long, and in small ones where a step would not fit else, unless everything is kept.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ropewalk.attention_ops.transformers import attend_in_blocks, attends_in_blocks, is_replaceable
from ropewalk.distributed import ranks
from ropewalk.distributed.mesh import Mesh
from ropewalk.model.layers import key_width, layout_of, query_width
from ropewalk.planner.chips import SUSTAINED
from ropewalk.planner.choice import Room
from ropewalk.settings.budget import (
    COMPILED_FLOPS,
    COMPILED_WEIGHTS,
    SHARED_MARGIN,
    copied_bytes,
    head_bytes,
    host_room,
    mlp_tiles,
    shared_window_bytes,
    sliding_bytes,
    spare_after_a_step,
    stream_size,
    unpacked_bytes,
    unsharded_bytes,
)
from ropewalk.training import low_bits, recompute, throughput
from ropewalk.training.host_link import link_rate

_logger = logging.getLogger(__name__)


class ActivationMemory:
    """What the layers of a run keep.

    loss: the loss module, not yet sharded. setting: "auto", "full" or "none". mesh: the devices. compute: dtype of the arithmetic.
    shape: of a micro batch, (windows, tokens) of one device. work: floating-point operations of the run on one device.
    accumulated: whether a step adds up the gradients of several micro batches. documents: whether attention ends within a row, so that layers
    that slide are given a mask. short: as in `Settled`. adapters: whether they are what is trained.
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
        documents: bool = False,
        short: bool = False,
        adapters: bool = False,
    ) -> None:
        self._loss, self._setting, self._mesh, self._compute, self._shape = loss, setting, mesh, compute, shape
        self._accumulated, self._documents, self._on_gpu = accumulated, documents, mesh.device.type == "cuda"
        self._short, self._adapters = short, adapters
        large = sum(parameter.numel() for parameter in loss.parameters()) >= COMPILED_WEIGHTS
        compiled = self._on_gpu and (large or work >= COMPILED_FLOPS)
        self._checkpointing = None if setting == "none" else recompute.SelectiveCheckpointing(loss, compiled=compiled)
        #: Whether the layers were traced, which is before they are sharded. On a CPU that is left until less must be kept.
        self._traced = self._stepped = False
        if setting == "auto" and self._on_gpu:
            self._trace()

    def _trace(self) -> None:
        assert self._checkpointing is not None
        self._traced = True
        if (attends_in_blocks if self._documents else is_replaceable)(self._loss.model):
            attend_in_blocks(self._loss.model)  # as in the steps, where layers that slide have no mask
        with self._autocast():
            mesh = self._mesh
            self._checkpointing.candidates(self._loss.body, *self._shape, device=mesh.device, sharing=mesh.context_size)

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
            self._checkpointing.settle_least(math.prod(self._shape) * self._on_gpu, short=self._short)
        elif self._traced:
            room = self._room()
            everyone = ranks.everyones(room)
            least = {"card": min(each.card for each in everyone), "host": min(each.host for each in everyone)}
            self._checkpointing.settle(replace(room, **least), short=self._short)
        self._say_tiles(mlp_tiles(math.prod(self._shape)))

    def lower(self, tried: int = 0) -> bool:
        """Keep less from the next pass on; False if nothing is left that could be given up. tried: as in `Settled.lower`."""
        if self._checkpointing is None:
            return False
        self._stepped = True  # a step that had to be begun again leaves nothing to spare
        if self._setting == "auto" and not self._traced:  # on a CPU, where everything was kept until now
            if self._mesh.world > 1:
                return False
            self._trace()
            self._checkpointing.settle(Room(len(self._checkpointing.layers) * self._checkpointing.layer.everything))
        before = self._checkpointing.tiles.count
        lower = self._checkpointing.lower(tried)
        self._say_tiles(before)
        return lower

    def _say_tiles(self, before: int) -> None:
        """Say it where MLPs go in more tiles than before."""
        assert self._checkpointing is not None
        tiles = self._checkpointing.tiles.count
        if tiles > before and self._mesh.main:
            _logger.info(
                f"memory is short, so MLPs go through the sequence in {tiles} tiles, each of which is computed twice"
            )

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """While the block runs, the model is in evaluation mode and its layers are their own, as a measurement knows them."""
        self._loss.eval()
        try:
            with contextlib.nullcontext() if self._checkpointing is None else self._checkpointing.aside():
                yield
        finally:
            self._loss.train()

    def after_step(self) -> None:
        """After the first step, the following ones use what it left free: what was reckoned before it errs on the side of caution.

        Not if it was begun again: what was free when memory ran out, up to one large tensor and what lay between blocks, was not enough for it.
        """
        first, self._stepped = not self._stepped, True
        if first and self._checkpointing is not None and self._traced and self._on_gpu:
            free, shared = throughput.spare_bytes(self._mesh.device), self._mesh.context_size > 1
            self._checkpointing.spare(min(ranks.everyones(spare_after_a_step(free, shared=shared))))

    def _room(self) -> Room:
        """What there is on this device and beside it, when all that stays is in memory."""
        assert self._checkpointing is not None
        parameters, tokens = list(self._loss.parameters()), self._shape[0] * self._shape[1]
        config = self._loss.model.config.get_text_config()
        weight, compute = parameters[0].element_size(), self._compute.itemsize
        size = int(stream_size(weight, compute, adapters=self._adapters, devices=self._mesh.world))
        reserved = gradient_bytes(parameters) if self._accumulated else 0
        if self._mesh.world == 1:
            reserved += int(sum(copied_bytes(p.numel(), p.element_size(), compute) for p in parameters))
        reserved += self._of_several(tokens)
        reserved += self._of_sliding()
        packed, compiled = low_bits.packed(self._checkpointing.layers[0]), self._checkpointing.compiled
        reserved += int(unpacked_bytes(packed, compute, compiled=compiled))
        return gpu_room(
            self._checkpointing,
            self._mesh.device,
            self._compute,
            stream=tokens * config.hidden_size * size,
            head=int(head_bytes(tokens, config.hidden_size, config.vocab_size)),
            reserved=reserved,
            gradients=0 if self._accumulated else gradient_bytes(parameters),
            processes=ranks.local_size(),
        )

    def _of_sliding(self) -> int:
        """Bytes that attention takes where layers slide."""
        (windows, window), model = self._shape, self._loss.model
        layout = layout_of(model)
        if not layout.slides(window):
            return 0
        alone = layout.in_blocks if self._documents else layout.alone
        return int(sliding_bytes(window, windows, query_width(model), self._compute.itemsize, alone=alone))

    def _of_several(self, tokens: int) -> int:
        """Bytes that a layer's backward pass takes because there are several devices: weights made whole, keys of a shared window, and what must stay free beside them."""
        mesh, layers, taken = self._mesh, self._checkpointing.layers if self._checkpointing else [], 0.0
        if mesh.world > 1:
            layer = sum(parameter.numel() for parameter in layers[0].parameters())
            others = sum(parameter.numel() for parameter in self._loss.parameters()) - layer * len(layers)
            taken += unsharded_bytes(layer, others, self._compute.itemsize)
        if mesh.context_size > 1:
            model = self._loss.model
            taken += SHARED_MARGIN + shared_window_bytes(
                tokens * mesh.context_size, key_width(model), query_width(model)
            )
        return int(taken)


def gpu_room(
    checkpointing: recompute.SelectiveCheckpointing,
    device: torch.device,
    compute: torch.dtype,
    *,
    stream: int,
    head: int,
    reserved: int,
    gradients: int,
    processes: int = 1,
) -> Room:
    """Where kept results may go: see `recompute.free_bytes`. gradients: bytes of those that are not reserved. processes: that share this machine's memory, at most.

    The host is for layers that are compiled: of others, hooks on saved tensors see the input alone.
    """
    card = recompute.free_bytes(device, checkpointing, stream=stream, head=head, reserved=reserved)
    if not checkpointing.compiled:
        return Room(card, stream, loss=head)
    rate = SUSTAINED * (throughput.matrix_rate(device, compute) or 1.0)
    return Room(card, stream, gradients, host_room(processes), rate, link_rate(device), loss=head)


def gradient_bytes(parameters: list[nn.Parameter]) -> int:
    """Bytes of all gradients on this device."""
    return sum(_local(parameter) * parameter.element_size() for parameter in parameters if parameter.requires_grad)


def _local(parameter: nn.Parameter) -> int:
    """Elements on this device: all of them, or a shard's."""
    sharded: Any = parameter
    return sharded.to_local().numel() if hasattr(sharded, "to_local") else sharded.numel()
