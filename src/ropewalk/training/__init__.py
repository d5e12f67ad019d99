"""Training at the new window.

setup.py           the processes, and the model they start from: extended, loaded, verified
regime.py          precision and optimiser, where nobody named them
run.py             from settings to the trained model: the way through
loop.py            step, guard, save, resume; standing.py, from where; saving.py, when a checkpoint is written; watching.py, who looks and may end it
batch.py           which windows a step reads; pose.py, at which positions; data_warnings.py, what they leave out or repeat
activations.py     what the layers keep for the backward pass (the reckoning is planner/choice.py); recompute.py, census.py, host_memory.py, tiles.py, the machinery
host_link.py       copies between GPU and host beside the arithmetic; host_adamw.py, AdamW whose moments lie there
retry.py           a step that takes more memory than there is, begun again with less
optimizer.py       AdamW and the learning rate of a step; host_adamw.py, its moments on the host
lora.py            low-rank adapters; low_bits.py, the frozen weights under them in four bits; frozen.py, as their checkpoint stores them
guard.py           when to stop: a lost run, a signal; deadline.py, when --budget is spent
checkpoints.py     models written on the way and at the end; snapshots.py, which of them are whole and kept; training_state.py, what a run goes on from
disk.py            room for all checkpoints, asked before the first step
log.py             where a step is logged; header.py, what stands before the first
throughput.py      how fast a step was; threads.py, with how many CPU threads

The loss of a step is computed in model/loss.py; what it was asked to do stands in settings/train.py.
"""

from __future__ import annotations

from ropewalk.records import ModelInfo
from ropewalk.settings.command import takes
from ropewalk.settings.train import TrainSettings

__all__ = ["TrainSettings", "train"]


@takes(TrainSettings)
def train(settings: TrainSettings) -> ModelInfo:
    """Fine-tune a model at a window, after extending it there if its own is shorter.

    Its steps are records of the logger "ropewalk" (docs/training.md).

    Returns:
        The trained model, as records describe it.

    Raises:
        UserError: settings, model, data or disk are not as they must be, or the loss diverged; one sentence.
    """
    from ropewalk.training.run import run

    return run(settings)
