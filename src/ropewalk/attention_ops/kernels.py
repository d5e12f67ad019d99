"""PyTorch's fused attention kernels with their log-sum-exp, forward and backward, one block at a time.

in   queries [B, H, t, D], keys and values [B, K, T, D], K dividing H; causal means a triangle and t = T, or for the kernels in
     LOWER_RIGHT t <= T, the last query seeing all keys
out  attention and log-sum-exp [B, H, t]; gradients of all three, given the log-sum-exp of the whole row
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
import torch.compiler.config
import torch.nn.attention
from torch import Tensor

_aten = torch.ops.aten
Kernel = Literal["cudnn", "flash", "cpu", "plain"]

#: Kernels whose causal mask is aligned at the bottom right when there are more keys than queries. For flash see
#: torch/nn/attention/bias.py; cuDNN and the CPU's kernel align theirs at the top left.
LOWER_RIGHT: set[Kernel] = {"flash", "plain"}


def choose(q: Tensor, varied: bool) -> Kernel:
    """The fastest kernel for these queries. varied: shapes change all the time, and cuDNN plans for each anew."""
    size = q.shape[-1]
    if q.device.type == "cpu":
        return "cpu"
    half = q.dtype in (torch.float16, torch.bfloat16)
    if q.device.type != "cuda" or not half or size % 8 or torch.cuda.get_device_capability(q.device) < (8, 0):
        return "plain"
    if size <= 128 and not varied and torch.backends.cuda.cudnn_sdp_enabled() and torch.backends.cudnn.is_available():
        return "cudnn"
    return "flash" if size <= 256 else "plain"


#: Head sizes that FlashAttention-4 is used for.
FLASH_4_SIZES = (64, 128)


@contextlib.contextmanager
def fastest(device: torch.device, size: int) -> Iterator[str]:
    """The fastest attention for heads of `size` while this lasts; its name.

    That is FlashAttention-4 where it is installed, through PyTorch's own switch, on Hopper and Blackwell, after a look at whether
    its results are right; else what PyTorch picks, cuDNN as a rule. The switch holds for the whole process.
    """
    cudnn = torch.backends.cuda.cudnn_sdp_enabled()
    if not (_has_flash_4(device, size) and _switch_on(device, size)):
        yield "as PyTorch picks"
        return
    try:
        with _compiled_apart("FlashAttention-4"):
            yield "FlashAttention-4"
    finally:
        _switch_off(cudnn)


def _compiled_apart(name: str) -> contextlib.AbstractContextManager[None]:
    """Compiled graphs name the kernel that was picked when they were traced, and PyTorch's caches on disk do not ask which it was.

    Without a tag of its own, a graph from a run with FlashAttention-4 would serve one without it, slowly, and the other way round.
    """
    tag = f"{torch.compiler.config.cache_key_tag} {name}".strip()
    return torch.compiler.config.patch(cache_key_tag=tag)


def _has_flash_4(device: torch.device, size: int) -> bool:
    if device.type != "cuda" or size not in FLASH_4_SIZES or torch.cuda.get_device_capability(device)[0] not in (9, 10):
        return False
    try:
        importlib.import_module("flash_attn.cute.interface")
    except ImportError:
        return False
    return hasattr(torch.nn.attention, "activate_flash_attention_impl")


def _switch_on(device: torch.device, size: int) -> bool:
    cudnn = torch.backends.cuda.cudnn_sdp_enabled()
    _trim_results()
    torch.nn.attention.activate_flash_attention_impl("FA4")
    torch.backends.cuda.enable_cudnn_sdp(False)  # which PyTorch would prefer
    try:
        if agrees("flash", device, size):
            if not aligns("flash", device, size):
                LOWER_RIGHT.discard("flash")  # good for triangles and rectangles still
            return True
        reason = "its results are not those of plain attention"
    except Exception as error:  # noqa: BLE001 - a compiler's failures are of many kinds, and none is worth a run
        reason = f"{type(error).__name__}: {error}"
    _switch_off(cudnn)
    warnings.warn(f"FlashAttention-4 is installed and not used ({reason})", stacklevel=4)
    return False


def _switch_off(cudnn: bool) -> None:
    torch.nn.attention.restore_flash_attention_impl()
    LOWER_RIGHT.add("flash")
    torch.backends.cuda.enable_cudnn_sdp(cudnn)


def _trim_results() -> None:
    """PyTorch takes two results of FlashAttention-4's forward pass and three of its backward pass; newer releases give more."""
    interface = importlib.import_module("flash_attn.cute.interface")
    for name, count in (("_flash_attn_fwd", 2), ("_flash_attn_bwd", 3)):
        function = getattr(interface, name)
        if not hasattr(function, "trimmed_to"):
            trimmed = functools.wraps(function)(functools.partial(_first, function, count))
            trimmed.trimmed_to = count
            setattr(interface, name, trimmed)


