"""The model a run starts from: extended if its window is shorter, loaded in the precision that training needs, verified.

in   settings
out  `StartingModel`: model, tokenizer, what the model was before, and the dtype its checkpoints are written in

The extended config lies in a temporary directory that links to the original's files: no weight is copied, and what is loaded
goes through the same `model.load` and the same verification as any checkpoint.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers

from ropewalk.checkpoint.files import read_config
from ropewalk.checkpoint.headers import check_safetensors, count_parameters, weight_files
from ropewalk.checkpoint.hub import locate
from ropewalk.checkpoint.model_info import ModelInfo, info_of
from ropewalk.checkpoint.rope_config import RopeConfig, read_rope, write_rope
from ropewalk.distributed import mesh as meshes
from ropewalk.distributed.load import load
from ropewalk.distributed.mesh import Mesh
from ropewalk.errors import UserError
from ropewalk.model.devices import device_for
from ropewalk.model.extend import extended_config
from ropewalk.model.load import load_tokenizer, refuse_remote_code
from ropewalk.rope.scaling import Plain
from ropewalk.settings.train import TrainSettings


@dataclass(frozen=True)
class StartingModel:
    """What training starts from.

    Attributes:
        model: with the new window, in training mode; on its device, or as distributed/load.py leaves it, to be sharded.
        tokenizer: its `model_max_length` is the new window.
        state: as records name it; no step taken.
        dtype: of the weights in the original's files, in which checkpoints are written.
        compute: of the arithmetic; float32, or bfloat16 under autocast.
        fingerprint: of the original's config and tensors, so that a resumed run starts from the same ones.
    """

    model: transformers.PreTrainedModel
    tokenizer: transformers.PreTrainedTokenizerBase
    state: ModelInfo
    dtype: torch.dtype
    compute: torch.dtype
    fingerprint: str


def starting_model(settings: TrainSettings, mesh: Mesh | None = None) -> StartingModel:
    """Locate, extend, load and verify. Several processes read the weights once, for `Mesh.shard` to spread: see distributed/load.py.

    Raises:
        UserError: what `extend` and `model.load` raise; a window below the model's own.
    """
    source = locate(settings.model, trust_remote_code=settings.trust_remote_code)
    config_dict = read_config(source)
    new = new_config(config_dict, settings)
    files = weight_files(source)
    device = device_for(settings.device) if mesh is None else mesh.device
    weights, compute = precision(settings, device)
    if mesh is not None and mesh.world > 1 and settings.mode == "lora":
        weights = torch.float32  # a sharded layer has one dtype
    with _directory_with(new, source) as directory:
        model = load(directory, mesh, dtype=weights, device=device, trust_remote_code=settings.trust_remote_code)
        tokenizer = load_tokenizer(directory, trust_remote_code=settings.trust_remote_code)
    _lengthen(model, tokenizer, read_rope(config_dict).window, settings.window)
    state = info_of(read_rope(new), name=str(settings.model), parameters=count_parameters(files))
    return StartingModel(
        model=model.train(),
        tokenizer=tokenizer,
        state=replace(state, steps=0),
        dtype=_stored_dtype(files[0]),
        compute=compute,
        fingerprint=_fingerprint(config_dict, files),
    )


def mesh_for(settings: TrainSettings) -> Mesh:
    """The processes that torchrun started, or this one alone.

    Raises:
        UserError: no such device; the batch or the window cannot be divided among them.
    """
    device = device_for(settings.device)
    mesh = meshes.start(
        cp=settings.cp, replicas=settings.replicas, device=device.type if settings.device is None else device
    )
    # Left when the process ends, not with the run: processes that left cannot meet a second time under one torchrun.
    atexit.register(mesh.close)
    if settings.batch_size % mesh.data_size:
        raise UserError(
            f"every device reads as many windows a step, so --batch-size is a multiple of {mesh.data_size} here, got "
            f"{settings.batch_size}; change it, or the number of processes"
        )
    return mesh


def trained_config(settings: TrainSettings) -> RopeConfig:
    """How the model will turn in training, before anything is loaded.

    Raises:
        UserError: as `starting_model`.
    """
    source = locate(settings.model, trust_remote_code=settings.trust_remote_code)
    config_dict = read_config(source)
    refuse_remote_code(config_dict, source, settings.trust_remote_code)
    weight_files(source)
    return read_rope(new_config(config_dict, settings))


def new_config(config_dict: dict[str, Any], settings: TrainSettings) -> dict[str, Any]:
    """The config that is trained: the original's own if the window is already there, else extended by the method."""
    rope_config = read_rope(config_dict)
    if settings.window < rope_config.window:
        raise UserError(
            f"the model reads {rope_config.window} tokens already, more than the window {settings.window}; train at {rope_config.window} or more, "
            "or start from the model it was extended from"
        )
    if settings.window > rope_config.window and settings.method != "plain":
        return extended_config(
            config_dict, window=settings.window, method=settings.method, current_window=settings.current_window
        )
    if rope_config.block and settings.window == rope_config.window:
        return config_dict
    if not isinstance(rope_config.scaling, Plain):
        raise UserError(
            f"this model is scaled ({rope_config.scaling.method}, factor {rope_config.scaling.factor:g}) by another tool; extend it with `ropewalk "
            "extend` first, so that its windows are on record, then train the result"
        )
    # Direct fine-tuning, or more training at the same window: the speeds stay, and the block says so.
    block = {
        "original_window": rope_config.rope.window,
        "window": settings.window,
        "method": "plain",
        "factor": 1.0,
        "theta": rope_config.rope.base,
        "steps": 0,
        "history": [{"method": "plain", "factor": 1.0, "from": rope_config.window, "to": settings.window}],
    }
    return write_rope(config_dict, rope_config.scaling, window=settings.window, rope=rope_config.rope, block=block)


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
def _directory_with(config_dict: dict[str, Any], source: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ropewalk-") as folder:
        directory = Path(folder)
        for path in source.iterdir():
            if path.is_file() and path.name != "config.json":
                (directory / path.name).symlink_to(path.resolve())
        (directory / "config.json").write_text(json.dumps(config_dict), encoding="utf-8")
        yield directory


def _lengthen(model: Any, tokenizer: Any, old: int, window: int) -> None:
    """As `ropewalk extend` does to the files: the tokenizer's length always, generation's where it named the old window."""
    tokenizer.model_max_length = window
    generation = getattr(model, "generation_config", None)
    if generation is not None and generation.max_length == old:
        generation.max_length = window


def _stored_dtype(file: Path) -> torch.dtype:
    names = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
    stored = {entry["dtype"] for name, entry in check_safetensors(file).items() if name != "__metadata__"}
    return next((dtype for name, dtype in names.items() if name in stored), torch.float32)


def _fingerprint(config_dict: dict[str, Any], files: list[Path]) -> str:
    digest = hashlib.sha256(json.dumps(config_dict, sort_keys=True).encode())
    for file in files:
        digest.update(json.dumps(check_safetensors(file), sort_keys=True).encode())
    return digest.hexdigest()[:16]
