"""Models: load one, and prove that it turns at the speeds its config promises.

in   a name (`hemp`, a directory, a hub id)
out  a transformers model whose every `inv_freq` equals the closed form of rope.py, on the device and in the dtype asked for

A rotary table that is wrong raises no error anywhere: the model merely speaks worse. Casting it to bfloat16, say, moves a
speed by 0.2 %, which is 1.7 radians at position 32767. Hence `verify`, after every load, cast, wrap, save and reload.
"""

from __future__ import annotations

import torch

from ropewalk.errors import UserError


def device_for(device: str | torch.device | None = None) -> torch.device:
    """The device asked for, else the current GPU, else the CPU.

    Raises:
        UserError: no such kind of device, or no such GPU here.
    """
    if device is not None:
        try:
            found = torch.device(device)
        except RuntimeError:
            raise UserError(f"a device is cpu, cuda or cuda:0, cuda:1, …, got {device!r}; check the spelling") from None
        here = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if found.type == "cuda" and (found.index or 0) >= here:
            raise UserError(f"a GPU asked for must be here, but PyTorch sees {here} of them, got {device}; ask for cpu")
        return found
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the host's, there; a GPU is not waited for."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def device_name(device: torch.device) -> str:
    """A device as records name it: a GPU by its model, anything else by its kind."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def dtype_for(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The dtype asked for, else bfloat16 on a GPU and float32 on a CPU (which has no fast bfloat16)."""
    if isinstance(dtype, torch.dtype):
        return dtype
    names = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype in (None, "auto"):
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if dtype not in names:
        raise UserError(f"a dtype is one of {', '.join(names)}, got {dtype}; bfloat16 suits GPUs, float32 CPUs")
    return names[dtype]
