"""Hold every rotary table of a model against the closed form, and put the closed form back after a cast.

in   a transformers model, or a directory
out  nothing, if every `inv_freq` is the one its config says; else a sentence

A rotary table that is wrong raises no error anywhere: the model merely speaks worse. Casting it to bfloat16, say, moves an
inv_freq by 0.2 %, which is 1.7 radians at position 32767. Hence `verify`, after every load, cast, wrap, save and reload.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import transformers

from ropewalk.checkpoint.checkpoint import Checkpoint, ModelName
from ropewalk.checkpoint.named_scaling import rope_type_of
from ropewalk.checkpoint.position_table import Positions, PositionTable, read_positions
from ropewalk.checkpoint.read_rope import read_rope
from ropewalk.checkpoint.rope_config import RopeConfig
from ropewalk.checkpoint.window import NOTHING_SAID, Answers
from ropewalk.errors import UserError, told
from ropewalk.model.architecture import auto_class, decoder_of
from ropewalk.model.position_table import verify_table, verify_table_directory
from ropewalk.rope.scaling import InvFreq

#: transformers computes theta_j in float32, in one power and one division: a few units in the last place (6e-8 each). A
#: bfloat16 table is off by up to 2e-3, another rope_theta or factor by far more.
TOLERANCE = 2e-6


def rotary_tables(model: torch.nn.Module) -> Iterator[tuple[torch.nn.Module, str, str, torch.Tensor]]:
    """Every inv_freq table in a model: (module, buffer's name, layer type or "", the buffer)."""
    for module in decoder_of(model).modules():  # an image encoder beside it may rotate too
        for name, buffer in module.named_buffers(recurse=False):
            if name.endswith("inv_freq") and "original_inv_freq" not in name:
                yield module, name, name.removesuffix("inv_freq").rstrip("_"), buffer


def follows_length(module: torch.nn.Module) -> bool:
    """Whether a rotary module chooses its table anew for every input, by its length: LongRoPE, dynamic NTK."""
    kind = str(getattr(module, "rope_type", ""))
    return "longrope" in kind or "dynamic" in kind


def forget_inputs(model: torch.nn.Module) -> None:
    """Have dynamic NTK choose its table by each input alone.

    transformers keeps the table of the longest input until one comes that is shorter than the original window, so that a figure would
    depend on what was measured before it. LongRoPE's modules choose anew by themselves.
    """
    for module in {module for module, *_ in rotary_tables(model)}:
        if "dynamic" in str(getattr(module, "rope_type", "")) and _forget not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_forget)


def _forget(module: Any, _: Any) -> None:
    for name in [name for name, _ in module.named_buffers(recurse=False) if name.endswith("original_inv_freq")]:
        prefix = name.removesuffix("original_inv_freq")
        module.register_buffer(f"{prefix}inv_freq", getattr(module, name).clone(), persistent=False)
        setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)


def rope_of(model: torch.nn.Module, answers: Answers = NOTHING_SAID) -> RopeConfig:
    """What the config of a model in memory says of RoPE, with what the user said of its windows."""
    config: Any = model.config
    return read_rope(config.to_dict(), answers=answers)


def positions_of(model: torch.nn.Module, answers: Answers = NOTHING_SAID) -> Positions:
    """What the config of a model in memory says of positions, with what the user said of its windows."""
    config: Any = model.config
    return read_positions(config.to_dict(), answers)


def verify_positions(model: torch.nn.Module, positions: Positions) -> None:
    """Hold what a model knows of positions against its config: rotary tables by `verify_rope`, a learned table by its length.

    Raises:
        UserError: they differ.
    """
    if isinstance(positions, PositionTable):
        verify_table(model, positions)
    else:
        verify_rope(model, positions)


def verify_rope(model: torch.nn.Module, rope_config: RopeConfig | None = None) -> None:
    """Hold every rotary table of a model against the closed form: shapes, values and float32.

    Args:
        model: a transformers model, bare or wrapped.
        rope_config: what its inv_freq ought to be; read from `model.config` if not given.

    Raises:
        UserError: no table, or one that is not what the config promises: what it is, what was asked for.
    """
    rope_config = rope_config or rope_of(model)
    # A module that depends on the input's length has the table of the last input: a short one at first, later perhaps a long one.
    short, long = rope_config.inv_freq(1), rope_config.inv_freq()
    tables = list(rotary_tables(model))
    if not tables:
        raise UserError(
            f"transformers' {rope_config.family} model has no rotary table that can be checked (no inv_freq); ropewalk does not "
            "extend what it cannot verify: choose another family"
        )
    for module, name, layer_type, table in tables:
        if layer_type not in short:
            raise UserError(
                f"every RoPE of a model stands in its config, but {rope_config.family} has one of its own for "
                f"{layer_type or 'all'} layers, of which the config says nothing; choose another family"
            )
        is_long = layer_type == rope_config.scaled_layers and _deviation(table, long[layer_type]).max() <= TOLERANCE
        _compare(name, table, (long if is_long else short)[layer_type], rope_config)
        _compare_attention(module, name, layer_type, rope_config)


def _deviation(table: torch.Tensor, closed_form: InvFreq) -> InvFreq:
    """How far each value is off, relative to it; infinite where a table cannot be compared."""
    values = table.detach().cpu().double().numpy() if table.device.type != "meta" else np.zeros(0)
    if values.shape != closed_form.shape:
        return np.full(closed_form.shape, np.inf)
    off = np.abs(values - closed_form)
    return np.divide(off, closed_form, out=np.where(off == 0, 0.0, np.inf), where=closed_form > 0)


