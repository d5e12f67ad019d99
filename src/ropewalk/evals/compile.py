"""Making forward passes cheaper without changing what they say: nothing computed that nobody reads, kernels fused.

in   a transformers model, and how many last positions are read
out  a context in which its passes are faster

All act from outside, by hooks, by a layer's config and by torch.compile; what the layers compute stays their own. On anything they do
not recognise they do nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ropewalk.attention_ops import flash_4, last_positions
from ropewalk.model.layers import decoder_layers, head_size
from ropewalk.model.torch_internals import uncompiled_where_it_fails

#: Compiling takes tens of seconds once; it is worth that from about this much work on, in floating-point operations.
WORTH_COMPILING = 1e17


def reading_last(model: Any, count: int) -> AbstractContextManager[None]:
    """While the block runs, the last layer works on the last `count` positions alone; see attention_ops/last_positions.py."""
    layers = decoder_layers(model, required=False)
    return last_positions.reading_last(layers[-1], _norms(model.base_model), count) if layers else nullcontext()


def _norms(module: nn.Module) -> list[nn.Module]:
    """A module's own norms that come after its layers: not those within its parts, nor of embeddings (BLOOM's, Gemma 4's for each layer)."""
    named = [(name, part) for name, part in module.named_children() if "norm" in name]
    return [part for name, part in named if "embed" not in name and not name.startswith("per_layer")]


@contextmanager
def faster(model: Any, *, passes: int, window: int, shapes: Sequence[tuple[int, int]] = ()) -> Iterator[None]:
    """Compile while the block runs, and attend by the fastest kernel, if there is a GPU and enough work; else nothing.

    Args:
        model: a transformers model.
        passes, window: how many passes over so many tokens there will be.
        shapes: (batch, tokens) of most passes, where they are alike: whole layers are then compiled for these.
    """
    device = next(model.parameters()).device
    if device.type != "cuda" or work(model, passes, window) < WORTH_COMPILING:
        yield
        return
    with flash_4.fastest(device, head_size(model)), compiled(model, shapes=shapes):
        yield


@contextmanager
def compiled(
    model: Any, *, shapes: Sequence[tuple[int, int]] = (), backend: str | Callable[..., Any] = "inductor"
) -> Iterator[None]:
    """While the block runs, layers are compiled, all by one function; the last is not, since hooks may narrow it.

    What cannot be compiled runs as it is.

    Args:
        model: a transformers model.
        shapes: (batch, tokens) of the passes that are compiled; others run as they are, and do not have all layers compiled over again.
            None at all: for passes of many shapes.
        backend: of torch.compile.
    """
    layers: list[Any] = decoder_layers(model, required=False)[:-1]
    for layer in layers:
        fused = torch.compile(layer.forward, dynamic=not shapes, backend=backend)
        layer.forward = _for_shapes(shapes, fused, layer.forward) if shapes else fused
    try:
        with uncompiled_where_it_fails():
            yield
    finally:
        for layer in layers:
            del layer.forward


def _for_shapes(
    shapes: Sequence[tuple[int, int]], fused: Callable[..., Any], plain: Callable[..., Any]
) -> Callable[..., Any]:
    """A layer's forward: `fused` for hidden states [batch, tokens, width] of these shapes, `plain` for any other."""

    def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        run = fused if tuple(hidden_states.shape[:2]) in shapes else plain
        return run(hidden_states, *args, **kwargs)

    return forward


def work(model: Any, passes: int, window: int) -> float:
    """Floating-point operations of so many passes over a window: 2 a weight and token, and causal attention."""
    config = model.config.get_text_config()
    weights = sum(weight.numel() for weight in model.parameters())
    attention = 2 * config.num_hidden_layers * config.hidden_size * window
    return float(passes) * window * (2 * weights + attention)
