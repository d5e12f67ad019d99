"""Whether measuring attention scores fits in memory, estimated before anything is allocated.

in   a model's name or a transformers model, a window
out  nothing, or an error with the memory needed and the memory there is
"""

from __future__ import annotations

from typing import Any

import torch

from ropewalk.checkpoint.checkpoint import Checkpoint, ModelName
from ropewalk.checkpoint.layers import is_masked
from ropewalk.checkpoint.rope_config import text_section
from ropewalk.distributed import ranks
from ropewalk.distributed.spread import is_spread
from ropewalk.errors import UserError
from ropewalk.evals.attention.adjacent import ROWS
from ropewalk.evals.attention.distances import BINS, block_bytes, edges_to
from ropewalk.model.devices import device_for, dtype_for, free_bytes
from ropewalk.model.verify import rope_of
from ropewalk.sentences import sizes_apart
from ropewalk.settings.options import Shard


def check_memory(
    model: Any,
    window: int | None,
    *,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    shard: Shard = "off",
    available: int | None = None,
) -> None:
    """Refuse a measurement that does not fit.

    Args:
        model: a name or an open checkpoint, whose weights still have to be loaded, or a model that is in memory.
        window: tokens; the model's own if not given.
        dtype, device, shard: as in `open_model`, for a name.
        available: bytes; what is free on the device if not given.

    Raises:
        UserError: with the memory it takes and the memory there is.
    """
    target: torch.device
    if isinstance(model, ModelName):
        checkpoint = Checkpoint.open(model)
        text, rope_config = checkpoint.text_config, checkpoint.rope
        target = device_for(device)
        size = dtype_for(dtype, target).itemsize
        weights = size * checkpoint.parameters
        if is_spread(shard, checkpoint, dtype, device):
            weights //= ranks.size()
    else:
        text, rope_config, weights = text_section(model.config.to_dict()), rope_of(model), 0
        target = next(model.parameters()).device
        size = next(model.parameters()).element_size()
    window = window or rope_config.window
    needed = weights + working_bytes(text, window, size) + block_bytes(target.type)
    if available is None:
        available = free_bytes(target)
    if needed > available:
        take, free = sizes_apart(needed, available)
        raise UserError(
            f"scores in a window of {window} tokens take about {take} here, and {free} are free on {target}; ask for a smaller --window or use a larger device"
        )


def working_bytes(text: dict[str, Any], window: int, size: int) -> int:
    """Bytes beside the weights: one sequence's activations, one layer's queries and keys as real and complex numbers, the bins.

    Args:
        text: the config's section of the text model.
        window: tokens.
        size: bytes of a weight.
    """
    width, layers = int(text["hidden_size"]), int(text["num_hidden_layers"])
    heads = int(text["num_attention_heads"])
    head = int(text.get("head_dim") or width // heads)
    inner = int(text.get("intermediate_size") or 4 * width)
    # The residual stream and a few copies of it, the MLP's two products and their activation, q, k, v and the output.
    forward = window * size * (6 * width + 3 * inner + 4 * heads * head)
    # Queries and keys, the keys reversed, both as complex numbers, those weighted and as real numbers again, their sizes.
    probe = window * 4 * 10 * heads * head
    bins = layers * heads * len(edges_to(window)) * BINS * 8
    # 512 queries of one head by all keys: distances as integers, the mask, scores, squared differences, softmax.
    neighbours = ROWS * window * 32
    # For a layer with a sliding window transformers makes a mask of all pairs, a byte each.
    mask = window * window if is_masked(window, text.get("sliding_window")) else 0
    # Gemma 2 caps its scores, which no fused kernel does: transformers makes the whole matrix, and its softmax in float32.
    whole = heads * window * window * (4 + size) if text.get("attn_logit_softcapping") else 0
    return forward + probe + bins + neighbours + mask + whole