def _first(function: Callable[..., Any], count: int, *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)[:count]


def agrees(kernel: Kernel, device: torch.device, size: int, tokens: int = 256) -> bool:
    """Whether a kernel's causal attention and its gradients are those of plain attention, within bfloat16's rounding."""
    return _agrees(kernel, device, size, tokens, tokens)


def aligns(kernel: Kernel, device: torch.device, size: int, tokens: int = 256) -> bool:
    """The same with fewer queries than keys, the last query seeing all of them; an odd number, which no tile hides.

    Attention over devices and documents relies on where the mask is aligned, and would be wrong without a sign.
    """
    try:
        return _agrees(kernel, device, size, tokens * 2 // 3, tokens)
    except Exception:  # noqa: BLE001 - a kernel that refuses the case is as little use for it as one that gets it wrong
        return False


def _agrees(kernel: Kernel, device: torch.device, size: int, queries: int, tokens: int) -> bool:
    generator = torch.Generator(device).manual_seed(0)
    q, k, v, grad = (
        torch.randn(1, 2, length, size, generator=generator, device=device).to(torch.bfloat16)
        for length in (queries, tokens, tokens, queries)
    )
    scale = size**-0.5
    out, sums = forward(kernel, q, k, v, True, scale)
    found = [out, *backward(kernel, grad, q, k, v, out, sums, True, scale)]
    expected_out, expected_sums = _plain_forward(q.float(), k.float(), v.float(), True, scale)
    expected = [expected_out, *_plain_backward(grad, q, k, v, expected_out, expected_sums, True, scale)]
    # Fused bfloat16 kernels are 2e-3 to 6e-3 from the truth; a wrong mask or scale is tenths.
    return all((a.float() - b).norm() <= 2e-2 * b.norm() for a, b in zip(found, expected, strict=True))


def forward(kernel: Kernel, q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """softmax(scale q k^T) v and its log-sum-exp, natural logarithm, float32."""
    k, v = _repeat(k, q), _repeat(v, q)
    if kernel == "cudnn":
        found = _aten._scaled_dot_product_cudnn_attention(q, k, v, None, True, 0.0, causal, False, scale=scale)
    elif kernel == "flash":
        found = _aten._scaled_dot_product_flash_attention(q, k, v, 0.0, causal, False, scale=scale)
    elif kernel == "cpu":
        found = _aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, scale=scale)
    else:
        found = _plain_forward(q, k, v, causal, scale)
    # cuDNN keeps a dimension of one behind, flash may pad the rows.
    return found[0], found[1].reshape(*q.shape[:2], -1)[..., : q.shape[2]]


def backward(
    kernel: Kernel,
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    sums: Tensor,
    causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k, v. `out` and `sums` may be those of more keys than these: the part of these keys comes out."""
    kv_heads = k.shape[1]
    k, v = _repeat(k, q), _repeat(v, q)
    sums = sums.contiguous()
    lengths = (q.shape[2], k.shape[2])
    if kernel in ("cudnn", "flash"):
        # No dropout, so the state of the random numbers is not looked at.
        state = torch.zeros((), dtype=torch.int64, device=q.device)
        tensors = [t.contiguous() for t in (grad, q, k, v, out)]
        if kernel == "cudnn":
            grads = _aten._scaled_dot_product_cudnn_attention_backward(
                *tensors, sums[..., None], state, state, None, None, None, *lengths, 0.0, causal, scale=scale
            )
        else:
            state = torch.zeros(2, dtype=torch.uint64, device=q.device)
            grads = _aten._scaled_dot_product_flash_attention_backward(
                *tensors, sums, None, None, *lengths, 0.0, causal, state, state, scale=scale
            )
    elif kernel == "cpu":
        grads = _aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, q, k, v, out, sums, 0.0, causal, scale=scale
        )
    else:
        grads = _plain_backward(grad, q, k, v, out, sums, causal, scale)
    return grads[0], _sum_heads(grads[1], kv_heads), _sum_heads(grads[2], kv_heads)


def _repeat(t: Tensor, q: Tensor) -> Tensor:
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
    sums = scores.logsumexp(-1)
    return (scores - sums[..., None]).exp().to(v.dtype) @ v, sums


def _plain_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, sums: Tensor, causal: bool, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    weights = (_scores(q, k, causal, scale) - sums[..., None]).exp()
    grad, out = grad.float(), out.float()
    inner = weights * (grad @ v.float().mT - (grad * out).sum(-1, keepdim=True)) * scale
    return inner @ k.float(), inner.mT @ q.float(), weights.mT @ grad
