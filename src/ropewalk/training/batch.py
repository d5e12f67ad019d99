"""The micro batches of a step: which windows, at which positions, as tensors on a device.

in   a step's number
out  `Micro` batches whose summed losses add up to the step's

What a step reads is a pure function of (seed, step) and of nothing else; devices and micro batches only divide it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.rope_config import RopeConfig
from ropewalk.data.best_fit import FittedBlocks
from ropewalk.data.encode import check_ids
from ropewalk.data.mixture import Mixture, Part, Reading, readings_of
from ropewalk.data.packing import PackedBlocks, TrainingRows
from ropewalk.data.scores import Chosen, chosen_by
from ropewalk.data.token_corpus import TokenCorpus
from ropewalk.data.tokenising import Tokenising
from ropewalk.distributed import ranks
from ropewalk.distributed.mesh import Mesh
from ropewalk.errors import UserError
from ropewalk.model.devices import to_device
from ropewalk.model.load import load_tokenizer
from ropewalk.settings.budget import micro_windows
from ropewalk.settings.mixture import Group
from ropewalk.settings.train import TrainSettings
from ropewalk.settings.windows import perhaps_thousands
from ropewalk.training import pose
from ropewalk.training.data_warnings import warn_of_data

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Micro:
    """One forward and backward pass.

    Attributes:
        rows: whole sequences: `input_ids`, `labels`, and positions or a mask where the mode has them.
        blocks: numbers of the windows in it.
    """

    rows: dict[str, Tensor] = field(repr=False)
    blocks: list[int]


@dataclass(frozen=True)
class Batches:
    """Where micro batches come from.

    Attributes:
        windows: the packed corpus; of the short window in mode "pose".
        settings: of the run.
        micro: windows in a micro batch.
        readings: what a whole run reads of each source.
    """

    windows: TrainingRows
    settings: TrainSettings
    micro: int
    readings: tuple[Reading, ...] = ()

    def __post_init__(self) -> None:
        short, long = self.windows.window, self.settings.window
        if self.settings.mode == "pose" and short >= long:
            raise UserError(
                f"mode pose skips positions between the {short} tokens in memory and a longer window, and {long} is not longer{perhaps_thousands(long, short)}; ask for a "
                "longer --window, for a shorter --chunk-window, or for mode full"
            )

    def with_micro(self, most: int | None) -> Batches:
        """With so many windows in a micro batch at the most; as they are if None."""
        return replace(self, micro=min(self.micro, most or self.micro))

    def blocks(self, step: int) -> np.ndarray:
        """The windows of the whole step, over all devices."""
        places = np.arange(step * self.settings.batch, (step + 1) * self.settings.batch)
        return np.asarray(self.windows.order(self.settings.seed, places))

    def micro_batches(self, step: int, mesh: Mesh) -> Iterator[Micro]:
        """This process's micro batches of step `step` (from 0), made one by one."""
        places = np.arange(mesh.data_rank, self.settings.batch, mesh.data_size)
        blocks = self.blocks(step)
        for first in range(0, len(places), self.micro):
            chosen = places[first : first + self.micro]
            yield Micro(self._rows(step, chosen, blocks[chosen], mesh.device), blocks[chosen].tolist())

    def _rows(self, step: int, places: np.ndarray, blocks: np.ndarray, device: torch.device) -> dict[str, Tensor]:
        rows = self.windows.rows(blocks, mask_documents=self.settings.mask_documents)
        if self.settings.mode == "pose":
            rows["position_ids"] = self._skipped(step, places, rows["position_ids"])
            if not self.in_documents:
                # Without a mask transformers takes a jump in the positions for the border of a packed document and lets nothing attend
                # across it, which is just what this mode trains. A mask of ones says: one sequence.
                rows["attention_mask"] = np.ones_like(rows["input_ids"])
        elif not self.in_documents:
            del rows[
                "position_ids"
            ]  # 0 .. W - 1 is what a model assumes, and given them it would look for document borders
        return {name: to_device(torch.from_numpy(value), device) for name, value in rows.items()}

    @property
    def in_documents(self) -> bool:
        """Whether attention ends within a row, where positions begin again at 0."""
        return self.settings.mask_documents or self.windows.restarts

    def _skipped(self, step: int, places: np.ndarray, plain: np.ndarray) -> np.ndarray:
        """Each sequence of a run has a number, and by it its positions."""
        seed, first, long = self.settings.seed, step * self.settings.batch, self.settings.window
        numbers = (first + int(place) for place in places)
        return np.stack([pose.in_documents(seed, *row, long) for row in zip(numbers, plain, strict=True)])

    def names(self, blocks: list[int]) -> list[str]:
        """The documents that windows read from, each once."""
        return list(dict.fromkeys(name for block in blocks for name in self.windows.names(block)))


