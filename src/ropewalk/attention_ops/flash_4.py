"""FlashAttention-4 in the place of PyTorch's flash kernel, where it is installed and found right.

in   a device, a head size
out  the switch, for as long as a block runs; whether its causal mask is aligned as attention in blocks needs it
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.compiler.config
import torch.nn.attention

from ropewalk.attention_ops import kernels

#: Head sizes that FlashAttention-4 is used for.
SIZES = (64, 128)


@contextlib.contextmanager
def fastest(device: torch.device, size: int) -> Iterator[str]:
    """The fastest attention for heads of `size` while this lasts; its name.

    That is FlashAttention-4 where it is installed, through PyTorch's own switch, on Hopper and Blackwell, after a look at whether
    its results are right; else what PyTorch picks, cuDNN as a rule. The switch holds for the whole process, so within another
    `fastest` nothing is switched.
    """
    if is_active():
        yield "FlashAttention-4"
        return
    with contextlib.ExitStack() as stack:
        name = "as PyTorch picks"
        if _is_here(device, size):
            stack.enter_context(_switched_on())
            problem = _problem(device, size)
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


def _is_here(device: torch.device, size: int) -> bool:
    if device.type != "cuda" or size not in SIZES or torch.cuda.get_device_capability(device)[0] not in (9, 10):
        return False
    try:
        importlib.import_module("flash_attn.cute.interface")
    except ImportError:
        return False
    return hasattr(torch.nn.attention, "activate_flash_attention_impl")


def is_active() -> bool:
    current = getattr(torch.nn.attention, "current_flash_attention_impl", lambda: None)
    return current() == "FA4"


@contextlib.contextmanager
def _switched_on() -> Iterator[None]:
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


def _problem(device: torch.device, size: int) -> str:
    """Why FlashAttention-4, switched on, should not be used; empty if it may be."""
    try:
        if not kernels.agrees("flash", device, size):
            return "its results are not those of plain attention"
        # Asked now, once, and not in the middle of a step; by the device's full name, which its tensors will have.
        aligned(torch.empty(0, device=device).device, size)
    except Exception as error:  # noqa: BLE001 - a compiler's failures are of many kinds, and none is worth a run
        return f"{type(error).__name__}: {error}"
    return ""


@functools.cache
def aligned(device: torch.device, size: int) -> bool:
    """`aligns` of FlashAttention-4, which must be switched on. If not, it is good for triangles and rectangles still."""
    return kernels.aligns("flash", device, size)


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
