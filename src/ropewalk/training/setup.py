"""The model a run starts from: extended if its window is shorter, loaded in the precision that training needs, verified.

in   settings
out  `StartingModel`: model, tokenizer, and the checkpoint it was

The extended config lies in a temporary directory that links to the original's files: no weight is copied, and what is loaded
goes through the same `model.load` and the same verification as any checkpoint.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.files import write_json
from ropewalk.checkpoint.longer import refuse_as_it_is, rotated_apart
from ropewalk.checkpoint.model_info import ModelInfo
from ropewalk.checkpoint.position_table import Positions, PositionTable, same_positions, write_positions
from ropewalk.checkpoint.tensor_problems import refuse_quantised
from ropewalk.distributed import mesh as meshes
from ropewalk.distributed import ranks
from ropewalk.distributed.load import load
from ropewalk.distributed.mesh import Mesh
from ropewalk.errors import UserError
from ropewalk.model.architecture import freeze_encoders
from ropewalk.model.carry import link_weights
from ropewalk.model.devices import device_for
from ropewalk.model.extend import extended_config, history_of, prove_extension
from ropewalk.model.load import load_tokenizer, refuse_unusable
from ropewalk.model.position_table import interpolate_in_place
from ropewalk.readers.digest_checks import warn_of_changes
from ropewalk.readers.refusals import refuse_wrong
from ropewalk.readers.spelling_checks import warn_of_spellings
from ropewalk.rope.scaling import Plain
from ropewalk.settings.train import TrainSettings
from ropewalk.settings.windows import forgotten_k
from ropewalk.training import low_bits
from ropewalk.training.optimizer import refuse_offload

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StartingModel:
    """What training starts from.

    Attributes:
        model: with the new window, in training mode; on its device, or as distributed/load.py leaves it, to be sharded.
        tokenizer: its `model_max_length` is the new window.
        info: as records name it; no step taken.
        positions: what the trained config says of RoPE or of a learned table, which the model is held against.
        source: the original, whose dtypes and small files the checkpoints have.
        compute: of the arithmetic; float32, or bfloat16 under autocast.
        chunk: tokens of one in mode pose.
        fingerprint: of the original's config, tokenizer and every weight, so that a resumed run starts from the same ones.
    """

    model: transformers.PreTrainedModel
    tokenizer: transformers.PreTrainedTokenizerBase
    info: ModelInfo
    positions: Positions
    source: Checkpoint
    compute: torch.dtype
    fingerprint: str
    chunk: int | None = None


def starting_model(
    settings: TrainSettings, mesh: Mesh | None = None, *, checkpoint: Checkpoint | None = None
) -> StartingModel:
    """Load and verify. Several processes read the weights once, for `Mesh.shard` to spread: see distributed/load.py.

    Args:
        mesh: the processes that share the model; None is one.
        checkpoint: what `trained_checkpoint` returned, if it was called already.

    Raises:
        UserError: what `trained_checkpoint` and `model.load` raise.
    """
    checkpoint = checkpoint or trained_checkpoint(settings)
    source = checkpoint.weights_of or checkpoint
    if settings.chunk_window and (mesh is None or mesh.main):
        if question := forgotten_k("--chunk-window", settings.chunk_window, source.positions.window):
            _logger.warning(question)
    device = device_for(settings.device) if mesh is None else mesh.device
    weights, compute = precision(settings, device)
    if mesh is not None and mesh.world > 1 and settings.mode == "lora":
        weights = torch.float32  # a sharded layer has one dtype
    info = dataclasses.replace(
        checkpoint.info, steps=0
    )  # read before the checkpoint is linked: what was read stays with it
    with on_disk(checkpoint) as linked:
        if settings.base_bits:
            model = low_bits.load(linked, dtype=weights, device=device)
        else:
            model = load(linked, mesh, dtype=weights, device=device)
        tokenizer = load_tokenizer(linked)
    if mesh is None or mesh.main:
        warn_of_changes(source)
    freeze_encoders(model)
    _lengthen(model, tokenizer, source.positions.window, settings.window)
    return StartingModel(
        model=model.train(),
        tokenizer=tokenizer,
        info=info,
        positions=checkpoint.positions,
        source=source,
        compute=compute,
        chunk=settings.tokens_in_memory(checkpoint.positions.original_window) if settings.mode == "pose" else None,
        fingerprint=ranks.same(source.fingerprint if mesh.main else "") if mesh is not None else source.fingerprint,
    )


def mesh_for(settings: TrainSettings) -> Mesh:
    """The processes that torchrun started, or this one alone.

    Raises:
        UserError: no such device; the window cannot be divided among them.
    """
    device = device_for(settings.device)
    mesh = meshes.start(
        cp=settings.cp, replicas=settings.replicas, device=device.type if settings.device is None else device
    )
    # Left when the process ends, not with the run: processes that left cannot meet a second time under one torchrun.
    atexit.register(mesh.close)
    return mesh


def settled_for(settings: TrainSettings, checkpoint: Checkpoint, mesh: Mesh) -> TrainSettings:
    """The settings with what their defaults make of the model that is trained.

    Raises:
        UserError: the batch cannot be divided among the processes; an optimiser that these devices have no use for.
    """
    refuse_offload(settings, mesh.device, mesh.world)
    if settings.base_bits and mesh.world > 1:
        raise UserError(
            f"--base-bits {settings.base_bits} trains in one process, and there are {mesh.world}; leave it out, and the weights are shared out, or "
            "start without torchrun"
        )
    if (
        mesh.main
        and settings.watch_stop is not None
        and settings.save_every is not None
        and not 0 < settings.save_every < settings.steps
    ):
        _logger.warning(
            f"--watch-stop goes back to the last checkpoint before the old window suffered, and --save-every {settings.save_every} keeps none before the "
            f"end: it would leave the worse model; leave --save-every out, or give {settings.watch_every}, as --watch-every"
        )
    settings = settings.for_model(ranks.same(checkpoint.info.parameters if mesh.main else 0))
    if settings.batch % mesh.data_size:
        raise UserError(
            f"every device reads as many windows a step, so --batch-size is a multiple of {mesh.data_size} here, got "
            f"{settings.batch}; change it, or the number of processes"
        )
    return settings


def trained_checkpoint(settings: TrainSettings) -> Checkpoint:
    """The checkpoint that is trained, before anything is loaded: the named one's weights under the config of the new window.

    Raises:
        UserError: what `extend` raises; a window below the model's own.
    """
    source = Checkpoint.open(settings.model, **settings.opening)
    refuse_unusable(source)
    warn_of_spellings(source, makes=True)
    refuse_quantised(source)
    refuse_wrong(source)  # what is found when the trained model is written has cost the training
    config_dict = new_config(source, settings)
    if config_dict is source.config:
        trained = source
    else:
        trained = source.with_config(config_dict)
        prove_extension(source, trained, settings)
    if settings.cp > 1 and (refusal := rotated_apart(trained.positions)):
        raise UserError(refusal)
    return trained


def new_config(source: Checkpoint, settings: TrainSettings) -> dict[str, Any]:
    """The config that is trained: the original's own if the window is already there, else extended by the method."""
    positions = source.positions
    if settings.raise_sliding_window:
        return extended_config(source, window=settings.window, options=settings)
    if settings.window < positions.window:
        raise UserError(
            f"the model reads {positions.window} tokens already, more than the window {settings.window}; train at {positions.window}, "
            "or at more with --method auto, or start from the model it was extended from"
        )
    if settings.window > positions.window and settings.method != Plain.method:
        return extended_config(source, window=settings.window, options=settings)
    refuse_as_it_is(positions, settings.window, settings.method, settings.parameters)
    if positions.block and settings.window == positions.window:
        if not positions.block.get("steps"):
            return source.config
        block = {**positions.block, "steps": 0, "history": history_of(positions)}
        return write_positions(source.config, positions, window=positions.window, block=block)
    # Direct fine-tuning, or more training at the same window: positions stay, and the block says so.
    step = {"method": positions.scaling.method, "factor": 1.0, "from": positions.window, "to": settings.window}
    return same_positions(source.config, positions, window=settings.window, step=step)


