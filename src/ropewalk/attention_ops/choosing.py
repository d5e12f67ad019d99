"""Which of PyTorch's attention kernels is taken, and what it must be given.

in   queries [B, H, t, D] on their device, in their dtype
out  the name of the fastest kernel that has a backward pass for them and was found right; attention by it where no gradient is asked for
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from ropewalk.attention_ops import flash_4, kernels
from ropewalk.attention_ops.kernels import Heads, Kernel, LogSumExp


def choose(q: Tensor, varied: bool) -> Kernel:
    """The fastest kernel with a backward pass for these queries. varied: shapes change all the time, and cuDNN plans for each anew."""
    size = q.shape[-1]
    if q.device.type == "cpu":
        return "cpu"
    if q.device.type != "cuda" or size % 8:
        return "plain"
    if q.dtype == torch.float32:
        # Its backward pass was tried on one H200 alone, where bfloat16's was wrong for stretches as rows of a batch (docs/log.md, 2026-11-29).
        return "efficient" if _is_efficient_right(q.device, size) else "plain"
    if q.dtype not in (torch.float16, torch.bfloat16) or torch.cuda.get_device_capability(q.device) < (8, 0):
        return "plain"
    if size <= 128 and not varied and torch.backends.cuda.cudnn_sdp_enabled() and torch.backends.cudnn.is_available():
        return "cudnn"
    return "flash" if size <= 256 else "plain"


@functools.cache
def _is_efficient_right(device: torch.device, size: int) -> bool:
    """Whether the memory-efficient kernel, from compute capability 5.0 on, does here in float32 what it should."""
    try:
        return kernels.agrees("efficient", device, size, dtype=torch.float32)
    except Exception:  # noqa: BLE001 - a kernel that refuses the case is as little use for it as one that gets it wrong
        return False


def lower_right(kernel: Kernel, q: Tensor) -> bool:
    """Whether a kernel's causal mask is aligned at the bottom right when there are more keys than queries.

    PyTorch's flash kernel does so (torch/nn/attention/bias.py), FlashAttention-4 in its place is asked; cuDNN, the memory-efficient
    kernel and the CPU's align theirs at the top left.
    """
    if kernel != "flash":
        return kernel == "plain"
    return not flash_4.is_active() or flash_4.aligned(q.device, q.shape[-1])


def attend(q: Heads, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> tuple[Heads, LogSumExp]:
    """softmax(scale q k^T) v and its log-sum-exp, of any number of queries and keys, where no gradient is asked for.

    causal: the last query sees all keys, the one before it all but one, and so on.
    """
    kernel = choose(q, varied=True)
    if q.device.type == "cuda" and q.dtype == torch.float32:
        kernel = "efficient"  # whose forward pass was tried, whatever becomes of the backward pass
    if causal and q.shape[2] != k.shape[2] and not lower_right(kernel, q):
        kernel = "plain"
    return kernels.forward(kernel, q, k, v, causal, scale)


def in_autocast(*heads: Tensor) -> tuple[Tensor, ...]:
    """As autocast has them before PyTorch's own attention: float32 weights give queries and keys rotated in float32, which no fused kernel takes."""
    kind = heads[0].device.type
    return (
        tuple(each.to(torch.get_autocast_dtype(kind)) for each in heads) if torch.is_autocast_enabled(kind) else heads
    )


def wants_repeated(q: Tensor, k: Tensor) -> bool:
    """Whether PyTorch, given fewer heads of keys than of queries, would make the whole square, for want of a kernel.

    float32 is the memory-efficient kernel's alone, which takes grouped keys since pytorch/pytorch#191085 (July 2026) only. Heads of more than 256 numbers
    transformers repeats itself.
    """
    grouped = k.shape[1] < q.shape[1] and q.shape[-1] <= 256
    return grouped and q.is_cuda and q.dtype == torch.float32 and not torch.is_autocast_enabled("cuda")
