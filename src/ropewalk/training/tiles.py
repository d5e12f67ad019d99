"""The MLP of a layer in tiles of the sequence, so that its results, several times as wide as the model, are never there for all tokens at once.

in   decoder layers, tokens of a micro batch
out  the layers' MLPs, called for one tile of tokens after the other, forward and backward

An MLP looks at one token at a time, so tiles change nothing but the order of sums in its weights' gradients, which are summed in
float32. What a tile computes is kept nowhere: its backward pass computes it again (ALST, arXiv 2506.13996, section 3.1). For torch.compile
the whole is one operator: a loop over tiles that it may look into, it orders so that the results of all tiles live at once (docs/log.md, 2026-11-26).
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, no_type_check

import torch
from torch import Tensor, nn

#: What transformers' decoder layers call it.
_NAMES = ("mlp", "feed_forward")
_UNTILED = "_untiled"
_ARGUMENTS = "Tensor hidden, Tensor[] weights, int computed, int count"
#: By the number that the operator is given: what computes a tile from its tokens and the MLP's weights.
_COMPUTED: list[Callable[..., Tensor]] = []


@dataclass(frozen=True)
class Tiles:
    """How the expensive operations of a layer are numbered when its MLP goes in tiles, and is one operator that is none of them.

    count: of tiles, 1 for none. begin, end: numbers of the MLP's operations in a layer without tiles, the end not included.
    """

    count: int = 1
    begin: int = 0
    end: int = 0

    def holds(self, index: int) -> bool:
        """Whether operation `index` of a layer without tiles is the MLP's."""
        return self.begin <= index < self.end

    def whole(self, index: int) -> int:
        """The number that operation `index` has in a layer without tiles."""
        return index + (self.end - self.begin) * (self.count > 1 and index >= self.begin)


def tileable(layer: nn.Module) -> nn.Module | None:
    """The layer's MLP; None if it has none that is known to look at one token at a time, as experts that are chosen do not, or if it draws random numbers."""
    mlp = next((getattr(layer, name) for name in _NAMES if hasattr(layer, name)), None)
    dense = mlp is not None and not any(hasattr(module, "experts") for module in mlp.modules())
    return mlp if dense and not _drops_out(mlp) else None


def _drops_out(mlp: nn.Module) -> bool:
    """Whether it has dropout, as a module or as a number by that name: a tile that is computed again would draw other numbers."""
    attributes = [item for module in mlp.modules() for item in vars(module).items()]
    return any(("dropout" in name or name == "p") and isinstance(p, float) and p > 0 for name, p in attributes)


def tile(mlps: Sequence[nn.Module], count: int) -> None:
    """Have MLPs of one kind, [batch, tokens, width] in and out, go through the tokens in `count` tiles; 1 takes that back."""
    for mlp in mlps:
        mlp.__class__ = getattr(mlp, _UNTILED, type(mlp))
    if count > 1:
        # All are computed by the first one's code with their own weights: one operator, and one compiled layer.
        kind, number = type(mlps[0]), len(_COMPUTED)
        _COMPUTED.append(functools.partial(_computed, _code(mlps[0]), [name for name, _ in mlps[0].named_parameters()]))

        @no_type_check  # for a type checker's wrapper would be compiled with it
        def forward(self: nn.Module, hidden: Tensor) -> Tensor:
            return _forward(hidden, list(self.parameters()), number, count)

        tiled = type(f"Tiled{kind.__name__}", (kind,), {"forward": forward, _UNTILED: kind})
        for mlp in mlps:
            # And no function on the instance, for which torch.compile would compile each layer anew.
            mlp.__class__ = tiled


def _code(mlp: nn.Module) -> nn.Module:
    """The MLP without its weights, which would be held for as long as the process lives."""
    return copy.deepcopy(
        mlp, {id(weight): nn.Parameter(weight.detach().to("meta"), weight.requires_grad) for weight in mlp.parameters()}
    )


def _computed(code: nn.Module, names: list[str], hidden: Tensor, *weights: Tensor) -> Tensor:
    return torch.func.functional_call(code, dict(zip(names, weights, strict=True)), (hidden,))


@torch.library.custom_op("ropewalk::tiled_mlp", mutates_args=(), schema=f"({_ARGUMENTS}) -> Tensor")
def _forward(hidden: Tensor, weights: list[Tensor], computed: int, count: int) -> Tensor:
    out = torch.empty_like(hidden)
    for part, result in _tiles(count, hidden, out):
        result.copy_(_COMPUTED[computed](part, *weights))
    return out


@_forward.register_fake
def _(hidden: Tensor, weights: list[Tensor], computed: int, count: int) -> Tensor:
    return torch.empty_like(hidden)


@torch.library.custom_op(
    "ropewalk::tiled_mlp_backward", mutates_args=(), schema=f"(Tensor upstream, {_ARGUMENTS}, bool trained) -> Tensor[]"
)
def _backward(
    upstream: Tensor, hidden: Tensor, weights: list[Tensor], computed: int, count: int, trained: bool
) -> list[Tensor]:
    """Gradients of the tokens, and of each weight unless all are frozen."""
    hidden_grad, moving = torch.empty_like(hidden), weights if trained else []
    sums = [torch.zeros_like(weight, dtype=torch.float32) for weight in moving]
    for part, part_upstream, result in _tiles(count, hidden, upstream, hidden_grad):
        compute = _COMPUTED[computed] if trained else functools.partial(_frozen, computed, weights)
        part_grad, *grads = torch.func.vjp(compute, part, *moving)[1](part_upstream)
        result.copy_(part_grad)
        for total, grad in zip(sums, grads, strict=True):
            total += grad
    return [hidden_grad, *(total.to(weight.dtype) for total, weight in zip(sums, moving, strict=True))]


def _frozen(computed: int, weights: list[Tensor], hidden: Tensor) -> Tensor:
    return _COMPUTED[computed](hidden, *weights)


@_backward.register_fake
def _(
    upstream: Tensor, hidden: Tensor, weights: list[Tensor], computed: int, count: int, trained: bool
) -> list[Tensor]:
    return [torch.empty_like(hidden), *(torch.empty_like(weight) for weight in weights if trained)]


def _tiles(count: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(tensor.chunk(count, dim=-2) for tensor in tensors), strict=True)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    hidden, weights, ctx.computed, ctx.count = inputs
    ctx.trained = any(weight.requires_grad for weight in weights)
    ctx.save_for_backward(hidden, *weights)


def _gradients(ctx: Any, upstream: Tensor) -> Any:
    hidden, *weights = ctx.saved_tensors
    hidden_grad, *grads = _backward(upstream.contiguous(), hidden, weights, ctx.computed, ctx.count, ctx.trained)
    return hidden_grad, grads or [None] * len(weights), None, None


_forward.register_autograd(_gradients, setup_context=_save)
for _device in ("cuda", "cpu"):
    _forward.register_autocast(_device, torch.bfloat16)
