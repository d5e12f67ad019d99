"""Devices and dtypes by the words that users and records have for them.

in   "cuda:1", "bfloat16", or nothing
out  torch's device and dtype; or a sentence
"""

from __future__ import annotations

import torch

from ropewalk.errors import UserError, told
from ropewalk.settings.budget import free_memory


def device_for(device: str | torch.device | None = None) -> torch.device:
    """The device asked for, else the current GPU, else the CPU.

    Raises:
        UserError: no such kind of device, no such GPU here, or one that cannot compute.
    """
    if device is not None:
        try:
            chosen = torch.device(device)
        except RuntimeError:
            raise UserError(f"a device is cpu, cuda or cuda:0, cuda:1, …, got {device!r}; check the spelling") from None
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if chosen.type == "cuda" and (chosen.index or 0) >= count:
            raise UserError(
                f"a GPU asked for must be here, but PyTorch sees {count} of them, got {device}; ask for cpu"
            )
        _refuse_unusable(chosen)
        return chosen
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def _refuse_unusable(device: torch.device) -> None:
    """Raises UserError for a kind of device that PyTorch has a word for and no arithmetic here (meta, mps on Linux, vulkan)."""
    with told(f"a device computes, but {device} does not here", "ask for cpu", Exception):
        torch.ones(1, device=device).item()


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor of the host to a device, without waiting for a GPU to have it."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be allocated there; on a GPU with those that PyTorch holds and does not use."""
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + held
    return free_memory()


def device_name(device: torch.device) -> str:
    """A device as records name it: a GPU by its model, anything else by its kind."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def dtype_for(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The dtype asked for, else bfloat16 on a GPU and float32 on a CPU (where what was measured before stays comparable)."""
    if isinstance(dtype, torch.dtype):
        return dtype
    names = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype in (None, "auto"):
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if dtype not in names:
        raise UserError(
            f"a dtype is one of {', '.join(names)}, got {dtype}; bfloat16 suits GPUs and CPUs with AMX, float32 other CPUs"
        )
    return names[dtype]


def has_fast_bfloat16() -> bool:
    """Whether this CPU has products of bfloat16 matrices (AMX, or AVX-512's); PyTorch's own names for it are private, and may go."""
    asked = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("amx_tile", "avx512_bf16"))
    return any(supported() for supported in asked if supported is not None)
