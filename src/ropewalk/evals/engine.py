"""Making forward passes cheaper without changing what they say: nothing computed that nobody reads, kernels fused.

in   a transformers model, and how many last positions are read
out  a context in which its passes are faster

Both act from outside, by hooks and by torch.compile; no model's forward is replaced. On anything they do not recognise they
do nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

#: Compiling takes tens of seconds once; it is worth that from about this much work on, in floating-point operations.
WORTH_COMPILING = 1e17


def decoder_layers(model: Any) -> list[nn.Module]:
    """The decoder's layers, first to last; empty if they are not where transformers' families keep them."""
    body = getattr(model, "base_model", model)
    layers = getattr(body, "layers", None)
    return list(layers) if isinstance(layers, nn.ModuleList) else []


@contextmanager
def reading_last(model: Any, kept: int) -> Iterator[None]:
    """While the block runs, the last layer's feed-forward part works on the last `kept` positions alone.

    What it would add at earlier positions goes nowhere: no layer follows that could attend to them, and no logits are
    asked for there. In a model of 4 layers that is a seventh of all work, in one of 32 a fiftieth.
    """
    layers = decoder_layers(model)
    part = getattr(layers[-1], "mlp", None) if layers else None
    if not isinstance(part, nn.Module):
        yield
        return
    lengths: list[int] = []

    def narrow(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        lengths.append(inputs[0].shape[1])
        return (inputs[0][:, -kept:], *inputs[1:])

    def widen(module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        return nn.functional.pad(output, (0, 0, lengths.pop() - output.shape[1], 0))

    with ExitStack() as hooks:
        hooks.callback(part.register_forward_pre_hook(narrow).remove)
        hooks.callback(part.register_forward_hook(widen).remove)
        yield


#: The one shape (batch, tokens) that layers are compiled for at the moment.
_compiled_for: list[tuple[int, int]] = []


@contextmanager
def faster(model: Any, *, passes: int, window: int, shape: tuple[int, int] | None = None) -> Iterator[None]:
    """Compile while the block runs, if there is a GPU and enough work to be worth it; else nothing.

    Args:
        model: a transformers model.
        passes, window: how many passes over so many tokens there will be.
        shape: (batch, tokens) of most passes, where they are alike: whole layers are then compiled for it.
    """
    on_gpu = next(model.parameters()).device.type == "cuda"
    if not on_gpu or work(model, passes, window) < WORTH_COMPILING:
        yield
        return
    with compiled(model, whole_layers=shape is not None):
        if shape is None:
            yield
            return
        _compiled_for.append(shape)
        try:
            yield
        finally:
            _compiled_for.pop()


def shaped(shape: tuple[int, ...]) -> AbstractContextManager[None]:
    """Around a pass: uncompiled if layers are compiled for another shape, which would compile them all over again."""
    if _compiled_for and _compiled_for[-1] != tuple(shape):
        return torch.compiler.set_stance("force_eager")
    return nullcontext()


@contextmanager
def compiled(model: Any, *, whole_layers: bool, backend: str = "inductor") -> Iterator[None]:
    """While the block runs, layers are compiled, all by one function; the last is not, since hooks may narrow it.

    Args:
        model: a transformers model.
        whole_layers: compile layers whole, for passes of one shape; else their norms and feed-forward parts, for passes of
            many shapes whose attention goes on from a shared beginning.
        backend: of torch.compile.
    """
    layers = decoder_layers(model)[:-1]
    parts = layers if whole_layers else [part for layer in layers for part in _pointwise(layer)]
    for part in parts:
        part.compile(dynamic=not whole_layers, backend=backend)
    try:
        yield
    finally:
        for part in parts:
            part._compiled_call_impl = None


def _pointwise(layer: nn.Module) -> list[nn.Module]:
    """The direct parts of a layer that treat every position by itself: its norms and its feed-forward part."""
    return [part for name, part in layer.named_children() if name == "mlp" or "norm" in name]


def work(model: Any, passes: int, window: int) -> float:
    """Floating-point operations of so many passes over a window: 2 a weight and token, and causal attention."""
    config = model.config.get_text_config()
    weights = sum(weight.numel() for weight in model.parameters())
    attention = 2 * config.num_hidden_layers * config.hidden_size * window
    return float(passes) * window * (2 * weights + attention)
