"""Progress within one forward pass that takes minutes: layer by layer.

in   a model, and the ids that it is about to read
out  events of the progress, one a layer
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ropewalk.evals.compile import work
from ropewalk.model.layers import decoder_layers
from ropewalk.progress import Progress

#: Floating-point operations of a pass that is shown by layers: tens of seconds and more on a few cores, and on a GPU.
_LONG = {"cpu": 1e13, "cuda": 1e16}


@contextmanager
def by_layer(model: Any, ids: Tensor) -> Iterator[None]:
    """While the block runs, a pass over `ids`, [batch, tokens], says of each layer when it is done; one that is short does not.

    Hooks stand outside of what is compiled. On a GPU each waits for its layer, since a launch is no result: nothing beside seconds a layer.
    """
    rows, tokens = ids.shape
    layers = decoder_layers(model, required=False)
    if not layers or work(model, rows, tokens) < _LONG.get(ids.device.type, float("inf")):
        yield
        return

    def is_done(*_: Any) -> None:
        if ids.is_cuda:
            torch.cuda.synchronize(ids.device)
        advance(1)

    with Progress(f"one pass over {rows * tokens:,} tokens, layers", len(layers)) as advance:
        hooks = [layer.register_forward_hook(is_done) for layer in layers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
