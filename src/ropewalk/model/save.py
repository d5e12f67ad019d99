"""Models: load one, and prove that it turns at the speeds its config promises.

in   a name (`hemp`, a directory, a hub id)
out  a transformers model whose every `inv_freq` equals the closed form of rope.py, on the device and in the dtype asked for

A rotary table that is wrong raises no error anywhere: the model merely speaks worse. Casting it to bfloat16, say, moves a
speed by 0.2 %, which is 1.7 radians at position 32767. Hence `verify`, after every load, cast, wrap, save and reload.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers

from ropewalk.checkpoint.files import read_config, whole_directory
from ropewalk.checkpoint.rope_config import RopeConfig, read_rope, write_rope
from ropewalk.model.load import without_bars
from ropewalk.model.verify import verify_directory


def save_model(
    model: transformers.PreTrainedModel,
    tokenizer: transformers.PreTrainedTokenizerBase | None,
    out: str | Path,
    *,
    steps: int | None = None,
    overwrite: bool = False,
    dtype: torch.dtype | None = None,
    state_dict: dict[str, torch.Tensor] | None = None,
) -> Path:
    """Write a checkpoint, whole or not at all, whose config every reader gets right.

    `save_pretrained` writes v5's spelling only and would drop the legacy keys, so the config is written again after it.

    Args:
        steps: fine-tuning steps to note in the `ropewalk` block; unchanged if not given.
        dtype: of the weights on disk; as they are if not given.
        state_dict: the weights, if they are not the module's own (a gathered sharded model).
    """
    said = model.config.to_dict()
    found = read_rope(said)
    if state_dict is None and dtype is not None:
        state_dict = model.state_dict()
    if state_dict is not None and dtype is not None:
        state_dict = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state_dict.items()}
    with whole_directory(out, overwrite=overwrite) as beside:
        with without_bars():
            model.save_pretrained(beside, state_dict=state_dict)
        if tokenizer is not None:
            tokenizer.save_pretrained(beside)
        rewrite_config(beside, found, steps=steps, dtype=dtype)
        verify_directory(beside)
    return Path(out)


def rewrite_config(directory: Path, found: RopeConfig, *, steps: int | None, dtype: torch.dtype | None = None) -> None:
    """Write every spelling of `found` into the config.json that a `save_pretrained` left."""
    path = directory / "config.json"
    said = read_config(directory)
    block = dict(found.block)
    if block and steps is not None:
        block["steps"] = steps
    if block:
        said = write_rope(said, found.scaling, window=found.window, rope=found.rope, block=block)
    if dtype is not None:
        said["dtype"] = str(dtype).removeprefix("torch.")
    path.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
