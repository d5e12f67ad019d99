"""Low-rank adapters that know which rotation they were trained for.

in   a model with its new window
out  the same model with adapters on its attention, its embeddings and norms trainable; an adapter directory; merged weights

LongLoRA (arXiv 2309.12307, section 3.3) found that at long windows low-rank matrices alone stay behind full fine-tuning, and that
training the embeddings and the norms as well closes the gap; both are small. Adapters go on the attention projections, as there.

An adapter is useless without the RoPE it was trained with, and the usual format does not carry it: the base model loads, the adapter
loads, and every position is wrong without a word. So the directory holds the extended config, and its type is one that peft does not
know: peft stops, and `attach` puts it on a model only after holding that model's rotary tables against the adapter's config.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
import warnings
from pathlib import Path
from typing import Any

import peft
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import nn

from ropewalk.checkpoint.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, OWN_ADAPTER, read_json
from ropewalk.checkpoint.headers import check_safetensors
from ropewalk.checkpoint.position_table import Positions, read_positions
from ropewalk.distributed.state import sharded_like
from ropewalk.errors import UserError, told
from ropewalk.model.architecture import decoder_of
from ropewalk.model.position_table import learned_tables
from ropewalk.model.verify import verify_positions

#: Plain peft stops at a type that it does not know, and shows it.
TYPE = f"{OWN_ADAPTER} (made plain by: ropewalk export ADAPTER --for peft)"
WEIGHTS = ADAPTER_WEIGHTS
#: Where an adapter_config.json says which weights it was trained on: `Checkpoint.weights_fingerprint`.
BASE_WEIGHTS = "base_weights"
#: What an adapter_config.json says without any effect on what the adapter computes.
_NO_MATTER = frozenset(
    ("peft_type", "task_type", "peft_version", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "lora_dropout",
     "init_lora_weights", BASE_WEIGHTS)
)  # fmt: skip


def add(model: Any, *, rank: int, alpha: int, compute: torch.dtype | None = None) -> peft.PeftModel:
    """Adapters of a rank on every attention projection; embeddings (of positions too) and norms stay trainable, in float32.

    compute: dtype of the arithmetic, in which what these give is rounded, as if they were frozen weights of that dtype: else they would have everything
        that flows between the layers in float32, twice the memory. None: they give what they are.

    Raises:
        UserError: the family names no attention projection that could be found, or the rank is above the model's width.
    """
    targets = _attention_projections(model)
    if not targets:
        raise UserError(f"no attention projections were found in a {model.config.model_type} model; use --mode full")
    width = model.config.get_text_config().hidden_size
    if rank > width:
        raise UserError(f"an adapter's rank is at most the model's width {width}, got {rank}; LongLoRA's is 8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by a name that the latter is giving up
        wrapped = peft.get_peft_model(
            model, peft.LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=targets)
        )
    small = _embeddings_and_norms(wrapped.get_base_model())
    for parameter in itertools.chain.from_iterable(module.parameters() for module in small):
        parameter.requires_grad_(True)
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if compute is not None:
        rounded = functools.partial(_rounded, compute)  # one for all layers, which are compiled as one
        for module in small:
            module.register_forward_hook(rounded)
    return wrapped


def _rounded(compute: torch.dtype, module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
    return output.to(compute)


def _attention_projections(model: nn.Module) -> list[str] | str:
    """Last names of the linear layers inside attention modules (q_proj, k_proj, ... in Llama; query_key_value in GPT-NeoX).

    In a multimodal model a pattern of whole names, since an image encoder has projections of the same names.
    """
    decoder, names = decoder_of(model), set()
    for name, module in decoder.named_modules():
        *path, last = name.split(".")
        if isinstance(module, nn.Linear) and path and "att" in path[-1]:
            names.add(last)
    if decoder is model or not names:
        return sorted(names)
    place = next(name for name, module in model.named_modules() if module is decoder)
    return rf"{re.escape(place)}\..*\.({'|'.join(sorted(names))})"


def _embeddings_and_norms(model: Any) -> list[nn.Module]:
    norms = [module for module in decoder_of(model).modules() if "norm" in type(module).__name__.lower()]
    return [*norms, *learned_tables(model), model.get_input_embeddings()]


def trainable(model: nn.Module) -> dict[str, torch.Tensor]:
    """What training changes, by the names peft gives."""
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}


def save_adapter(
    model: peft.PeftModel,
    weights: dict[str, torch.Tensor],
    directory: Path,
    config_dict: dict[str, Any],
    base: str | None = None,
    base_weights: str | None = None,
) -> None:
    """Write the adapter beside the config of the model it belongs to.

    Args:
        model: what `add` returned.
        weights: its `trainable` ones, whole.
        directory: a new one.
        config_dict: the trained model's config.json, with its `ropewalk` block.
        base: the model that was trained, as `ropewalk merge` finds it again: a hub id or a path.
        base_weights: its `weights_fingerprint`, by which another model in its place is known.
    """
    directory.mkdir(parents=True)
    save_file({name: value.cpu().contiguous() for name, value in weights.items()}, directory / WEIGHTS)
    about = model.peft_config["default"].to_dict()
    about = {key: sorted(value) if isinstance(value, set) else value for key, value in about.items()}
    if base is not None and Path(base).is_dir():
        base = str(Path(base).absolute())
    about |= {"peft_type": TYPE, "base_model_name_or_path": base, BASE_WEIGHTS: base_weights}
    (directory / ADAPTER_CONFIG).write_text(json.dumps(about, indent=2, default=str) + "\n", encoding="utf-8")
    (directory / "config.json").write_text(json.dumps(config_dict, indent=2) + "\n", encoding="utf-8")


def attach(model: nn.Module, directory: str | Path) -> peft.PeftModel:
    """Put an adapter on a model with the inv_freq that it was trained with.

    Args:
        model: the base model with the extended config, as `ropewalk extend` writes it.
        directory: what `save_adapter` wrote.

    Raises:
        UserError: the adapter's config is gone, its inv_freq are not the model's, or weights are missing or do not fit.
    """
    directory = Path(directory)
    rule = "an adapter carries the config of the model it was trained on"
    config_dict = read_json(directory / "config.json", what=rule)
    if "ropewalk" not in config_dict:
        raise UserError(
            f"{rule}, but {directory}/config.json has no ropewalk block; take the adapter directory as it was written"
        )
    _refuse_other_frequencies(model, read_positions(config_dict), directory)
    about = read_json(directory / ADAPTER_CONFIG, what="an adapter has an adapter_config.json")
    with told(f"{directory}/{ADAPTER_CONFIG} is not as it was written", "take the adapter directory as it was written"):
        wrapped = add(model, rank=int(about["r"]), alpha=int(about["lora_alpha"]))
    _refuse_other_settings(wrapped.peft_config["default"].to_dict(), about, directory)
    check_safetensors(directory / WEIGHTS)
    load_trainable(wrapped, load_file(directory / WEIGHTS), directory)
    return wrapped


def _refuse_other_settings(made: dict[str, Any], about: dict[str, Any], directory: Path) -> None:
    """`add` makes adapters of one kind: what else an adapter_config.json asks for (DoRA, other ranks a layer) would be left out."""
    for name in sorted(set(about) - _NO_MATTER):
        asked, has = (
            sorted(value, key=str) if isinstance(value, set | list) else value or None
            for value in (about[name], made.get(name))
        )
        if asked != has:
            raise UserError(
                f"adapters of `ropewalk train` have {name} {has!r}, but {directory}/{ADAPTER_CONFIG} says {asked!r}; take the adapter "
                "directory as it was written"
            )


def load_trainable(model: nn.Module, weights: dict[str, torch.Tensor], source: Path) -> None:
    """Copy trained weights into a model, every one of them and no other.

    Raises:
        UserError: names or shapes differ.
    """
    wanted = trainable(model)
    different = sorted(set(wanted) ^ set(weights)) or [
        n for n in wanted if wanted[n].shape != weights[n].shape or not weights[n].is_floating_point()
    ]
    if different:
        raise UserError(
            f"the trained weights in {source} do not fit this model ({different[0]}); use the model they came from"
        )
    with torch.no_grad():
        for name, value in weights.items():
            wanted[name].copy_(sharded_like(value, wanted[name]))


def _refuse_other_frequencies(model: nn.Module, trained: Positions, directory: Path) -> None:
    try:
        verify_positions(model, trained)
    except UserError as error:
        raise UserError(
            f"{directory} was trained with {trained.scaling.method} scaling, factor {trained.scaling.factor:g}, and the model at hand "
            f"has other positions ({error}); run `ropewalk extend` on the base model with --window {trained.window} --method {trained.scaling.method} first"
        ) from None


def merged(model: peft.PeftModel, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of the plain model with the adapters added in, by its own names; the model itself is not touched.

    Args:
        model: what `add` returned.
        weights: the state of its base model, whole.
    """
    plain = {name.replace(".base_layer.", "."): value for name, value in weights.items() if ".lora_" not in name}
    adapted: list[tuple[str, Any]] = [
        pair for pair in model.get_base_model().named_modules() if isinstance(pair[1], LoraLayer)
    ]
    for name, module in adapted:
        weight = weights[f"{name}.base_layer.weight"]
        # What was frozen may have been read from its file again, into the host's memory.
        down, up = (weights[f"{name}.lora_{letter}.default.weight"].to(weight.device).float() for letter in "AB")
        plain[f"{name}.weight"] = (weight.float() + module.scaling["default"] * (up @ down)).to(weight.dtype)
    return plain