def batches_of(settings: TrainSettings, checkpoint: Checkpoint, mesh: Mesh) -> Batches:
    """The packed blocks of a run's data, tokenised once on each machine, as micro batches.

    Raises:
        UserError: data that cannot be read, is too short or has tokens that the model has no embedding for; a window that cannot be divided among the devices that share it.
    """
    window = settings.tokens_in_memory(checkpoint.positions.original_window)
    mesh.check_window(window)
    parts = _parts(settings, load_tokenizer(checkpoint), window, mesh)
    windows = parts[0].rows if len(parts) == 1 else Mixture(parts)
    micro = settings.micro_batch or default_micro(window, settings.batch // mesh.data_size, mesh.device)
    by_length = isinstance(checkpoint.positions, RopeConfig) and checkpoint.positions.turns_by_length
    if windows.restarts and by_length:
        # The model chooses its factors by the farthest position that it sees: short windows beside a long one would be turned as that is.
        micro = 1
    spread_over = settings.window if settings.mode == "pose" else None
    read = settings.steps * settings.batch
    readings = readings_of(parts, read, settings.seed, mask_documents=settings.mask_documents, spread_over=spread_over)
    batches = Batches(windows, settings, micro, readings)
    if mesh.main:
        warn_of_data(settings, parts, readings, window, mesh)
    return batches


def _parts(settings: TrainSettings, tokenizer: Any, window: int, mesh: Mesh) -> list[Part]:
    """The sources of a run, tokenised and packed, with their shares."""
    groups = settings.groups
    weights = sum(group.weight or 0 for group in groups)
    chosen = _chosen(settings)
    if chosen is not None and mesh.main:
        _logger.info(str(chosen))
    parts = []
    for group in groups:
        if (group.length or 0) > window:
            raise UserError(
                f"a source's length is at most the window, {window} tokens, and {group.name} has {group.length}; ask for a longer --window"
            )
        corpus = ranks.first_on_each_machine(_tokenising(group, settings, tokenizer, window, chosen).corpus)
        check_ids(tokenizer, corpus.ids)  # what was kept from an earlier run is not encoded again
        parts.append((group, corpus, _packed(group, corpus, settings, window)))
    if settings.loss == "answers" and all(corpus.marks is None for _, corpus, _ in parts):
        raise UserError(
            "--loss answers is of conversations, and --data holds none, so that every token counts; leave it out, or name the turns with --field"
        )
    total = sum(len(rows) for _, _, rows in parts)
    return [
        Part(
            group.name,
            rows,
            group.weight / weights if group.weight is not None else len(rows) / total,
            rows.length,
            corpus,
        )
        for group, corpus, rows in parts
    ]


def _packed(group: Group, corpus: TokenCorpus, settings: TrainSettings, window: int) -> FittedBlocks | PackedBlocks:
    """A source's rows.

    Raises:
        UserError: a length that mode pose keeps nothing of; documents that are too short.
    """
    if settings.mode == "pose" and group.length:
        raise UserError(
            f"mode pose moves texts apart over the whole window, and a length (as in 0.1@8k) keeps them together, as of {group.name}; use --mode "
            "full, or leave the length out"
        )
    if not settings.allow_short and not group.allow_short:
        _refuse_short(group, corpus, window, settings.option_in_memory)
    option = f"length than {group.word()} has" if group.length else settings.option_in_memory
    packed = (
        partial(FittedBlocks, option=option)
        if corpus.marks is not None or settings.packing == "best-fit"
        else PackedBlocks
    )
    try:
        return packed(corpus, window, length=group.length)
    except UserError as error:
        raise UserError(f"{group.name}: {error}") from None


def _chosen(settings: TrainSettings) -> Chosen | None:
    return None if settings.scores is None else chosen_by(settings.scores, settings.keep, weigh=settings.weigh)


def _tokenising(
    group: Group, settings: TrainSettings, tokenizer: Any, window: int, chosen: Chosen | None
) -> Tokenising:
    """A source of a run, and how it is read."""
    weights = sum(group.weight or 0 for group in settings.groups)
    share = group.weight / weights if group.weight is not None else 1.0
    return Tokenising(
        group.sources,
        tokenizer,
        field=settings.field,
        limit=math.ceil(settings.steps * settings.batch * window * share) + 1,
        seed=settings.seed,
        loss=settings.loss,
        conversations=True,
        control=settings.live_control_tokens,
        chosen=chosen,
    )


def estimates_of(settings: TrainSettings, checkpoint: Checkpoint) -> tuple[list[Reading], float]:
    """About what a run reads of each source, and seconds in which they are tokenised; nothing where `batches_of` says it in a moment: what it reads
    is short, or kept from an earlier run.

    Raises:
        UserError: data that cannot be read.
    """
    window, tokenizer = settings.tokens_in_memory(checkpoint.positions.original_window), load_tokenizer(checkpoint)
    chosen = _chosen(settings)
    groups = [(group, _tokenising(group, settings, tokenizer, window, chosen)) for group in settings.groups]
    sizes = [texts.long_size() for _, texts in groups]
    if not any(sizes):
        return [], 0.0
    tokens = [len(texts.corpus().ids) if size is None else int(float(f"{size.tokens:.3g}")) for (_, texts), size in zip(groups, sizes, strict=True)]  # fmt: skip
    weights = [group.weight if group.weight is not None else count for (group, _), count in zip(groups, tokens, strict=True)]  # fmt: skip
    read, spread_over = settings.steps * settings.batch, settings.window if settings.mode == "pose" else None
    readings = []
    for (group, _), count, weight in zip(groups, tokens, weights, strict=True):
        windows, share = max(1, count // window), weight / sum(weights)
        readings.append(Reading(group.name, count, windows, group.length or window, share, read * share / windows, spread_over=spread_over))  # fmt: skip
    return readings, sum(size.seconds for size in sizes if size is not None)


def _refuse_short(group: Group, corpus: TokenCorpus, window: int, option: str) -> None:
    """Packed short documents teach no range that is longer than they are; conversations are short as they come. option: by which the window is asked for.

    Raises:
        UserError: no document is as long as the window, or the length at which its source is read.
    """
    length, longest = group.length or window, corpus.longest
    if corpus.marks is not None or longest >= length:
        return
    at = f"the length of its word {group.word()}" if group.length else "the window"
    shorter = f"a shorter length ({group.word(length=longest)})" if group.length else f"a shorter {option}"
    raise UserError(
        f"a source needs a document as long as it is read, and {group.name} is read at {length} tokens, {at}, where the longest of {len(corpus.names)} has "
        f"{longest} and the median {np.median(corpus.lengths):.0f}; give longer ones or {shorter}, or have the short ones of this source packed by {group.word(short=True)} "
        "after it, those of all sources by --allow-short"
    )


def default_micro(window: int, batch: int, device: torch.device) -> int:
    """Windows at a time on a device, where no number is asked for."""
    return micro_windows(window, batch, on_gpu=device.type == "cuda")
