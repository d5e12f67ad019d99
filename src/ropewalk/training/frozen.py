"""Frozen weights as their checkpoint stores them: a model that is trained may hold them in four bits (low_bits.py), or rounded to the arithmetic's two bytes.

in   a model's state, the checkpoint it was loaded from
out  the same state with that checkpoint's own numbers, for what is saved
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.model.load import load_model
from ropewalk.training.low_bits import quantised, stored_dtype


def as_stored(model: nn.Module, weights: dict[str, Tensor], source: Checkpoint) -> dict[str, Tensor]:
    """A model's state with the frozen weights of `source`, which it was loaded from, where it holds them in fewer bits; as it is if there are none."""
    codes, dtype = quantised(model), stored_dtype(source)
    frozen = {name: each.dtype for name, each in model.named_parameters() if not each.requires_grad}
    rounded = [name for name, held in frozen.items() if held.is_floating_point and held not in (dtype, torch.float32)]
    names = [f"{name}.weight" for name in codes] + [n for n in rounded if n.rpartition(".")[0] not in codes]
    if not names:
        return weights
    # Read at each save, and not kept: 7B's would take 13 GB of the host's memory from save to save, 27 in float32, where results of layers may lie
    # meanwhile (host_memory.py); and through transformers, which may rename and join what the files hold.
    plain = load_model(source, dtype=dtype, device="cpu").state_dict()
    weights = {name: value for name, value in weights.items() if name.removesuffix(".scales") not in codes}
    return weights | {name: plain[name.replace(".base_layer.", ".")] for name in names}
