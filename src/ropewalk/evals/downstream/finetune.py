"""Fine-tuning a model to summarise: training on pairs, the loss on the summary alone (section 3.5).

in   a model, pairs of documents and summaries
out  a trained checkpoint, its records.jsonl beside it

All but the rows is the training loop's (training/loop.py): optimiser, precision, checkpoints, resuming.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.checkpoint import Checkpoint, ModelName
from ropewalk.distributed.mesh import Mesh
from ropewalk.evals.downstream.generation import end_marks
from ropewalk.evals.downstream.pairs import WINDOW, Pair, PairRows, Sizes, pairs, refuse_shared
from ropewalk.model.devices import device_for
from ropewalk.records import ModelInfo
from ropewalk.settings.train import TrainSettings
from ropewalk.training.batch import Batches, default_micro
from ropewalk.training.loop import Loop
from ropewalk.training.regime import settled
from ropewalk.training.run import directory_of
from ropewalk.training.setup import starting_model, trained_checkpoint

#: Passes over the pairs (section 3.5).
EPOCHS = 10


def finetune(
    model: ModelName,
    *,
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    held_out: Sequence[Pair] = (),
    window: int | None = None,
    document_tokens: int | None = None,
    summary_tokens: int | None = None,
    epochs: int = EPOCHS,
    batch_size: int = 64,
    limit: int | None = None,
    **options: Any,
) -> ModelInfo:
    """Fine-tune on pairs.

    Args:
        model: `hemp`, a local directory, a hub id or an open checkpoint.
        data: pairs to train on; see pairs.pairs.
        out: directory of the trained model, its checkpoints and records.jsonl.
        held_out: pairs that will be measured on; training is refused if one of them is in `data`.
        window: tokens; the paper's 16384, or the model's own window where that is shorter. A longer one extends the model.
        document_tokens, summary_tokens: 15000 and 1000 (section 3.5), or what fits a smaller window.
        epochs: passes over the pairs (section 3.5: 10).
        batch_size: pairs a step over all devices; not stated in section 3.5, here section 3.1's 64.
        limit: the first so many pairs.
        options: any other field of TrainSettings, `resume` among them.

    Returns:
        The `ModelInfo` of the trained model.

    Raises:
        UserError: pairs that cannot be read or are in `held_out`; sizes that do not fit the window; what training raises.
    """
    training_pairs = list(pairs(data))[:limit]
    refuse_shared(training_pairs, held_out)
    checkpoint = Checkpoint.open(model)
    window = window or min(WINDOW, checkpoint.info.window)
    batch_size = min(batch_size, max(1, len(training_pairs)))
    sources = [str(source) for source in ([data] if isinstance(data, str | Path) else data)]
    steps = max(1, math.ceil(epochs * len(training_pairs) / batch_size))
    # About once an epoch, and always at the end, so that --resume does not train a finished model again.
    options.setdefault(
        "save_every", next(every for every in range(max(1, steps // epochs), steps + 1) if steps % every == 0)
    )
    settings = TrainSettings(
        model=checkpoint, data=sources, window=window, out=out, steps=steps, batch_size=batch_size, **options
    )
    with directory_of(settings) as place:
        return _run(settings, training_pairs, document_tokens, summary_tokens, place)


def _run(
    settings: TrainSettings,
    training_pairs: Sequence[Pair],
    document_tokens: int | None,
    summary_tokens: int | None,
    out: Path,
) -> ModelInfo:
    checkpoint, mesh = trained_checkpoint(settings), Mesh(device_for(settings.device))
    given, settings = settings.micro_batch, settled(settings, checkpoint, mesh, out)
    start = starting_model(settings, checkpoint=checkpoint)
    sizes = Sizes.fitting(start.tokenizer, settings.window, document_tokens, summary_tokens)
    ends = end_marks(start.tokenizer, start.model)
    rows = PairRows(training_pairs, start.tokenizer, sizes, end=ends[0] if ends else None)
    micro = settings.micro_batch or default_micro(settings.window, settings.batch, mesh.device)
    return Loop(replace(settings, micro_batch=given), start, Batches(rows, settings, micro), mesh, out).run()
