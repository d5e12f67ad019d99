"""Pickled weights rewritten as safetensors, only ever when a user asked for it.

A pickle can run any code when it is loaded. torch's weights-only unpickler admits tensors and plain containers and nothing
else, so a hostile file ends in an error, not in a command.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import torch
from safetensors.torch import save_file

from ropewalk.checkpoint.files import read_json
from ropewalk.checkpoint.headers import INDEX, PICKLE, PICKLE_INDEX, SINGLE
from ropewalk.errors import UserError


def convert(source: Path, target: Path) -> None:
    """Rewrite the pickled weights of `source` as safetensors in `target`, one shard in memory at a time.

    Those that transformers reads: pytorch_model.bin, else the shards that its index names.

    Raises:
        UserError: no shard, a damaged one, or one that holds more than tensors.
    """
    shards = [source / PICKLE]
    if not shards[0].is_file() and (source / PICKLE_INDEX).is_file():
        weight_map = read_json(source / PICKLE_INDEX, what="an index of shards is a JSON file").get("weight_map") or {}
        shards = [source / name for name in sorted(set(weight_map.values()))]
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing or not shards:
        lacks = ", ".join(missing) or "any shard"
        raise UserError(
            f"pickled weights are {PICKLE} or the shards of {PICKLE_INDEX}, and {source} lacks {lacks}; fetch the safetensors version"
        )
    names: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = SINGLE if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = _tensors(shard)
        save_file(tensors, target / name, metadata={"format": "pt"})
        names |= dict.fromkeys(tensors, name)
    if len(shards) > 1:
        total = sum((target / name).stat().st_size for name in set(names.values()))
        index = {"metadata": {"total_size": total}, "weight_map": names}
        (target / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _tensors(shard: Path) -> dict[str, torch.Tensor]:
    """The tensors of one shard, each with memory of its own: safetensors refuses two names for one storage."""
    try:
        content = torch.load(shard, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(
            f"{shard} is damaged or holds more than weights, which ropewalk never loads ({str(error).splitlines()[0]}); "
            "fetch the safetensors version"
        ) from None
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise UserError(f"{shard} is no plain dictionary of tensors; fetch the safetensors version")
    return {name: value.clone().contiguous() for name, value in content.items()}
