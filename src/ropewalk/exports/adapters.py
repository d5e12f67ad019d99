"""Adapters made into what others read: merged into their base, or plain peft beside the base they were trained on.

in   an adapter's directory: of `ropewalk train --mode lora`, which carries the config it was trained with, or plain peft's
out  a checkpoint; or an adapter of type LORA, and in `base/` the extended model that it belongs to

An adapter is useless without its rotation. Ours brings its config along, so its base is read under that config; plain peft's names
a base and is believed.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import load_file, save_file

from ropewalk.checkpoint import guard, half_written
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.disk_room import refuse_without_room
from ropewalk.checkpoint.file_limit import refuse_above_limit
from ropewalk.checkpoint.files import (
    ADAPTER_CONFIG,
    disk_errors,
    is_own_adapter,
    read_config,
    read_json,
    refuse_existing,
    strange_config,
    whole_directory,
    write_json,
)
from ropewalk.checkpoint.headers import check_safetensors
from ropewalk.checkpoint.model_info import ModelInfo
from ropewalk.checkpoint.own_code import without_code
from ropewalk.checkpoint.position_table import read_table
from ropewalk.checkpoint.read_rope import read_rope
from ropewalk.checkpoint.steps import asked_of
from ropewalk.checkpoint.tensor_problems import listed, several
from ropewalk.errors import UserError, told
from ropewalk.exports.checkpoints import write_checkpoint
from ropewalk.model.load import load_model, refuse_unknown_code
from ropewalk.model.save import save_model
from ropewalk.readers.refusals import refuse_damaged
from ropewalk.readers.rules import READERS
from ropewalk.settings import run_file
from ropewalk.settings.command import takes
from ropewalk.settings.export import FromAdapter, MergeSettings
from ropewalk.settings.inputs import inputs_of
from ropewalk.training import lora
from ropewalk.training.disk import model_bytes, weight_bytes
from ropewalk.training.setup import on_disk

BASE = "base"
_PLAIN = "LORA"


@takes(MergeSettings)
def merge(settings: MergeSettings) -> ModelInfo:
    """Add an adapter into its base model and write the plain checkpoint.

    Returns:
        The merged model, as records describe it.

    Raises:
        UserError: no adapter, no base, or the two do not belong together.
    """
    inputs = inputs_of(settings)
    refuse_existing(settings.out, overwrite=settings.overwrite, inputs=inputs)
    with merged_beside(Path(settings.adapter), settings) as checkpoint:
        with whole_directory(settings.out, overwrite=settings.overwrite, inputs=[*inputs, checkpoint.path]) as beside:
            write_checkpoint(checkpoint, beside, [READERS["transformers 5"]])
            run_file.write(settings, beside)
        return checkpoint.made_into(settings.out).info


def adapter_in(directory: Path) -> Path | None:
    """The directory itself if an adapter lies in it."""
    return directory if (directory / ADAPTER_CONFIG).is_file() else None


@contextlib.contextmanager
def merged_beside(adapter: Path, settings: FromAdapter) -> Iterator[Checkpoint]:
    """The merged model as a checkpoint, called as its adapter is, in a temporary directory on the disk of --out, where its weights can be linked."""
    _refuse_tables(adapter)
    with _beside(settings.out) as place:
        extended = _base_of(adapter, settings)
        refuse_above_limit("the model's largest file", max(file.stat().st_size for file in extended.weight_files))
        model = _attached(extended, adapter)
        if _is_ours(adapter):
            plain: Any = model.get_base_model()
            weights = lora.merged(model, plain.state_dict())
        else:
            with _fits(adapter):
                plain = model.merge_and_unload(safe_merge=True)
            weights = plain.state_dict()
        yield replace(_saved(plain, weights, extended, place / "merged"), name=str(adapter))


def _refuse_tables(adapter: Path) -> None:
    """Raises UserError for an adapter of ours on a model with a learned table, whose longer rows lie in the model that training wrote."""
    if _is_ours(adapter) and (table := read_table(read_config(adapter))) is not None:
        raise UserError(
            f"adapters are merged into models that rotate, and {adapter} is of a {table.family} model with {table}; the whole trained model "
            "was written beside it by `ropewalk train`: take that"
        )


def write_plain(adapter: Path, directory: Path, settings: FromAdapter) -> int:
    """An adapter as plain peft reads it, and beside it the base that it was trained on, extended.

    LongLoRA's adapters come with trained embeddings and norms, which peft keeps as whole copies and other readers of adapters
    not at all; they go into the base.

    Args:
        directory: an empty one, which will be --out.

    Returns:
        The window in tokens of the base.
    """
    about, weights = _about(adapter), load_file(adapter / lora.WEIGHTS)
    if not _is_ours(adapter):
        raise UserError(f"{adapter} is plain peft's already; give it to peft as it is, or export it for another reader")
    weights = {name.replace(".default.", "."): value for name, value in weights.items() if ".lora_" in name}
    with _beside(settings.out) as place:
        extended = _base_of(adapter, settings, more=weight_bytes(weights.values()))
        plain = _attached(extended, adapter).get_base_model()
        state = {name: value for name, value in plain.state_dict().items() if ".lora_" not in name}
        state = {name.replace(".base_layer.", "."): value for name, value in state.items()}
        extended = _saved(plain, state, extended, place / "base")
        (directory / BASE).mkdir()
        window = write_checkpoint(extended, directory / BASE, [READERS["transformers 5"], READERS["peft"]])
    save_file(weights, directory / lora.WEIGHTS, metadata={"format": "pt"})
    about.pop(lora.BASE_WEIGHTS, None)  # those in `base/` are others
    about |= {
        "peft_type": _PLAIN,
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(Path(settings.out).absolute() / BASE),
    }
    write_json(directory / ADAPTER_CONFIG, about)
    return window


def _saved(model: Any, weights: dict[str, torch.Tensor], like: Checkpoint, place: Path) -> Checkpoint:
    """A checkpoint of these weights with the config and the files of another one."""
    head = model.get_output_embeddings()
    if head is not None and head.weight is model.get_input_embeddings().weight:
        # Tied weights have two names and are written under the embedding's alone, as the original was.
        weights.pop(next(f"{name}.weight" for name, module in model.named_modules() if module is head), None)
    save_model(model, None, place, positions=like.rope, state_dict=weights, source=like)
    write_json(place / "config.json", like.config)
    return like.made_into(place)


@contextlib.contextmanager
def _beside(out: str | Path) -> Iterator[Path]:
    place = half_written.beside(Path(out))
    try:
        with disk_errors(out):
            place.mkdir(parents=True)
            yield place
    finally:
        half_written.remove(place)


def _base_of(adapter: Path, settings: FromAdapter, *, more: int = 0) -> Checkpoint:
    """The model that an adapter was trained on, turning as it did then: the base's files, where they lie, under the adapter's config.

    more: bytes that are written beside a model of its size.
    """
    name = settings.base or _about(adapter).get("base_model_name_or_path")
    if not name or not isinstance(name, str | Path):
        raise UserError(
            f"{adapter} does not name the model it was trained on; add --base MODEL, the one that was trained"
        )
    base = Checkpoint.open(name, **settings.opening)
    guard.refuse_to_lose(settings.out, [base.path])
    for part in (adapter, base):
        refuse_damaged(part)
    refuse_unknown_code(base)  # by its own name, not by that of the directory that is made of it
    refuse_without_room(settings.out, model_bytes(base) + more)
    if not _is_ours(adapter):
        return base
    if _about(adapter).get(lora.BASE_WEIGHTS) not in (None, base.weights_fingerprint):
        warnings.warn(
            f"{name} has other weights than the model that {adapter} was trained on (they were changed, or are in other files by now), and it "
            "is added to them all the same; give the --base it was trained on if it is another",
            stacklevel=2,
        )
    _warn_of_another_scale(adapter)
    config = read_config(adapter)
    with strange_config(str(adapter)):
        trained = read_rope(config)
    if (base.rope.family, base.rope.rope.head_dim) != (trained.family, trained.rope.head_dim):
        raise UserError(
            f"{adapter} was trained on a {trained.family} model with {trained.rope.head_dim} rotated coordinates a head, and {name} is "
            f"{base.rope.family} with {base.rope.rope.head_dim}; give the --base it was trained on"
        )
    return base.with_config(config if base.trust_remote_code else without_code(config))


def _warn_of_another_scale(adapter: Path) -> None:
    """Nothing in the weights tells lora_alpha; the records of the run do, where the adapter still lies in it."""
    trained, now = asked_of(adapter.absolute().parent).get("lora_alpha"), _about(adapter).get("lora_alpha")
    if trained not in (None, now):
        warnings.warn(
            f"{adapter / ADAPTER_CONFIG} has lora_alpha {now}, and by the run's records it was trained with {trained}: what is added to the base is "
            f"scaled otherwise than in training; write {trained} there again, if that was not meant",
            stacklevel=2,
        )


def _about(adapter: Path) -> dict[str, Any]:
    return read_json(adapter / ADAPTER_CONFIG, what=f"an adapter has an {ADAPTER_CONFIG}")


def _is_ours(adapter: Path) -> bool:
    return is_own_adapter(_about(adapter))


def _attached(base: Checkpoint, adapter: Path) -> peft.PeftModel:
    ours, kind = _is_ours(adapter), _about(adapter).get("peft_type")
    if not ours and kind != _PLAIN:
        raise UserError(f"ropewalk merges adapters of type {_PLAIN}, and {adapter} is {kind!r}; merge it with peft")
    check_safetensors(adapter / lora.WEIGHTS)
    # Sums of products are taken in float32 and rounded once, when the result is saved.
    with on_disk(base) as linked:
        model = load_model(linked, dtype=torch.float32, device="cpu")
    if ours:
        return lora.attach(model, adapter)
    with _fits(adapter), warnings.catch_warnings():
        # peft warns of adapter weights that found no place, and of what its config says to no effect.
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by a name that the latter is giving up
        wrapped = peft.PeftModel.from_pretrained(model, adapter)
    _refuse_left_out(wrapped, adapter)
    return wrapped


def _fits(adapter: Path) -> contextlib.AbstractContextManager[None]:
    """Where peft reads an adapter of somebody's: it may raise anything over what it says of itself."""
    way_out = f"give the --base it was trained on, or mend its {ADAPTER_CONFIG}"
    return told(f"{adapter} cannot be put on its base", way_out, Exception)


def _refuse_left_out(wrapped: peft.PeftModel, adapter: Path) -> None:
    """peft says what an adapter lacks, and leaves out without a word what its config gives no place."""
    with _fits(adapter):
        left_out = peft.set_peft_model_state_dict(wrapped, load_file(adapter / lora.WEIGHTS)).unexpected_keys
    if left_out:
        raise UserError(
            f"the {ADAPTER_CONFIG} of {adapter} gives {several(left_out)} of its weights no place ({listed(left_out)}), and without them "
            "it computes something else; fetch the config that these weights came with, or mend it"
        )
