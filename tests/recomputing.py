"""What tests of layers that keep little share: a batch, its gradients, the bytes that a layer keeps."""

from __future__ import annotations

from typing import Any

import torch

from ropewalk.model.loss import NextTokenLoss

BATCH, TOKENS = 2, 48


def ids() -> torch.Tensor:
    return torch.randint(0, 256, (BATCH, TOKENS + 1), generator=torch.Generator().manual_seed(0))


def gradients(root: NextTokenLoss) -> dict[str, torch.Tensor]:
    root.zero_grad(set_to_none=True)
    root(ids()[:, :-1], ids()[:, 1:]).backward()
    return {name: p.grad.clone() for name, p in root.named_parameters()}


def saved(root: NextTokenLoss, layer: torch.nn.Module) -> int:
    """Bytes that autograd packs for a layer's backward pass, each storage once, weights apart."""
    weights = {p.untyped_storage().data_ptr() for p in root.parameters()}
    packed: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        packed[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    plain = layer.forward

    def watched(*args: Any, **kwargs: Any) -> Any:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            return plain(*args, **kwargs)

    layer.forward = watched
    root(ids()[:, :-1], ids()[:, 1:])
    del layer.forward
    return sum(t.untyped_storage().nbytes() for at, t in packed.items() if at not in weights)
