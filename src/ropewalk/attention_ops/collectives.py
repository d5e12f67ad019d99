"""Context parallelism: keys and values are gathered forward, their gradients summed backward, one collective each.

in   keys and values [B, H, t, D] of this device's stretches; its parts of the gradients of the whole sequence's, [B, H, T, D]
out  keys and values of the whole sequence, [B, H, T, D]; the summed gradients of this device's keys and values, [B, H, t, D]
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

# Renamed in torch 2.13.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


def stretches(device: int, devices: int, tokens: int) -> list[tuple[int, int]]:
    """The two stretches of a sequence that a device has: one from the front, one from the back, so that all have equal work.

    >>> stretches(0, 2, 8), stretches(1, 2, 8)
    ([(0, 2), (6, 8)], [(2, 4), (4, 6)])
    >>> stretches(0, 1, 8)
    [(0, 8)]
    """
    if devices == 1:
        return [(0, tokens)]
    size = tokens // (2 * devices)
    last = 2 * devices - 1 - device
    return [(device * size, (device + 1) * size), (last * size, (last + 1) * size)]


#: Process groups by name. An operator takes tensors, numbers and strings, and a compiled graph keeps the string.
_groups: dict[str, dist.ProcessGroup] = {}


def named(group: dist.ProcessGroup) -> str:
    """The name by which the functions of this module know a group from now on."""
    _groups[group.group_name] = group
    return group.group_name


def process_group(name: str) -> dist.ProcessGroup:
    """The group of a name that `named` gave."""
    return _groups[name]


def gather_sequence(k: Tensor, v: Tensor, group: str) -> tuple[Tensor, Tensor]:
    """Keys and values [B, H, t, D] of all devices in the order of the sequence, [B, H, T, D]."""
    if not group:
        return k, v
    pg = process_group(group)
    local = torch.stack([k, v])
    parts = local.new_empty((pg.size() * 2, *local.shape[1:]))
    _all_gather(parts, local, group=pg)
    front, back = parts.unflatten(0, (pg.size(), 2)).chunk(2, dim=4)
    # Back stretches come in reverse order: the first device has the very end of the sequence.
    keys, values = torch.cat([*front.unbind(0), *reversed(back.unbind(0))], dim=3)
    return keys, values


def by_owner(dk: Tensor, dv: Tensor, dtype: torch.dtype, group: str) -> Tensor:
    """This device's parts of the gradients of all keys and values, [devices, 2, B, H, t, D], grouped by the device whose keys they belong to.

    They are rounded to `dtype`, the model's, before they are sent: a fused kernel returns no more digits, and half the bytes travel.
    """
    devices = process_group(group).size()
    batch, heads, tokens, size = dk.shape
    parts = dk.new_empty((devices, 2, batch, heads, tokens // devices, size), dtype=dtype)
    for owner in range(devices):
        for into, part in zip(parts[owner], (dk, dv), strict=True):
            for (begin, end), half in zip(stretches(owner, devices, tokens), into.chunk(2, dim=2), strict=True):
                half.copy_(part[:, :, begin:end])
    return parts


def summed(parts: Tensor, group: str) -> tuple[Tensor, Tensor]:
    """The gradients of this device's keys and values from all devices' parts of them; see `by_owner`.

    An all-to-all instead of a reduce-scatter, which would round to the model's dtype after each device.
    """
    received = torch.empty_like(parts)
    dist.all_to_all_single(received, parts, group=process_group(group))
    # torch.sum adds 16-bit numbers in float32 and rounds once.
    return received[:, 0].sum(0), received[:, 1].sum(0)
