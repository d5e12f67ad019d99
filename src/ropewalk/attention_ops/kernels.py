"""PyTorch's fused attention kernels with their log-sum-exp, forward and backward, one block at a time.

in   queries [B, H, t, D], keys and values [B, K, T, D], K dividing H; causal means a triangle and t = T, or for a kernel whose mask
     is `lower_right` (choosing.py) t <= T, the last query seeing all keys
out  attention and log-sum-exp [B, H, t]; gradients of all three, given the log-sum-exp of the whole row

Not public in PyTorch, and to be looked at with each new release: `torch.ops.aten._scaled_dot_product_*`, here alone. The other file with
such names is model/torch_internals.py.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

_aten = torch.ops.aten
Kernel = Literal["cudnn", "flash", "efficient", "cpu", "plain"]
#: Queries, keys or values, and the log-sum-exp of each query's scores.
Heads = Float[Tensor, "batch heads tokens size"]
LogSumExp = Float[Tensor, "batch heads tokens"]

#: The operators behind PyTorch's scaled_dot_product_attention, as far as this release has them.
FUSED_ATTENTIONS = frozenset(
    getattr(_aten, name).default
    for name in (
        "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_fused_attention_overrideable",
    )
    if hasattr(_aten, name)
)


def agrees(
    kernel: Kernel,
    device: torch.device,
    size: int,
    queries: int = 256,
    tokens: int = 256,
    dtype: torch.dtype = torch.bfloat16,
) -> bool:
    """Whether a kernel's causal attention and its gradients are those of plain attention, within bfloat16's rounding."""
    generator = torch.Generator(device).manual_seed(0)
    q, k, v, grad = (
        torch.randn(1, 2, length, size, generator=generator, device=device).to(dtype)
        for length in (queries, tokens, tokens, queries)
    )
    scale = size**-0.5
    out, lse = forward(kernel, q, k, v, True, scale)
    results = [out, *backward(kernel, grad, q, k, v, out, lse, True, scale)]
    expected_out, expected_lse = _plain_forward(q.float(), k.float(), v.float(), True, scale)
    expected = [expected_out, *_plain_backward(grad, q, k, v, expected_out, expected_lse, True, scale)]
    # Fused bfloat16 kernels are 2e-3 to 6e-3 from the truth; a wrong mask or scale is tenths.
    return all((a.float() - b).norm() <= 2e-2 * b.norm() for a, b in zip(results, expected, strict=True))


def aligns(kernel: Kernel, device: torch.device, size: int) -> bool:
    """The same with fewer queries than keys, the last query seeing all of them; an odd number, which no tile hides.

    Attention over devices and documents relies on where the mask is aligned, and would be wrong without a sign.
    """
    try:
        return agrees(kernel, device, size, queries=170)
    except Exception:  # noqa: BLE001 - a kernel that refuses the case is as little use for it as one that gets it wrong
        return False


def forward(kernel: Kernel, q: Heads, k: Tensor, v: Tensor, causal: bool, scale: float) -> tuple[Heads, LogSumExp]:
    """softmax(scale q k^T) v and its log-sum-exp, natural logarithm, float32."""
    k, v = repeat(k, q), repeat(v, q)
    if kernel == "cudnn":
        results = _aten._scaled_dot_product_cudnn_attention(q, k, v, None, True, 0.0, causal, False, scale=scale)
    elif kernel == "flash":
        results = _aten._scaled_dot_product_flash_attention(q, k, v, 0.0, causal, False, scale=scale)
    elif kernel == "efficient":
        results = _aten._scaled_dot_product_efficient_attention(q, k, v, None, True, 0.0, causal, scale=scale)
    elif kernel == "cpu":
        results = _aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, scale=scale)
    else:
        results = _plain_forward(q, k, v, causal, scale)
    # cuDNN keeps a dimension of one behind; flash and the memory-efficient kernel may pad the rows.
    return results[0], results[1].reshape(*q.shape[:2], -1)[..., : q.shape[2]]


def backward(
    kernel: Kernel, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, causal: bool, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k, v. Where `out` and `lse` are those of a row of more keys, these are the parts of `k` and `v` in them."""
    kv_heads, lengths = k.shape[1], (q.shape[2], k.shape[2])
    k, v, lse = repeat(k, q), repeat(v, q), lse.contiguous()
    if kernel in ("cudnn", "flash"):
        # No dropout, so the random generator's state is not read.
        rng_state = torch.zeros((), dtype=torch.int64, device=q.device)
        tensors = [t.contiguous() for t in (grad, q, k, v, out)]
        if kernel == "cudnn":
            grads = _aten._scaled_dot_product_cudnn_attention_backward(
                *tensors, lse[..., None], rng_state, rng_state, None, None, None, *lengths, 0.0, causal, scale=scale
            )
        else:
            rng_state = torch.zeros(2, dtype=torch.uint64, device=q.device)
            grads = _aten._scaled_dot_product_flash_attention_backward(
                *tensors, lse, None, None, *lengths, 0.0, causal, rng_state, rng_state, scale=scale
            )
    elif kernel == "efficient":
        # It wants rows of sums that begin at multiples of 8 (kernel_backward.h, `check_supported`); of what fills them up nothing is left.
        lse = torch.nn.functional.pad(lse, (0, -lse.shape[-1] % 32), value=torch.inf)
        rng_state = torch.zeros((), dtype=torch.int64, device=q.device)
        grads = _aten._scaled_dot_product_efficient_attention_backward(
            grad, q, k, v, None, out, lse, rng_state, rng_state, 0.0, [True, True, True, False], causal, scale=scale
        )
    elif kernel == "cpu":
        grads = _aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, q, k, v, out, lse, 0.0, causal, scale=scale
        )
    else:
        grads = _plain_backward(grad, q, k, v, out, lse, causal, scale)
    return grads[0], _sum_heads(grads[1], kv_heads), _sum_heads(grads[2], kv_heads)


def repeat(t: Tensor, q: Tensor) -> Tensor:
    """Grouped keys or values, once for each of their queries' heads."""
    return t if t.shape[1] == q.shape[1] else t.repeat_interleave(q.shape[1] // t.shape[1], dim=1)


def _sum_heads(grad: Tensor, heads: int) -> Tensor:
    return grad if grad.shape[1] == heads else grad.unflatten(1, (heads, -1)).sum(2)


def _scores(q: Tensor, k: Tensor, causal: bool, scale: float) -> Tensor:
    scores = q.float() @ k.float().mT * scale
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1 + k.shape[2] - q.shape[2])
        scores = scores.masked_fill(later, -torch.inf)
    return scores


def _plain_forward(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> tuple[Any, ...]:
    scores = _scores(q, k, causal, scale)
    lse = scores.logsumexp(-1)
    return (scores - lse[..., None]).exp().to(v.dtype) @ v, lse


def _plain_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, causal: bool, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    weights = (_scores(q, k, causal, scale) - lse[..., None]).exp()
    grad, out = grad.float(), out.float()
    inner = weights * (grad @ v.float().mT - (grad * out).sum(-1, keepdim=True)) * scale
    return inner @ k.float(), inner.mT @ q.float(), weights.mT @ grad