def _compare_attention(module: torch.nn.Module, name: str, layer_type: str, rope_config: RopeConfig) -> None:
    """The factor on queries and keys that a rotary module holds beside its table."""
    factor = getattr(module, name.replace("inv_freq", "attention_scaling"), 1.0)
    expected = rope_config.attention_factor(layer_type)
    if not abs(factor / expected - 1) <= TOLERANCE:
        raise UserError(
            f"the model does not weigh attention as its config says: queries and keys are multiplied by {factor:.6g}, but {rope_config} has "
            f"{expected:.6g}; the config was lost or rewritten on the way: run `ropewalk extend` again"
        )


def _compare(name: str, table: torch.Tensor, closed_form: InvFreq, rope_config: RopeConfig) -> None:
    if table.device.type == "meta" or table.dtype != torch.float32:
        raise UserError(
            f"{name} is {table.dtype} on {table.device}, and a rotary table must be float32 on a real device; load again"
        )
    values = table.detach().cpu().double().numpy()
    if values.shape != closed_form.shape:
        raise UserError(
            f"the config of this {rope_config.family} model says that {2 * closed_form.size} coordinates of a head are rotated, "
            f"but the model rotates {2 * values.size}; check head_dim and partial_rotary_factor in the config"
        )
    deviation = _deviation(table, closed_form)
    worst = int(deviation.argmax())
    if not deviation[worst] <= TOLERANCE:
        raise UserError(
            f"the model does not rotate as its config says: {name} of pair {worst} is {values[worst]:.6g} radians a token, but "
            f"{rope_config} is {closed_form[worst]:.6g}; the config was lost or rewritten on the way: run `ropewalk extend` again"
        )


def pin_rope(model: torch.nn.Module, rope_config: RopeConfig | None = None) -> None:
    """Put the closed form into every rotary table, in float32, and the attention factor beside it.

    After a cast of a whole model, which rounds the tables; or to try another scaling without a second copy of the weights.
    """
    rope_config = rope_config or rope_of(model)
    closed_form = rope_config.inv_freq(1)
    for module, name, layer_type, table in rotary_tables(model):
        pinned = torch.tensor(closed_form[layer_type], dtype=torch.float32, device=table.device)
        module.register_buffer(name, pinned, persistent=False)
        # Modules that depend on the input's length go back to this one after a long input.
        original = name.replace("inv_freq", "original_inv_freq")
        if original in dict(module.named_buffers(recurse=False)):
            module.register_buffer(original, pinned.clone(), persistent=False)
        attention = name.replace("inv_freq", "attention_scaling")
        if hasattr(module, attention):
            setattr(module, attention, rope_config.attention_factor(layer_type))
    verify_rope(model, rope_config)


@contextmanager
def by_transformers(checkpoint: Checkpoint) -> Iterator[None]:
    """Whatever transformers raises over the files of a checkpoint, as a sentence that has its name: it may lie in a place of ours for a while.

    Quantised weights need packages of their own.
    """
    what = f"transformers cannot load {checkpoint}"
    way_out = "fetch the checkpoint again, mend its config.json, or install a newer transformers if the model is newer"
    text = checkpoint.text_config
    # Of a scaling that lacks a key transformers names the key.
    blocks = [text[name] for name in ("rope_scaling", "rope_parameters") if isinstance(text.get(name), dict)]
    if any(rope_type_of(block) != "default" for block in blocks):
        way_out = f"where it names a missing key, put that back into the scaling of config.json (a factor is new window / old window); else {way_out}"
    with told(what, way_out, Exception), told(what, "install the package that it names", ImportError):
        yield


def verify_directory(directory: ModelName, *, trust_remote_code: bool = False) -> None:
    """Load a checkpoint's config as transformers does and verify the inv_freq it computes, without loading any weight.

    The model is laid out on the meta device, which costs no memory; only its rotary modules are then made for real. This is
    the proof of what was written, so the directory is read again, whatever is known of it.
    """
    checkpoint = Checkpoint.open(directory, trust_remote_code=trust_remote_code)
    if isinstance(checkpoint.positions, PositionTable):
        verify_table_directory(checkpoint, checkpoint.positions)
        return
    model = laid_out(checkpoint)
    with by_transformers(checkpoint):
        for module in {module for module, *_ in rotary_tables(model)}:
            fresh = type(module)(config=module.config)
            for name, buffer in fresh.named_buffers():
                setattr(module, name, buffer)
    rope_config = checkpoint.rope
    verify_rope(model, rope_config)
    _verify_long(model, rope_config)


def laid_out(checkpoint: Checkpoint, **options: Any) -> Any:
    """A model without weights, on the meta device. options: of `from_config`."""
    trusted = (
        checkpoint.trust_remote_code
    )  # never None, or transformers asks on stdin whether to run the code that it finds
    with by_transformers(checkpoint), torch.device("meta"):
        config = transformers.AutoConfig.from_pretrained(
            checkpoint.path, local_files_only=True, trust_remote_code=trusted
        )
        return auto_class(checkpoint.config).from_config(config, trust_remote_code=trusted, **options)


def _verify_long(model: torch.nn.Module, rope_config: RopeConfig) -> None:
    """Show each rotary module a position at the window's end, where LongRoPE has another table, and verify that one."""
    layer_type = rope_config.scaled_layers
    short, long = rope_config.inv_freq(1)[layer_type], rope_config.inv_freq()[layer_type]
    if np.array_equal(short, long):
        return
    for module, name, of_layers, _ in list(rotary_tables(model)):
        if of_layers == layer_type:
            arguments = (layer_type,) if layer_type else ()
            module(torch.zeros(1), torch.tensor([[rope_config.window - 1]]), *arguments)
            _compare(name, getattr(module, name), long, rope_config)