def precision(settings: TrainSettings, device: torch.device) -> tuple[torch.dtype, torch.dtype]:
    """(dtype of the weights, dtype of the arithmetic)."""
    chosen = settings.precision
    if chosen == "auto":
        chosen = "bfloat16" if device.type == "cuda" else "float32"
    if chosen == "float32":
        return torch.float32, torch.float32
    if chosen == "bfloat16":
        # Frozen weights are not updated, so nothing vanishes in them; what is trained is put into float32 (lora.add).
        return (torch.bfloat16 if settings.mode == "lora" else torch.float32), torch.bfloat16
    return torch.bfloat16, torch.bfloat16


@contextlib.contextmanager
def on_disk(checkpoint: Checkpoint) -> Iterator[Checkpoint]:
    """A checkpoint whose config is not its directory's, in a temporary directory that links to the files of that one."""

    def link(file: Path, target: Path) -> None:
        target.symlink_to(file.resolve())

    with tempfile.TemporaryDirectory(prefix="ropewalk-") as folder:
        directory = Path(folder)
        link_weights(checkpoint, directory, link)
        for path in checkpoint.path.iterdir():
            linked = (directory / path.name).exists()  # a directory of shards
            if not linked and path.name != "config.json" and not path.name.endswith((".safetensors", ".index.json")):
                link(path, directory / path.name)
        write_json(directory / "config.json", checkpoint.config)
        before = (checkpoint.weights_of or checkpoint).positions
        if isinstance(before, PositionTable) and before.window != checkpoint.positions.window:
            config_dict = interpolate_in_place(directory, before, name=checkpoint.name)
            yield Checkpoint(checkpoint.name, directory, config_dict)
        else:
            yield checkpoint.at(directory)


def _lengthen(model: Any, tokenizer: Any, old: int, window: int) -> None:
    """As `ropewalk extend` does to the files: the tokenizer's length always, generation's where it named the old window."""
    tokenizer.model_max_length = window
    generation = getattr(model, "generation_config", None)
    if generation is not None and generation.max_length == old:
        generation.max_length = window
