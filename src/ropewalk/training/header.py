"""What stands on record of a run before its first step.

in   settings, the model it starts from, the windows it reads, its devices
out  the header of its records: device, precision, seed, every setting as it was settled, digests of the files it reads
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from ropewalk import records
from ropewalk.data.documents import Document, digest_of_all, kind_of
from ropewalk.distributed.mesh import Mesh
from ropewalk.model.devices import device_name
from ropewalk.settings.mixture import sources_of
from ropewalk.settings.train import TrainSettings
from ropewalk.training.batch import Batches
from ropewalk.training.setup import StartingModel


def header_of(
    settings: TrainSettings, start: StartingModel, batches: Batches, mesh: Mesh, *, peak: float, weights: torch.dtype
) -> records.Run:
    """The header of a run. peak: its highest learning rate. weights: dtype of what is trained."""
    asked = dataclasses.asdict(dataclasses.replace(settings, model=str(settings.model), data=_named(settings.data)))
    asked["watch_data"] = _named(settings.watch_data or ())
    return records.new_run(
        start.info,
        device=device_name(mesh.device),
        dtype=f"{_short(weights)} weights, {_short(start.compute)} arithmetic",
        seed=settings.seed,
        settings={
            **{key: str(value) if isinstance(value, Path) else value for key, value in asked.items()},
            "learning_rate": peak,
            "warmup": settings.warmup_steps,
            "micro_batch": batches.micro,
            "world_size": mesh.world,
            "cpu_threads": torch.get_num_threads(),
            "model_fingerprint": start.fingerprint,
            "windows": len(batches.windows),
            "digests": digests_of(settings) if mesh.main else {},
            "sources": [dataclasses.asdict(reading) for reading in batches.readings],
        },
    )


def _named(data: Any) -> list[str]:
    """What was trained on, as the records name it."""
    return [source.name if isinstance(source, Document) else str(source) for source in _listed(data)][:1000]


def _listed(given: Any) -> list[Any]:
    """What a setting names, where it may name one thing alone, or nothing."""
    return [given] if isinstance(given, str | Path) else list(given or ())


def digests_of(settings: TrainSettings) -> dict[str, str]:
    """Setting → digest of the files that it names, as a row of `ablate` has them; none of what is streamed or was in memory."""
    digests = {}
    for name in ("data", "scores", "watch_data"):
        words = _listed(getattr(settings, name))
        files = [word for word in words if not isinstance(word, Document)]
        if files and len(files) == len(words) and "hub" not in map(kind_of, sources_of(files)):
            digests[name] = digest_of_all(files)
    return digests


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
