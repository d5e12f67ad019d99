"""The queries and keys of every layer as attention receives them, after rotation, without touching a model's code.

in   a transformers model and a function `see(Layer)`
out  nothing; the model's own attention runs as ever, and its results are the same to the last bit

transformers lets anyone register an attention function by name (attention_ops/transformers.py). Ours looks, then hands everything on
to the one that the model had. So every family that goes through the interface can be probed, whatever it does to its queries
and keys first (Qwen 3 normalises them, GPT-NeoX rotates a quarter of them, Gemma 3 looks back 512 tokens in some layers).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import transformers
from jaxtyping import Float

from ropewalk.attention_ops.transformers import observed


@dataclass(frozen=True, eq=False)
class Layer:
    """What one layer's attention received for one document of N tokens.

    Attributes:
        index: the layer, from 0.
        query: (heads, N, D), rotated.
        key: (key heads, N, D), rotated; head h of the queries uses key head h // (heads / key heads).
        scale: what q.k is multiplied by before the softmax.
        local: how many tokens back the layer sees, itself included; None if all.
        softcap: Gemma 2's bound on scores, applied before the softmax; None elsewhere.
        pairing: how coordinates are paired, as in `rope.rotate`.
    """

    index: int
    query: Float[torch.Tensor, "heads n d"]
    key: Float[torch.Tensor, "keys n d"]
    scale: float
    local: int | None
    softcap: float | None
    pairing: Literal["half", "interleaved"]


def probing(model: transformers.PreTrainedModel, see: Callable[[Layer], None]) -> AbstractContextManager[None]:
    """While the block runs, `see` is shown every layer of every forward pass of one sequence.

    Raises:
        UserError: the model's attention does not go through transformers' interface, so nothing can be seen.
    """

    def look(module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, **options: Any) -> None:
        scale = options.get("scaling")
        layer = Layer(
            index=int(getattr(module, "layer_idx", 0)),
            query=query[0],
            key=key[0],
            scale=query.shape[-1] ** -0.5 if scale is None else float(scale),
            local=options.get("sliding_window"),
            softcap=options.get("softcap"),
            pairing=pairing_of(module),
        )
        see(layer)

    return observed(model, look)


def pairing_of(module: torch.nn.Module) -> Literal["half", "interleaved"]:
    """How a family pairs the coordinates it rotates, seen from what its own `rotate_half` does to 0, 1, 2, 3."""
    rotate_half = getattr(sys.modules[type(module).__module__], "rotate_half", None)
    if rotate_half is None:
        return "half"
    return "interleaved" if rotate_half(torch.arange(4.0)).tolist() == [-1, 0, -3, 2] else "half"
