"""How fast a step was, against what the device can do.

in   a model's shape, a window, a device
out  floating-point operations a token; the rate of a large matrix product measured here and now; their ratio, MFU
"""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

import torch

from ropewalk.model.architecture import decoder_of
from ropewalk.model.layers import head_size

#: Edge of the square product that is timed, and how often: 1.1e12 FLOPs each, long enough to hide the launch.
_EDGE = 8192
_TIMES = 20


def flops_per_token(model: Any, window: int) -> float:
    """3 x (2 x parameters without the embedding + 2 x layers x window x width): forward and backward, nothing recomputed.

    A weight is one multiplication and one addition a token. Causal attention looks at half the square, so its two products cost
    2 x window x width a layer and token, width being heads x head size. The backward pass is twice the forward. Looking an
    embedding up costs nothing; an output head that shares its weights is a product all the same.
    """
    config = model.config.get_text_config()
    body = model.get_base_model() if hasattr(model, "get_base_model") else model
    embedding = body.get_input_embeddings().weight
    head = body.get_output_embeddings()
    parts = [decoder_of(body), *([] if head is None else [head])]  # of a multimodal model, the language model
    counted = {p: p.numel() for part in parts for name, p in part.named_parameters() if "lora_" not in name}
    weights = sum(counted.values())
    if head is None or head.weight is not embedding:
        weights -= embedding.numel()
    width = config.num_attention_heads * head_size(model)
    return 3.0 * (2.0 * weights + 2.0 * config.num_hidden_layers * window * width)


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float | None:
    """FLOP/s of a large square matrix product, measured; None on a CPU, whose rate moves with whatever else runs there."""
    if device.type != "cuda":
        return None
    a = torch.randn(_EDGE, _EDGE, device=device, dtype=dtype)
    for _ in range(3):
        a @ a
    torch.cuda.synchronize(device)
    begin = time.perf_counter()
    for _ in range(_TIMES):
        a @ a
    torch.cuda.synchronize(device)
    return _TIMES * 2 * _EDGE**3 / (time.perf_counter() - begin)


def peak_bytes(device: torch.device) -> int:
    """The most memory held so far: on the GPU, or by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kibibytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
