"""PyTorch's fused attention kernels with their log-sum-exp, forward and backward, one block at a time.

in   queries [B, H, t, D], keys and values [B, K, T, D], K dividing H; causal means a triangle and t = T, or for a kernel whose mask
     is `lower_right` t <= T, the last query seeing all keys
out  attention and log-sum-exp [B, H, t]; gradients of all three, given the log-sum-exp of the whole row

Not public in PyTorch, and to be looked at with each new release: `torch.ops.aten._scaled_dot_product_*`, here alone. The other file with
such names is model/torch_internals.py.
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


def attend(q: Heads, k: Tensor, v: Tensor, *, causal: bool, scale: float) -> tuple[Heads, LogSumExp]:
    """softmax(scale q k^T) v and its log-sum-exp, of any number of queries and keys, where no gradient is asked for.

    causal: the last query sees all keys, the one before it all but one, and so on.
    """
    kernel = choose(q, varied=True)
    if q.device.type == "cuda" and q.dtype == torch.float32:
        kernel = "efficient"  # whose forward pass was tried, whatever becomes of the backward pass
    if causal and q.shape[2] != k.shape[2] and not lower_right(kernel, q):
        kernel = "plain"
    return forward(kernel, q, k, v, causal, scale)


def lower_right(kernel: Kernel, q: Tensor) -> bool:
    """Whether a kernel's causal mask is aligned at the bottom right when there are more keys than queries.

    PyTorch's flash kernel does so (torch/nn/attention/bias.py), FlashAttention-4 in its place is asked; cuDNN, the memory-efficient
    kernel and the CPU's align theirs at the top left.
    """
    if kernel != "flash":
        return kernel == "plain"
    return not _is_flash_4_active() or _flash_4_aligns(q.device, q.shape[-1])


#: Head sizes that FlashAttention-4 is used for.
FLASH_4_SIZES = (64, 128)


@contextlib.contextmanager
def fastest(device: torch.device, size: int) -> Iterator[str]:
    """The fastest attention for heads of `size` while this lasts; its name.

    That is FlashAttention-4 where it is installed, through PyTorch's own switch, on Hopper and Blackwell, after a look at whether
    its results are right; else what PyTorch picks, cuDNN as a rule. The switch holds for the whole process, so within another
    `fastest` nothing is switched.
    """
    if _is_flash_4_active():
        yield "FlashAttention-4"
        return
    with contextlib.ExitStack() as stack:
        name = "as PyTorch picks"
        if _has_flash_4(device, size):
            stack.enter_context(_flash_4())
            problem = _flash_4_problem(device, size)
            if problem:
                stack.close()
                warnings.warn(f"FlashAttention-4 is installed and not used ({problem})", stacklevel=3)
            else:
                name = "FlashAttention-4"
                stack.enter_context(_compiled_apart(name))
        yield name


def _compiled_apart(name: str) -> contextlib.AbstractContextManager[None]:
    """While the block runs, compiled graphs are cached on disk under a key with the kernel's name, which PyTorch leaves out of it.

    Without a tag of its own, a graph from a run with FlashAttention-4 would serve one without it, slowly, and the other way round.
    """
    tag = f"{torch.compiler.config.cache_key_tag} {name}".strip()
    # pyrefly: ignore[missing-attribute] - PyTorch puts `patch` on its config modules when they are imported
    return torch.compiler.config.patch(cache_key_tag=tag)


def _has_flash_4(device: torch.device, size: int) -> bool:
    if device.type != "cuda" or size not in FLASH_4_SIZES or torch.cuda.get_device_capability(device)[0] not in (9, 10):
        return False
    try:
        importlib.import_module("flash_attn.cute.interface")
    except ImportError:
        return False
    return hasattr(torch.nn.attention, "activate_flash_attention_impl")


def _is_flash_4_active() -> bool:
    current = getattr(torch.nn.attention, "current_flash_attention_impl", lambda: None)
    return current() == "FA4"


@contextlib.contextmanager
def _flash_4() -> Iterator[None]:
    """FlashAttention-4 behind PyTorch's flash operators, and no cuDNN, which PyTorch would prefer."""
    cudnn = torch.backends.cuda.cudnn_sdp_enabled()
    with _trimmed_results():
        torch.nn.attention.activate_flash_attention_impl("FA4")
        torch.backends.cuda.enable_cudnn_sdp(False)
        try:
            yield
        finally:
            torch.nn.attention.restore_flash_attention_impl()
            torch.backends.cuda.enable_cudnn_sdp(cudnn)


def _flash_4_problem(device: torch.device, size: int) -> str:
    """Why FlashAttention-4, switched on, should not be used; empty if it may be."""
    try:
        if not agrees("flash", device, size):
            return "its results are not those of plain attention"
        # Asked now, once, and not in the middle of a step; by the device's full name, which its tensors will have.
        _flash_4_aligns(torch.empty(0, device=device).device, size)
    except Exception as error:  # noqa: BLE001 - a compiler's failures are of many kinds, and none is worth a run
        return f"{type(error).__name__}: {error}"
    return ""


@functools.cache
def _flash_4_aligns(device: torch.device, size: int) -> bool:
    """`aligns` of FlashAttention-4, which must be switched on. If not, it is good for triangles and rectangles still."""
    return aligns("flash", device, size)


@contextlib.contextmanager
def _trimmed_results() -> Iterator[None]:
    """PyTorch takes two results of FlashAttention-4's forward pass and three of its backward pass; newer releases give more.

    PyTorch looks these functions up in their module at each call, so that is where they are replaced, for as long as this lasts.
    """
    interface = importlib.import_module("flash_attn.cute.interface")
    functions = {name: getattr(interface, name) for name in ("_flash_attn_fwd", "_flash_attn_bwd")}
    for (name, function), count in zip(functions.items(), (2, 3), strict=True):
        # `wraps` shares the attributes too: the caches that the functions keep on themselves.
        setattr(interface, name, functools.wraps(function)(functools.partial(_first, function, count)))
    try:
        yield
    finally:
        for name, function in functions.items():
            setattr(interface, name, function)


def _first(function: Callable[..., Any], count: int, *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)[:count]


@functools.cache
def _is_efficient_right(device: torch.device, size: int) -> bool:
    """Whether the memory-efficient kernel, from compute capability 5.0 on, does here in float32 what it should."""
    try:
        return agrees("efficient", device, size, dtype=torch.float32)
    except Exception:  # noqa: BLE001 - a kernel that refuses the case is as little use for it as one that gets it wrong
        return False


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
