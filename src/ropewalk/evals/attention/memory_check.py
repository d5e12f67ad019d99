"""Whether the score probe fits in memory, reckoned before anything is allocated.

in   a model's name or a loaded model, a window
out  nothing, or a sentence with both figures
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ropewalk.checkpoint.files import read_config
from ropewalk.checkpoint.headers import count_parameters, weight_files
from ropewalk.checkpoint.hub import locate
from ropewalk.checkpoint.rope_config import read_rope, text_section
from ropewalk.errors import UserError
from ropewalk.evals.attention.adjacent import ROWS
from ropewalk.evals.attention.distances import BINS, block_bytes, edges_to
from ropewalk.model.devices import device_for, dtype_for


def check_room(
    model: Any,
    window: int | None,
    *,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    available: int | None = None,
) -> None:
    """Refuse a measurement that would not fit.

    Args:
        model: a name, whose weights still have to be loaded, or a model that is in memory.
        window: tokens; the model's own if not given.
        available: bytes; asked of the device if not given.

    Raises:
        UserError: with what it would take and what there is.
    """
    place: torch.device
    if isinstance(model, str | Path):
        directory = locate(model)
        said = read_config(directory)
        place = device_for(device)
        turning = read_rope(said)
        size = dtype_for(dtype, place).itemsize
        weights = size * count_parameters(weight_files(directory))
    else:
        said, weights = model.config.to_dict(), 0
        turning = read_rope(said)
        place = next(model.parameters()).device
        size = next(model.parameters()).element_size()
    window = window or turning.window
    needed = weights + working_bytes(text_section(said), window, size) + block_bytes(place.type)
    if available is None:
        available = free_bytes(place)
    if needed > available:
        raise UserError(
            f"scores in a window of {window} tokens take about {needed / 2**30:.1f} GiB here, and {available / 2**30:.1f} GiB "
            f"are free on {place}; ask for a smaller --window or use a larger device"
        )


def working_bytes(text: dict[str, Any], window: int, size: int) -> int:
    """Bytes beside the weights: one sequence's activations, one layer's queries and keys in float32 and as planes, the bins."""
    width, layers = int(text["hidden_size"]), int(text["num_hidden_layers"])
    heads = int(text["num_attention_heads"])
    head = int(text.get("head_dim") or width // heads)
    inner = int(text.get("intermediate_size") or 4 * width)
    # The residual stream and a few copies of it, the MLP's two products and their activation, q, k, v and the output.
    forward = window * size * (6 * width + 3 * inner + 4 * heads * head)
    # Queries and keys, the keys reversed, both as complex numbers, those weighted and flat again, and their sizes.
    probe = window * 4 * 10 * heads * head
    bins = layers * heads * len(edges_to(window)) * BINS * 8
    # 512 queries of one head beside all keys: distances as integers, what is hidden, scores, deviations, softmax.
    near = ROWS * window * 32
    # A layer that looks back only so far gets a mask of all pairs from transformers, a byte each.
    mask = window * window if text.get("sliding_window") and window > int(text["sliding_window"]) else 0
    # Gemma 2 caps its scores, which no fused attention does: transformers makes the whole matrix, and its softmax in float32.
    whole = heads * window * window * (4 + size) if text.get("attn_logit_softcapping") else 0
    return forward + probe + bins + near + mask + whole


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be allocated there."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available
