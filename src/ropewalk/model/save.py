"""Write a model as a checkpoint that every reader gets right.

in   a transformers model, its tokenizer; the checkpoint it was made from, if it was
out  a directory, whole or absent, in which every spelling of RoPE says the same; tensors in the dtype they had, the tokenizer's own
     files as they were
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.core_model_loading import revert_weight_conversion

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.files import read_config, whole_directory, write_json
from ropewalk.checkpoint.headers import tensors
from ropewalk.checkpoint.model_info import info_of
from ropewalk.checkpoint.own_code import without_code
from ropewalk.checkpoint.position_table import Positions, write_positions
from ropewalk.checkpoint.tokenizer_config import has_tokenizer
from ropewalk.model.carry import carry_tensors, carry_the_rest, save_tokenizer, write_readme
from ropewalk.model.fit import left_out, refuse_not_finite
from ropewalk.model.load import without_bars
from ropewalk.model.position_table import DIGEST
from ropewalk.model.verify import positions_of, verify_directory

#: From narrow to wide, by safetensors' words.
_DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}


def save_model(
    model: transformers.PreTrainedModel,
    tokenizer: transformers.PreTrainedTokenizerBase | None,
    out: str | Path,
    *,
    positions: Positions | None = None,
    steps: int | None = None,
    overwrite: bool = False,
    dtype: torch.dtype | None = None,
    state_dict: dict[str, torch.Tensor] | None = None,
    source: Checkpoint | None = None,
    chunk: int | None = None,
) -> Path:
    """Write a checkpoint, whole or not at all, whose config every reader gets right.

    `save_pretrained` writes v5's spelling only and would drop the legacy keys, so the config is written again after it.

    Args:
        tokenizer: saved if `source` has no tokenizer's files to copy.
        positions: what the config says of RoPE or of a learned table; read from the model's own if not given.
        steps: fine-tuning steps to note in the `ropewalk` block; unchanged if not given.
        dtype: of all weights on disk; if not given, each tensor's in `source`, or as they are.
        state_dict: the weights, if they are not the module's own (a gathered sharded model).
        source: the checkpoint that the model was made from: its small files are copied, its dtypes kept, and the tensors that the
            model has no place for carried on.
        chunk: tokens that training read at a time, if it skipped positions; the card says it.

    Raises:
        UserError: a weight is NaN or infinite.
    """
    positions = positions or positions_of(model)
    weights = model.state_dict() if state_dict is None else state_dict
    usual = dtype if source is None or dtype is not None else usual_dtype(source)
    if source is not None and dtype is None:
        weights = as_on_disk(model, weights, source)
    else:
        weights = {name: _cast(value, dtype) for name, value in weights.items()}
    refuse_not_finite(
        weights.items(),
        "the model",
        "nothing was written; train again, from the last checkpoint if there is one, at a lower rate",
    )
    with whole_directory(out, overwrite=overwrite) as beside:
        with without_bars():
            model.save_pretrained(beside, state_dict=weights)
        trusted = source is not None and source.trust_remote_code
        rewrite_config(beside, positions, steps=steps, dtype=usual, names_code=trusted or source is None)
        if source is not None and source.path.is_dir():
            carry_tensors(source, left_out(model, source), beside)
            carry_the_rest(source, beside, window=positions.window)
            info = info_of(positions, name=source.name, steps=steps)
            write_readme(beside, info, base=source, history=positions.block.get("history", []), chunk=chunk)
        if tokenizer is not None and not has_tokenizer(beside):
            save_tokenizer(tokenizer, beside)
        windows = {"current_window": positions.window, "original_window": positions.original_window}
        verify_directory(Checkpoint.open(beside, trust_remote_code=trusted, **windows))
    return Path(out)


def as_on_disk(
    model: transformers.PreTrainedModel, weights: dict[str, torch.Tensor], source: Checkpoint
) -> dict[str, torch.Tensor]:
    """A model's weights, each in the dtype that it has in the files of the checkpoint that the model was made from."""
    kept, usual = stored_dtypes(model, weights, source), usual_dtype(source)
    return {name: _cast(value, kept.get(name, usual)) for name, value in weights.items()}


def _cast(value: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    return value.to(dtype) if dtype is not None and value.is_floating_point() else value


def usual_dtype(source: Checkpoint) -> torch.dtype:
    """The narrowest dtype of a checkpoint's weights, which most of them have."""
    return next((dtype for word, dtype in _DTYPES.items() if word in source.dtypes), torch.float32)


def stored_dtypes(
    model: transformers.PreTrainedModel, weights: dict[str, torch.Tensor], source: Checkpoint
) -> dict[str, torch.dtype]:
    """The dtype that each of a model's tensors has in a checkpoint's files: norms and routers may be wider on purpose.

    A family whose files name or divide tensors otherwise than its model does is asked through transformers; of parts that differ the
    widest counts.
    """
    stored = {name: entry["dtype"] for header in source.headers.values() for name, entry in tensors(header)}
    order, found = list(_DTYPES), {}
    for name, value in weights.items():
        words = [stored[part] for part in _names_on_disk(model, name, value, stored) if stored.get(part) in _DTYPES]
        if words:
            found[name] = _DTYPES[max(words, key=order.index)]
    return found


def _names_on_disk(model: Any, name: str, value: torch.Tensor, stored: dict[str, str]) -> list[str]:
    if name in stored:
        return [name]
    try:
        return list(revert_weight_conversion(model, {name: torch.empty_like(value, device="meta")}))
    except (
        Exception
    ):  # one of several tensors that only together make the stored one: transformers raises whatever its operation does
        return []


def rewrite_config(
    directory: Path,
    positions: Positions,
    *,
    steps: int | None,
    dtype: torch.dtype | None = None,
    names_code: bool = True,
) -> None:
    """Write every spelling of `positions` into the config.json that a `save_pretrained` left; without `names_code` its `auto_map` goes."""
    config_dict = read_config(directory) if names_code else without_code(read_config(directory))
    config_dict.pop("transformers_weights", None)  # the name of the original's file; `save_pretrained` has its own
    block = {key: value for key, value in positions.block.items() if key != DIGEST}
    if block and steps is not None:
        block["steps"] = steps
    if block:
        config_dict = write_positions(config_dict, positions, window=positions.window, block=block)
    if dtype is not None:
        config_dict["dtype"] = str(dtype).removeprefix("torch.")
    write_json(directory / "config.json", config_dict)
