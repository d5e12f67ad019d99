"""The disk is asked for every checkpoint that a run will write, before its first step.

in   the sizes of a model and of the state that training goes on from; which steps are saved, how many states are kept
out  nothing; or a sentence with the figures and two ways out
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.disk_room import beside_weights, free
from ropewalk.checkpoint.file_limit import refuse_above_limit
from ropewalk.checkpoint.files import system_error
from ropewalk.errors import UserError
from ropewalk.sentences import counted, size_in_words, sizes_apart
from ropewalk.settings.train import TrainSettings
from ropewalk.training.deadline import BY_TIME
from ropewalk.training.optimizer import saved_bytes


@dataclass(frozen=True)
class Writes:
    """What a run will still write.

    Attributes:
        models, states: how many lie on the disk at once that do not lie there yet.
        model, state: bytes of one.
        adapter: bytes of the one that mode lora leaves beside the final model, with the embeddings and norms that it trained.
        by_time: checkpoints that may lie there besides; they come only where the disk has room, and nothing is refused for them.
    """

    models: int
    states: int
    model: int
    state: int
    by_time: int = 0
    adapter: int = 0

    @property
    def total(self) -> int:
        return self.models * self.model + self.states * self.state + self.adapter

    @property
    def adapter_in_words(self) -> str:
        """Behind the models; nothing where there is none."""
        return f", the adapter of {size_in_words(self.adapter)}" * bool(self.adapter)

    @property
    def with_one_more(self) -> Writes:
        """And another checkpoint."""
        return replace(self, models=self.models + 1, states=self.states + 1)

    def __str__(self) -> str:
        return (
            f"on the disk: {size_in_words(self.total)}; {counted(self.models, 'model')} of {size_in_words(self.model)} (each checkpoint's and the final one){self.adapter_in_words}"
            + f", and beside the newest checkpoints, for --resume, {counted(self.states, 'state')} of the optimiser of about {size_in_words(self.state)} (--keep-checkpoints)"
            * bool(self.states)
            + f"; {counted(self.by_time, 'checkpoint')} more, one every {BY_TIME / 60:g} minutes, if the run takes longer than {BY_TIME / 60:g} minutes and there is room"
            * bool(self.by_time)
        )


def writes(
    settings: TrainSettings, model: int, state: int, adapter: int = 0, *, done: int = 0, there: int = 0
) -> Writes:
    """From step `done` to the end, `there` states being kept already.

    Every checkpoint keeps its model; its state goes when newer ones are there, the newest of which is whole before the oldest goes. The final
    model is a link to the last checkpoint's if that is of the last step.
    """
    every, steps = settings.save_steps, settings.steps
    saves = steps // every - done // every if every else 0
    if settings.budget is not None:  # which may end it anywhere, and saves what it came to
        saves = max(saves, 1)
    final = 0 if every and steps % every == 0 else 1
    kept = settings.keep_checkpoints + (settings.watch_stop is not None)  # beside them what a stop goes back to
    at_once = min(there + saves, kept + 1)
    # As many as are kept, and the one being written: the newest may all be by time.
    by_time = min(kept + 1, max(0, steps - done - 1)) if settings.saves_by_time else 0
    return Writes(saves + final, max(0, at_once - there), model, state, by_time, adapter)


def ask(out: Path, settings: TrainSettings, source: Checkpoint, planned: Writes, *, done: int, there: int) -> None:
    """Refuse a run that stands at step `done`, `there` states being kept already, if the disk is too full for what it will write, or a file too large.

    Raises:
        UserError: with what its checkpoints take, what there is, and what would do with less; the process may not write a file of the model's size.
    """
    refuse_above_limit(
        "the model's largest file", max(planned.adapter, *(file.stat().st_size for file in source.weight_files))
    )
    if planned.total <= (room := free(out)):
        return
    seldom, few = (
        writes(less, planned.model, planned.state, planned.adapter, done=done, there=there).total
        for less in (replace(settings, save_every=0), replace(settings, keep_checkpoints=1))
    )
    ways = [
        f"save less often with a larger --save-every (0 writes {size_in_words(seldom)})" * (seldom < planned.total),
        f"keep fewer states with a smaller --keep-checkpoints (1 writes {size_in_words(few)})" * (few < planned.total),
    ]
    ways = [way for way in ways if way and seldom <= room]  # else neither would do
    states = f", {counted(planned.states, 'state')} of {size_in_words(planned.state)} at once" * bool(planned.states)
    takes, has = sizes_apart(planned.total, room)
    raise UserError(
        f"what this run will write takes {takes} ({counted(planned.models, 'model')} of {size_in_words(planned.model)}{planned.adapter_in_words}{states}), and the disk of {settings.out} has {has} free; "
        f"{', or '.join([*ways, 'make room', 'choose another --out'])}"
    )


def is_full(error: UserError) -> bool:
    """Whether a sentence is of a disk, or a quota, without room."""
    return system_error(error.__cause__) in (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def filling(out: Path, size: int) -> Iterator[None]:
    """Where so many bytes are written at `out`: an error of a disk that became full meanwhile says how many they are, and what is free."""
    try:
        yield
    except UserError as error:
        if is_full(error):
            takes, has = sizes_apart(size, free(out))
            error.args = (f"{error}; it takes {takes}, and {has} are free",)
        raise


def still(
    settings: TrainSettings, source: Checkpoint, parameters: Sequence[nn.Parameter], *, done: int, there: int
) -> Writes:
    """What a run that stands at step `done`, `there` states being kept already, will still write."""
    model, state = model_bytes(source), state_bytes(parameters, settings.optimizer)
    adapter = weight_bytes(parameters) if settings.mode == "lora" else 0
    return writes(settings, model, state, adapter, done=done, there=there)


def model_bytes(source: Checkpoint) -> int:
    """Bytes of a model as it is written: its weights, and what lies beside them."""
    return sum(file.stat().st_size for file in source.weight_files) + beside_weights(source.path)


def weight_bytes(weights: Iterable[torch.Tensor]) -> int:
    """Bytes of weights as they are."""
    return sum(weight.numel() * weight.element_size() for weight in weights)


def state_bytes(parameters: Iterable[nn.Parameter], optimizer: str) -> int:
    """Bytes of what training goes on from: the trained weights as the optimiser has them, and its states."""
    return sum(int(p.numel() * (p.element_size() + saved_bytes(optimizer, p))) for p in parameters)
