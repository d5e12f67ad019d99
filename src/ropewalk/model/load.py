"""Models: load one, and prove that it turns at the speeds its config promises.

in   a name (`hemp`, a directory, a hub id)
out  a transformers model whose every `inv_freq` equals the closed form of rope.py, on the device and in the dtype asked for

A rotary table that is wrong raises no error anywhere: the model merely speaks worse. Casting it to bfloat16, say, moves a
speed by 0.2 %, which is 1.7 radians at position 32767. Hence `verify`, after every load, cast, wrap, save and reload.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers

from ropewalk.checkpoint.files import read_config
from ropewalk.checkpoint.headers import count_parameters, weight_files
from ropewalk.checkpoint.hub import locate
from ropewalk.checkpoint.model_info import ModelInfo, info_of
from ropewalk.checkpoint.rope_config import read_rope
from ropewalk.errors import UserError
from ropewalk.model.devices import device_for, dtype_for
from ropewalk.model.verify import verify_rope


def load_model(
    name: str | Path,
    *,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    attention: str | None = None,
    trust_remote_code: bool = False,
) -> transformers.PreTrainedModel:
    """Load a causal language model, whole and verified, in evaluation mode.

    Args:
        name: `hemp`, a local directory or a hub id.
        dtype: of the weights; bfloat16 on a GPU and float32 on a CPU if not given. Rotary tables stay float32.
        device: the current GPU if there is one, else the CPU.
        attention: transformers' `attn_implementation`; its own choice (SDPA) if not given.
        trust_remote_code: run the model code that comes with the checkpoint; never unless asked for.

    Raises:
        UserError: files missing or damaged, weights that do not fit the config, remote code, speeds that are not the config's.
    """
    directory = locate(name, trust_remote_code=trust_remote_code)
    said = read_config(directory)
    refuse_remote_code(said, directory, trust_remote_code)
    read_rope(said)
    weight_files(directory)
    device = device_for(device)
    model, info = _from_pretrained(directory, dtype_for(dtype, device), attention, trust_remote_code)
    missing = sorted(info["missing_keys"])
    if missing:
        raise UserError(
            f"{directory} lacks {len(missing)} tensors that its config asks for ({missing[0]}, …), and a model with random "
            "parts would be of no use; fetch the checkpoint again, or mend its config"
        )
    model = model.to(device).eval()
    verify_rope(model)
    return model


def _from_pretrained(
    directory: Path, dtype: torch.dtype, attention: str | None, trust: bool
) -> tuple[Any, dict[str, Any]]:
    chosen = {} if attention is None else {"attn_implementation": attention}
    try:
        with without_bars():
            return transformers.AutoModelForCausalLM.from_pretrained(
                directory,
                dtype=dtype,
                local_files_only=True,
                trust_remote_code=trust,
                use_safetensors=True,
                output_loading_info=True,
                **chosen,
            )
    except (RuntimeError, ValueError, KeyError) as error:
        raise UserError(
            f"transformers cannot load {directory}: {str(error).splitlines()[0]}; the weights and the config do not fit each "
            "other, or this family is newer than the transformers installed"
        ) from error


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """transformers draws a progress bar for every load and save, which would cut through ours."""
    shown = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers.utils.logging.enable_progress_bar()


def refuse_remote_code(said: dict[str, Any], directory: Path, trusted: bool) -> None:
    known = said.get("model_type") in transformers.CONFIG_MAPPING
    if "auto_map" in said and not known and not trusted:
        raise UserError(
            f"{directory} brings model code of its own, which ropewalk does not run unasked; read that code, then add "
            "--trust-remote-code, or choose a family that transformers has"
        )


def load_tokenizer(name: str | Path, *, trust_remote_code: bool = False) -> transformers.PreTrainedTokenizerBase:
    """The tokenizer that lies with a model.

    Raises:
        UserError: there is none.
    """
    directory = locate(name, trust_remote_code=trust_remote_code)
    if not any((directory / file).is_file() for file in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise UserError(
            f"{directory} has no tokenizer (tokenizer.json or tokenizer.model); copy the original model's into it"
        )
    try:
        found: Any = transformers.AutoTokenizer.from_pretrained(
            directory, local_files_only=True, trust_remote_code=trust_remote_code
        )
        return found
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"the tokenizer in {directory} cannot be loaded ({str(error).splitlines()[0]}); copy the original model's files again"
        ) from error


def model_info(name: str | Path) -> ModelInfo:
    """What a checkpoint is and how it turns, from its config and the headers of its files alone."""
    directory = locate(name)
    found = read_rope(read_config(directory))
    try:
        count = count_parameters(weight_files(directory))
    except UserError:
        count = 0
    return info_of(found, name=str(name), parameters=count)
