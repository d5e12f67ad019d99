"""A learned table of positions in a checkpoint's files: interpolated in float64, read back, held against the config.

in   a directory with the weights of a model and the config of a longer one
out  the same directory, in which one tensor is longer; all others are as they were

Nothing of a model's code is patched: transformers makes its table as long as the config says, and finds as many rows in the file.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.files import read_config, write_json
from ropewalk.checkpoint.position_table import TABLES, PositionTable
from ropewalk.errors import UserError
from ropewalk.rope.learned_table import interpolated

#: Key of the `ropewalk` block: the SHA-256 of the table that `extend` wrote, until training writes another.
DIGEST = "table_sha256"


def interpolate_in_place(directory: Path, before: PositionTable, *, name: str) -> dict[str, Any]:
    """Make the table in a new checkpoint as long as its config says, and note in the config's `ropewalk` block what it is.

    The file that holds it is written anew, whatever it was a link to; every other file stays as it is.

    Args:
        directory: the weights with the old table, and the new config.json.
        before: what the old config said of the table.
        name: of the model, for the sentences.

    Returns:
        The config, as it was written.

    Raises:
        UserError: there is no such tensor, or it is not as long as the old config said.
    """
    checkpoint = Checkpoint(name, directory, read_config(directory))
    table = checkpoint.positions
    assert isinstance(table, PositionTable)
    file, tensor = _place(checkpoint, before)
    weights = load_file(file)
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    rows = weights[tensor] = longer(weights[tensor], table)
    file.unlink()
    save_file(weights, file, metadata=metadata)
    written = _read(file, tensor)
    if not torch.equal(written, rows):
        raise UserError(
            f"{file} does not hold the interpolated table that was written to it; check the disk, and extend again"
        )
    block = checkpoint.config["ropewalk"] | {DIGEST: _digest(written)}
    config_dict = checkpoint.config | {"ropewalk": block}
    write_json(directory / "config.json", config_dict)
    return config_dict


def longer(rows: torch.Tensor, table: PositionTable) -> torch.Tensor:
    """The rows of a longer table, computed in float64, in the dtype of the old ones; those before position 0 stay.

    Args:
        rows: (old rows, width).
        table: what the new config says.
    """
    positions = interpolated(rows[table.first :].double().numpy(), table.window)
    return torch.cat([rows[: table.first], torch.from_numpy(positions).to(rows.dtype)])


def refuse_encoder(table: PositionTable) -> None:
    """Raises UserError for a model that predicts no next token."""
    if not table.causal:
        raise UserError(
            f"training and measuring are about predicting the next token, and a {table.family} model reads in both directions and predicts "
            "none; `ropewalk extend` makes its table longer, and transformers trains it on masked tokens as it is"
        )


def refuse_unfit_table(checkpoint: Checkpoint, table: PositionTable) -> None:
    """Refuse, before weights are loaded, a model that cannot be measured or trained here, or whose table is not what its config says.

    Raises:
        UserError: it predicts no next token; the table has another length, or is not the one that `ropewalk extend` wrote.
    """
    refuse_encoder(table)
    file, name = _place(checkpoint, table)
    if DIGEST in table.block and table.block[DIGEST] != _digest(_read(file, name)):
        raise UserError(
            f"{name} in {checkpoint.name} is not the interpolated table that `ropewalk extend` wrote, and no training is on record; "
            "extend the original model again"
        )


def verify_table(model: nn.Module, table: PositionTable) -> None:
    """Hold a model's table of positions against its config.

    Raises:
        UserError: there is none, or it has another length.
    """
    rows = [len(module.weight) for module in learned_tables(model)]
    if rows != [table.rows]:
        raise UserError(
            f"the config says that this {table.family} model has a table of {table.rows} positions, but in memory it has "
            f"{rows[0] if rows else 'none'}; load it again"
        )


def verify_table_directory(checkpoint: Checkpoint, table: PositionTable) -> None:
    """Lay the model out as transformers does, without weights, and hold its table against the config and the file."""
    config = transformers.AutoConfig.from_pretrained(checkpoint.path, local_files_only=True, trust_remote_code=False)
    kind = transformers.AutoModelForCausalLM if table.causal else transformers.AutoModel
    with torch.device("meta"):
        verify_table(kind.from_config(config), table)
    _place(checkpoint, table)


def learned_tables(model: nn.Module) -> list[nn.Embedding]:
    """The learned table of positions of a transformers model, bare or wrapped; none in a model with RoPE."""
    config: Any = model.config
    facts = TABLES.get(config.model_type)
    if facts is None:
        return []
    return [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and _is_table(f"{name}.weight", facts.tensor)
    ]


def _is_table(name: str, tensor: str) -> bool:
    return name == tensor or name.endswith(f".{tensor}")


def _place(checkpoint: Checkpoint, table: PositionTable) -> tuple[Path, str]:
    """The file of the table and the tensor's name in it.

    Raises:
        UserError: there is none, there are several, or it is not as long as the config says.
    """
    tables = [
        (checkpoint.path / file, name, entry["shape"][0])
        for file, header in checkpoint.headers.items()
        for name, entry in header.items()
        if _is_table(name, table.facts.tensor)
    ]
    if len(tables) != 1:
        raise UserError(
            f"a {table.family} model has one table of positions (…{table.facts.tensor}), but {checkpoint.name} has {len(tables)}; fetch the "
            "checkpoint again, whole"
        )
    file, name, rows = tables[0]
    if rows != table.rows:
        raise UserError(
            f"the config says that the table of positions has {table.rows} rows ({table.facts.length_key}), but {name} has {rows}; mend the "
            "config, or start from the original model"
        )
    return file, name


def _read(file: Path, name: str) -> torch.Tensor:
    with safe_open(file, "pt") as opened:
        return opened.get_tensor(name)


def _digest(rows: torch.Tensor) -> str:
    return hashlib.sha256(rows.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
