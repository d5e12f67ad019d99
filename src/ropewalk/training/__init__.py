"""Training at the new window.

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

from ropewalk.records import ModelInfo
from ropewalk.settings.command import takes
from ropewalk.settings.train import TrainSettings

__all__ = ["TrainSettings", "train"]


@takes(TrainSettings)
def train(settings: TrainSettings) -> ModelInfo:
    """Fine-tune a model at a window, after extending it there if its own is shorter.

    Its steps are told by the logger "ropewalk" (docs/training.md).

    Returns:
        The trained model, as records describe it.

    Raises:
        UserError: settings, model, data or disk are not as they must be, or the loss diverged; one sentence.
    """
    from ropewalk.training.loop import run

    return run(settings)
