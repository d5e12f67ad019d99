"""Progress within one forward pass that takes minutes: layer by layer.

in   a model that is about to read, a title, and whether that takes long
out  events of the progress, one a layer
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ropewalk.evals.compile import work
from ropewalk.model.layers import decoder_layers
from ropewalk.progress import Progress

#: Floating-point operations of a pass that is shown by layers: tens of seconds and more on a few cores, and on a GPU.
_LONG = {"cpu": 1e13, "cuda": 1e16}


def by_layer(model: Any, ids: Tensor) -> AbstractContextManager[None]:
    """`first_pass` over `ids`, [batch, tokens], where that is much work."""
    rows, tokens = ids.shape
    is_long = work(model, rows, tokens) >= _LONG.get(ids.device.type, float("inf"))
    return first_pass(model, f"one pass over {rows * tokens:,} tokens, layers", is_long=is_long)


@contextmanager
def first_pass(model: Any, title: str, *, is_long: bool) -> Iterator[None]:
    """While the block runs, its first pass says of each layer when it is done, and has ended with the last of them; one that is not long does not.

    Hooks stand outside of what is compiled. On a GPU each waits for its layer, since a launch is no result: nothing beside seconds a layer.
    """
    layers = decoder_layers(model, required=False) if is_long else []
    if not layers:
        yield
        return
    device, progress = next(model.parameters()).device, Progress(title, len(layers))
    with ExitStack() as stack:

        def is_done(layer: nn.Module, *_: Any) -> None:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            progress.advance()
            if layer is layers[-1]:
                stack.close()  # what the block does after it, a second pass or words of an answer, is another thing

        stack.callback(progress.end)
        for layer in layers:
            stack.callback(layer.register_forward_hook(is_done).remove)
        progress.begin()
        yield
