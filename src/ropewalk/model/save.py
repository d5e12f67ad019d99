"""Write a model as a checkpoint that every reader gets right.

in   a transformers model, its tokenizer
out  a directory, whole or absent, in which every spelling of RoPE says the same
"""

from __future__ import annotations

from pathlib import Path

import torch
import transformers

from ropewalk.checkpoint.files import read_config, whole_directory, write_json
from ropewalk.checkpoint.rope_config import RopeConfig, write_rope
from ropewalk.model.load import without_bars
from ropewalk.model.verify import rope_of, verify_directory


def save_model(
    model: transformers.PreTrainedModel,
    tokenizer: transformers.PreTrainedTokenizerBase | None,
    out: str | Path,
    *,
    rope_config: RopeConfig | None = None,
    steps: int | None = None,
    overwrite: bool = False,
    dtype: torch.dtype | None = None,
    state_dict: dict[str, torch.Tensor] | None = None,
) -> Path:
    """Write a checkpoint, whole or not at all, whose config every reader gets right.

    `save_pretrained` writes v5's spelling only and would drop the legacy keys, so the config is written again after it.

    Args:
        rope_config: what the config says of RoPE; read from the model's own if not given.
        steps: fine-tuning steps to note in the `ropewalk` block; unchanged if not given.
        dtype: of the weights on disk; as they are if not given.
        state_dict: the weights, if they are not the module's own (a gathered sharded model).
    """
    rope_config = rope_config or rope_of(model)
    if state_dict is None and dtype is not None:
        state_dict = model.state_dict()
    if state_dict is not None and dtype is not None:
        state_dict = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state_dict.items()}
    with whole_directory(out, overwrite=overwrite) as beside:
        with without_bars():
            model.save_pretrained(beside, state_dict=state_dict)
        if tokenizer is not None:
            tokenizer.save_pretrained(beside)
        rewrite_config(beside, rope_config, steps=steps, dtype=dtype)
        verify_directory(beside)
    return Path(out)


def rewrite_config(
    directory: Path, rope_config: RopeConfig, *, steps: int | None, dtype: torch.dtype | None = None
) -> None:
    """Write every spelling of `rope_config` into the config.json that a `save_pretrained` left."""
    config_dict = read_config(directory)
    block = dict(rope_config.block)
    if block and steps is not None:
        block["steps"] = steps
    if block:
        config_dict = write_rope(
            config_dict, rope_config.scaling, window=rope_config.window, rope=rope_config.rope, block=block
        )
    if dtype is not None:
        config_dict["dtype"] = str(dtype).removeprefix("torch.")
    write_json(directory / "config.json", config_dict)
