"""The devices of a run: data parallel by context parallel; one process is the mesh of size one.

in   torchrun's environment variables, and how many devices share one window
out  `Mesh`: what training asks of its devices
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from ropewalk.attention_ops import collectives, flash_4
from ropewalk.attention_ops.block_attention import INDEXED
from ropewalk.attention_ops.blocks import Attend, causal_blocks, padded, stretches
from ropewalk.attention_ops.transformers import (
    attend_in_blocks,
    is_plain_causal,
    is_replaceable,
    refuse_other_than_plain_causal,
)
from ropewalk.distributed import ranks, state
from ropewalk.errors import UserError
from ropewalk.model.layers import decoder_layers, head_size, query_width


def start(*, cp: int = 1, replicas: int = 1, device: torch.device | str | None = None) -> Mesh:
    """Join the processes that torchrun started, or be the only one.

    cp: devices that share one window. replicas: copies of the model; weights are sharded within each (HSDP), which
        saves traffic between machines when a model fits into one. 1: sharded over all devices. device: "cpu" to try it without GPUs.

    Raises:
        UserError: the world is not a multiple of cp and replicas.
    """
    world = ranks.size()
    _refuse_indivisible(world, cp, replicas)
    kind = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if world == 1:
        return Mesh(kind)
    on_gpu = kind.type == "cuda"
    ranks.join("cuda:nccl,cpu:gloo" if on_gpu else "gloo", bind=on_gpu)
    if on_gpu:
        kind = torch.device("cuda", ranks.local_rank())
    layout = init_device_mesh(kind.type, (world // cp, cp), mesh_dim_names=("data", "context"))
    if replicas == 1:
        weights = init_device_mesh(kind.type, (world,), mesh_dim_names=("shard",))
    else:
        weights = init_device_mesh(kind.type, (replicas, world // replicas), mesh_dim_names=("replicate", "shard"))
    return Mesh(kind, layout, weights)


def _refuse_indivisible(world: int, cp: int, replicas: int) -> None:
    for name, size in (("--cp", cp), ("replicas", replicas)):
        if size < 1 or world % size:
            raise UserError(
                f"the number of processes is a multiple of {name}, got {world} processes and {name} {size}; start "
                f"torchrun with a multiple, or change {name}"
            )


class Mesh:
    """What a run asks of its devices.

    Ranks that share a window read the same sequences and have different parts of them; ranks with different `data_rank` read
    different sequences. Weights are sharded over all ranks alike.

    Attributes:
        device: of this process.
        rank, world: of this process, and how many there are.
        data_rank, data_size: which part of each batch this process reads, and into how many it is split.
        context_rank, context_size: which part of each sequence, and of how many.
    """

    def __init__(
        self, device: torch.device, layout: DeviceMesh | None = None, weights: DeviceMesh | None = None
    ) -> None:
        self.device, self._weights = device, weights
        self.rank = dist.get_rank() if layout else 0
        self.world = dist.get_world_size() if layout else 1
        self.data_rank, self.context_rank = (layout.get_coordinate() if layout else None) or (0, 0)
        self.data_size, self.context_size = layout.shape if layout else (1, 1)
        self._attention = contextlib.ExitStack()
        self._context = collectives.named(layout.get_group("context")) if layout and self.context_size > 1 else ""
        # Of a layer's queries; 0 before `shard`, and where blocks cannot stand for the model's attention.
        self._heads_width = 0

    @property
    def main(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    def shard(self, module: nn.Module, compute: torch.dtype | None = None, *, window: int | None = None) -> nn.Module:
        """Shard a module's weights over all ranks, layer by layer, in place (FSDP2), and have it attend by block_attention.py and the fastest kernel.

        Gradients are summed over all ranks, so a rank's loss is the sum over its own tokens, divided by the number of all ranks' tokens.

        A model whose weights only the main rank has, on its CPU, the others having it on the meta device, is sharded from there: no
        device and no other rank ever holds the whole.

        module: the root, from tokens to loss. compute: dtype that weights are gathered in; their own if not given. Gradients are
            summed in float32. window: tokens of the longest sequence; any number if not given.
        """
        inner = next((m for m in module.modules() if hasattr(m, "set_attn_implementation")), None)
        if inner is not None:
            if self.context_size > 1:
                refuse_other_than_plain_causal(inner, window)
            if is_replaceable(inner):
                attend_in_blocks(inner)
                self._heads_width = query_width(inner) if is_plain_causal(inner, window) else 0
            self._attention.enter_context(flash_4.fastest(self.device, head_size(inner)))
        if self._weights is None:
            return module
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        options: dict[str, Any] = dict(
            mesh=self._weights, mp_policy=MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32)
        )
        on_main_alone = any(ranks.everyones(any(parameter.is_meta for parameter in module.parameters())))
        weights = state.set_aside(module) if on_main_alone and self.main else {}
        for layer in decoder_layers(module):
            fully_shard(layer, **options)
        fully_shard(module, **options)
        if on_main_alone:
            state.fill(module, weights, self.device)
        # FSDP2 averages. Scaling what enters the backward pass is exact, and works with every backend.
        module.register_forward_hook(self._sum_gradients)
        return module

    def _sum_gradients(self, module: nn.Module, inputs: Any, loss: Tensor) -> Tensor:
        if loss.requires_grad:
            loss.register_hook(lambda grad: grad * self.world)
        return loss

    def check_window(self, tokens: int) -> None:
        """Refuse a window that the devices which share it could not have equal parts of.

        Raises:
            UserError: it is not a multiple of 2 x cp.
        """
        devices = self.context_size
        if devices > 1 and tokens % (2 * devices):
            raise UserError(
                f"a window split over devices is a multiple of 2 x cp = {2 * devices}, got {tokens}; change --window or --cp"
            )

    def split(self, rows: dict[str, Tensor], *, whole: bool = False) -> dict[str, Any]:
        """This rank's part of each sequence, and who its tokens attend to.

        rows: `input_ids`, `labels` and others [batch, tokens] of whole sequences; the same on all ranks that share them. `position_ids` that
            begin again at 0 mean documents, between which nothing attends, unless there is an `attention_mask`
            of ones beside them: then they are positions and no more (positional-skip training).
        whole: the sequences are this rank's alone, whoever it shares windows with.

        Raises:
            UserError: the window is not a multiple of 2 x cp.
        """
        ids, positions = rows["input_ids"], rows.get("position_ids")
        tokens = ids.shape[1]
        rank, devices, group = (0, 1, "") if whole else (self.context_rank, self.context_size, self._context)
        large = ids.numel() * self._heads_width > INDEXED  # for kernels; blocks are given to them in groups of heads
        if devices == 1 and positions is None and not large:
            return rows
        if not whole:
            self.check_window(tokens)
        documents = positions is not None and "attention_mask" not in rows
        borders = _borders(positions) if documents else [[0]]
        if positions is None:
            positions = torch.arange(tokens, device=ids.device).expand_as(ids)
        blocks = None
        if documents or devices > 1 or large:
            blocks = causal_blocks(borders, rank, devices, tokens)
            blocks = padded(blocks) if documents else blocks
        local_stretches = stretches(rank, devices, tokens)
        parts = {
            name: torch.cat([value[:, first:last] for first, last in local_stretches], dim=1)
            for name, value in (rows | {"position_ids": positions}).items()
            if name != "attention_mask"
        }
        return {**parts, "attend": Attend(blocks, group, varied=documents)}

    # What follows is asked in passes, on the devices; between them processes meet by ranks.py.

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.world > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def sum_over_window(self, value: Tensor) -> Tensor:
        """The sum over the processes that share this one's windows."""
        if self.context_size > 1:
            value = value.clone()
            dist.all_reduce(value, group=collectives.process_group(self._context))
        return value

    def most(self, value: int) -> int:
        """The largest of all processes' numbers."""
        if self.world > 1:
            box = torch.tensor(value, device=self.device)
            dist.all_reduce(box, dist.ReduceOp.MAX)
            value = int(box)
        return value

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any process."""
        return bool(self.sum(torch.tensor(float(flag), device=self.device)) > 0) if self.world > 1 else flag

    def clip(self, parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
        """The norm of all gradients together, which are scaled down to `limit` if it is above it (0: never)."""
        norm = nn.utils.clip_grad_norm_(list(parameters), limit or float("inf"), foreach=True)
        return norm.full_tensor() if hasattr(norm, "full_tensor") else norm

    def unsharded(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Unsharded weights, in the host's memory of the main process, empty on the others."""
        return state.unsharded(weights, self.main) if self.world > 1 else weights

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, directory: Path) -> None:
        """Write what training needs to go on, each rank its own part."""
        state.save(model, optimizer, directory)

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer, directory: Path) -> None:
        """Read what `save` wrote, with however many ranks it was written."""
        state.load(model, optimizer, directory)

    def release(self) -> None:
        """Give PyTorch its own attention back; what was sharded is not trained any more."""
        self._attention.close()

    def close(self) -> None:
        """Leave the other processes, and leave PyTorch's attention as it was."""
        self.release()
        if self.world > 1:
            ranks.leave()


def _borders(positions: Tensor) -> list[list[int]]:
    """Where documents begin in each row: wherever positions begin again at 0. A jump ahead is no border (training/pose.py)."""
    begins = positions == 0
    begins[:, 0] = True
    return [row.nonzero().flatten().tolist() for row in begins.cpu()]
