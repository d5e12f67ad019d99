"""Models: load one, and prove that it turns at the speeds its config promises.

in   a name (`hemp`, a directory, a hub id)
out  a transformers model whose every `inv_freq` equals the closed form of rope.py, on the device and in the dtype asked for

A rotary table that is wrong raises no error anywhere: the model merely speaks worse. Casting it to bfloat16, say, moves a
speed by 0.2 %, which is 1.7 radians at position 32767. Hence `verify`, after every load, cast, wrap, save and reload.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import transformers

from ropewalk.checkpoint.files import read_config
from ropewalk.checkpoint.rope_config import RopeConfig, read_rope
from ropewalk.errors import UserError

#: transformers computes theta_j in float32, in one power and one division: a few units in the last place (6e-8 each). A
#: bfloat16 table is off by up to 2e-3, another theta or factor by far more.
TOLERANCE = 2e-6


def rotary_tables(model: torch.nn.Module) -> Iterator[tuple[torch.nn.Module, str, str, torch.Tensor]]:
    """Every table of speeds in a model: (module, buffer's name, layer type or "", the buffer)."""
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name.endswith("inv_freq") and "original_inv_freq" not in name:
                yield module, name, name.removesuffix("inv_freq").rstrip("_"), buffer


def verify_rope(model: torch.nn.Module, found: RopeConfig | None = None) -> None:
    """Hold every rotary table of a model against the closed form; shapes, values and float32.

    Args:
        model: a transformers model, bare or wrapped.
        found: how it ought to turn; read from `model.config` if not given.

    Raises:
        UserError: no table, or one that is not what the config promises: what was found, what was asked for.
    """
    if found is None:
        found = read_rope(model.config.to_dict())
    speeds = found.inv_freq()
    tables = list(rotary_tables(model))
    if not tables:
        raise UserError(
            f"transformers' {found.family} model has no rotary table that can be checked (no inv_freq); ropewalk does not "
            "extend what it cannot verify: choose another family"
        )
    for _, name, layer_type, table in tables:
        if layer_type not in speeds:
            raise UserError(
                f"{found.family}: the model rotates {layer_type or 'all'} layers apart, of which the config says nothing"
            )
        _compare(name, table, speeds[layer_type], found)


def _compare(name: str, table: torch.Tensor, speeds: np.ndarray, found: RopeConfig) -> None:
    asked = f"{found.scaling.method} with factor {found.scaling.factor:g} on theta {found.rope.base:g}"
    if table.device.type == "meta" or table.dtype != torch.float32:
        raise UserError(
            f"{name} is {table.dtype} on {table.device}, and a rotary table must be float32 on a real device; load again"
        )
    values = table.detach().cpu().double().numpy()
    if values.shape != speeds.shape:
        raise UserError(
            f"{found.family} turns {2 * values.size} coordinates of a head, its config says {2 * speeds.size}"
        )
    wrong = np.abs(values / speeds - 1)
    worst = int(wrong.argmax())
    if not wrong[worst] <= TOLERANCE:
        raise UserError(
            f"the model does not turn as its config says: pair {worst} of {name} turns {values[worst]:.6g} radians a token, but "
            f"{asked} is {speeds[worst]:.6g}; the config was lost or rewritten on the way: run `ropewalk extend` again"
        )


def pin_rope(model: torch.nn.Module, found: RopeConfig | None = None) -> None:
    """Put the closed form, in float32, back into every rotary table; after a cast of a whole model, which rounds them."""
    if found is None:
        found = read_rope(model.config.to_dict())
    speeds = found.inv_freq()
    for module, name, layer_type, table in rotary_tables(model):
        module.register_buffer(
            name, torch.tensor(speeds[layer_type], dtype=torch.float32, device=table.device), persistent=False
        )
    verify_rope(model, found)


def verify_directory(directory: Path) -> None:
    """Load a checkpoint's config as transformers does and verify the speeds it computes, without loading any weight.

    The model is laid out on the meta device, which costs no memory; only its rotary modules are then made for real.
    """
    said = transformers.AutoConfig.from_pretrained(directory, local_files_only=True)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(said)
    for module in {module for module, *_ in rotary_tables(model)}:
        fresh = type(module)(config=module.config)
        for name, buffer in fresh.named_buffers():
            setattr(module, name, buffer)
    verify_rope(model, read_rope(read_config(directory)))
