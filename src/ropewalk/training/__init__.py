"""Training at the new window.

settings.py    what a run is asked to do; the paper's recipe as defaults
start.py       the model it starts from: extended, loaded, verified
batch.py       which windows a step reads
loop.py        step, guard, save, resume: the way through
optimizer.py   AdamW and the learning rate of a step
guard.py       when to stop: a lost run, a signal
snapshot.py    checkpoints that are whole or absent
store.py, save.py   what is in them
lora.py, pose.py    the other two modes
speed.py, log.py    how fast, and where it is told
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ropewalk.data.documents import Document
from ropewalk.records import ModelInfo
from ropewalk.settings.train import TrainSettings

__all__ = ["TrainSettings", "train"]


def train(
    model: str | Path,
    *,
    data: str | Path | Sequence[str | Path] | Sequence[Document],
    window: int,
    out: str | Path,
    steps: int = 1000,
    **options: Any,
) -> ModelInfo:
    """Fine-tune a model at a window, after extending it there if its own is shorter.

    Args:
        model: `hemp`, a local directory or a hub id.
        data: files, directories, data-set ids, or documents.
        window: L', tokens.
        out: directory of the trained model, its checkpoints and records.jsonl.
        steps: optimiser steps (1000 in section 3.1 of the paper).
        options: any other field of `TrainSettings`.

    Returns:
        The state of the trained model.

    Raises:
        UserError: see `loop.run`; TypeError for an option that does not exist.
    """
    from ropewalk.training.loop import run

    settings = TrainSettings(model=model, data=data, window=window, out=out, steps=steps, **options)
    return run(settings)
