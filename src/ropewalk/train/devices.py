"""What the loop asks of the devices it runs on, answered for one process: the mesh of size one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ropewalk.train import store


class Alone:
    """One process on one device.

    Attributes:
        device: where the model is.
        rank, world: of this process, and how many there are.
        data_rank, data_size: which part of each batch this process reads, and into how many it is split.
    """

    rank = 0
    world = 1
    data_rank = 0
    data_size = 1

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @property
    def main(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    def shard(self, module: nn.Module) -> nn.Module:
        """Spread a module's weights over the devices."""
        return module

    def split(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """This process's part of each sequence."""
        return rows

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        return value

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any process."""
        return flag

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, in the order of their ranks."""
        return [value]

    def wait(self) -> None:
        """Go on when all processes have come here."""

    def clip(self, parameters: list[nn.Parameter], limit: float) -> Tensor:
        """The norm of all gradients together, which are scaled down to `limit` if it is above it (0: never)."""
        return nn.utils.clip_grad_norm_(parameters, limit or float("inf"), foreach=True)

    def whole(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights as one process would have them."""
        return weights

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, directory: Path) -> None:
        """Write what training needs to go on."""
        store.save(model, optimizer, directory)

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer, directory: Path) -> None:
        """Read what `save` wrote."""
        store.load(model, optimizer, directory)
