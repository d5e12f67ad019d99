"""Models: load one, and prove that it turns at the speeds its config promises.

in   a name (`hemp`, a directory, a hub id)
out  a transformers model whose every `inv_freq` equals the closed form of rope.py, on the device and in the dtype asked for

A rotary table that is wrong raises no error anywhere: the model merely speaks worse. Casting it to bfloat16, say, moves a
speed by 0.2 %, which is 1.7 radians at position 32767. Hence `verify`, after every load, cast, wrap, save and reload.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from ropewalk import checkpoint, config
from ropewalk.errors import UserError
from ropewalk.record import ModelState

#: transformers computes theta_j in float32, in one power and one division: a few units in the last place (6e-8 each). A
#: bfloat16 table is off by up to 2e-3, another theta or factor by far more.
TOLERANCE = 2e-6


def locate(name: str | Path) -> Path:
    """The directory of a model; see `checkpoint.locate`."""
    return checkpoint.locate(name)


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


def load(
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
    directory = checkpoint.locate(name, trust_remote_code=trust_remote_code)
    said = checkpoint.read_config(directory)
    refuse_remote_code(said, directory, trust_remote_code)
    config.read(said)
    checkpoint.weights(directory)
    device = device_for(device)
    model, info = _from_pretrained(directory, dtype_for(dtype, device), attention, trust_remote_code)
    missing = sorted(info["missing_keys"])
    if missing:
        raise UserError(
            f"{directory} lacks {len(missing)} tensors that its config asks for ({missing[0]}, …), and a model with random "
            "parts would be of no use; fetch the checkpoint again, or mend its config"
        )
    model = model.to(device).eval()
    verify(model)
    return model


def _from_pretrained(
    directory: Path, dtype: torch.dtype, attention: str | None, trust: bool
) -> tuple[Any, dict[str, Any]]:
    chosen = {} if attention is None else {"attn_implementation": attention}
    try:
        with _without_bars():
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
def _without_bars() -> Iterator[None]:
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
    directory = checkpoint.locate(name, trust_remote_code=trust_remote_code)
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


def state(name: str | Path) -> ModelState:
    """What a checkpoint is and how it turns, from its config and the headers of its files alone."""
    directory = checkpoint.locate(name)
    found = config.read(checkpoint.read_config(directory))
    try:
        count = checkpoint.parameters(checkpoint.weights(directory))
    except UserError:
        count = 0
    return state_of(found, name=str(name), parameters=count)


def state_of(found: config.RopeConfig, *, name: str, parameters: int = 0) -> ModelState:
    """A config's RoPE as the state that records carry."""
    return ModelState(
        name=name,
        family=found.family,
        original_window=found.rope.window,
        window=found.window,
        method=found.scaling.method,
        factor=float(found.scaling.factor),
        theta=found.rope.base,
        head_dim=found.rope.head_dim,
        parameters=parameters,
        steps=int(found.block.get("steps", 0)),
    )


def rotary_tables(model: torch.nn.Module) -> Iterator[tuple[torch.nn.Module, str, str, torch.Tensor]]:
    """Every table of speeds in a model: (module, buffer's name, layer type or "", the buffer)."""
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name.endswith("inv_freq") and "original_inv_freq" not in name:
                yield module, name, name.removesuffix("inv_freq").rstrip("_"), buffer


def verify(model: torch.nn.Module, found: config.RopeConfig | None = None) -> None:
    """Hold every rotary table of a model against the closed form; shapes, values and float32.

    Args:
        model: a transformers model, bare or wrapped.
        found: how it ought to turn; read from `model.config` if not given.

    Raises:
        UserError: no table, or one that is not what the config promises: what was found, what was asked for.
    """
    if found is None:
        found = config.read(model.config.to_dict())
    speeds = found.speeds()
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


def _compare(name: str, table: torch.Tensor, speeds: np.ndarray, found: config.RopeConfig) -> None:
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


def pin(model: torch.nn.Module, found: config.RopeConfig | None = None) -> None:
    """Put the closed form, in float32, back into every rotary table; after a cast of a whole model, which rounds them."""
    if found is None:
        found = config.read(model.config.to_dict())
    speeds = found.speeds()
    for module, name, layer_type, table in rotary_tables(model):
        module.register_buffer(
            name, torch.tensor(speeds[layer_type], dtype=torch.float32, device=table.device), persistent=False
        )
    verify(model, found)


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
    verify(model, config.read(checkpoint.read_config(directory)))


def save(
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
    found = config.read(said)
    if state_dict is None and dtype is not None:
        state_dict = model.state_dict()
    if state_dict is not None and dtype is not None:
        state_dict = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state_dict.items()}
    with checkpoint.whole_directory(out, overwrite=overwrite) as beside:
        with _without_bars():
            model.save_pretrained(beside, state_dict=state_dict)
        if tokenizer is not None:
            tokenizer.save_pretrained(beside)
        rewrite_config(beside, found, steps=steps, dtype=dtype)
        verify_directory(beside)
    return Path(out)


def rewrite_config(
    directory: Path, found: config.RopeConfig, *, steps: int | None, dtype: torch.dtype | None = None
) -> None:
    """Write every spelling of `found` into the config.json that a `save_pretrained` left."""
    path = directory / "config.json"
    said = checkpoint.read_config(directory)
    block = dict(found.block)
    if block and steps is not None:
        block["steps"] = steps
    if block:
        said = config.write(said, found.scaling, window=found.window, rope=found.rope, block=block)
    if dtype is not None:
        said["dtype"] = str(dtype).removeprefix("torch.")
    path.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
