"""The items of a measurement written into a directory, without a model's forward passes: to look at, and for others to check.

in   the settings of `ruler`, of which those of the model's passes do not matter; a directory
out  a file a task and length, each item a JSON line: the items that `ruler` measures with these settings
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from ropewalk import records
from ropewalk.checkpoint.checkpoint import Checkpoint, ModelName
from ropewalk.checkpoint.files import whole_directory
from ropewalk.checkpoint.tensor_problems import embedding_rows
from ropewalk.data.encode import encode, limit_ids
from ropewalk.errors import UserError
from ropewalk.evals.long_context.drawing import item, lengths, nothing_fits, of_what
from ropewalk.evals.long_context.items import Item, TooSmall
from ropewalk.evals.long_context.source import Source
from ropewalk.evals.long_context.tasks import TASKS
from ropewalk.model.load import load_tokenizer
from ropewalk.progress import Progress, is_first_process
from ropewalk.sentences import counted
from ropewalk.settings.measure import RulerSettings

_logger = logging.getLogger(__name__)


def write_items(settings: RulerSettings, out: str | Path) -> int:
    """Make all items of a measurement, and write them.

    Args:
        settings: of the measurement; its model is named, since its tokenizer and its windows are all that is read of it.
        out: a directory that is not there yet.

    Returns:
        How many items were written; of several processes by the first one, the others write none.

    Raises:
        UserError: what `ruler` refuses of tasks, lengths and files; `out` is there already or cannot be written.
    """
    if not is_first_process():
        return 0
    if not isinstance(settings.model, ModelName):
        raise UserError("items are written for a model that is named, got an object; pass its directory or hub id")
    if Path(out).exists():
        raise UserError(f"items are written into a directory that is not there yet, but {out} exists; name another one")
    checkpoint = Checkpoint.open(settings.model, **settings.opening)
    windows = sorted({*(settings.windows or lengths(checkpoint.info.window, checkpoint.info.original_window))})
    if (tokenizer := settings.tokenizer) is None:
        tokenizer = load_tokenizer(checkpoint)
    else:
        limit_ids(tokenizer, embedding_rows(checkpoint))
    source = Source(tokenizer, windows[-1], settings.data, settings.questions, settings.needle)
    names, _ = of_what(settings.tasks, source, windows)
    unfit: list[records.Unfit] = []
    with whole_directory(out) as directory:
        for window in windows:
            for name in names:
                start = time.perf_counter()
                try:
                    items = _made(source, name, window, settings)
                except TooSmall as small:
                    unfit.append(records.Unfit(task=name, window=window, least=small.least))
                    _logger.info("left out: %s at %d tokens: %s", name, window, small)
                    continue
                _write(directory / f"{name}-{window}.jsonl", items, source, name, window, settings)
                _logger.info(
                    "%s, %d tokens: %s made in %.1f s",
                    name,
                    window,
                    counted(settings.items, "item"),
                    time.perf_counter() - start,
                )
        if len(unfit) == len(windows) * len(names):
            raise nothing_fits(unfit, windows[-1])
    return (len(windows) * len(names) - len(unfit)) * settings.items


def _made(source: Source, name: str, window: int, settings: RulerSettings) -> list[Item]:
    """The items of one task at one length, in the order of their numbers.

    Raises:
        TooSmall: one of them, which differ, does not fit.
    """
    items = []
    with Progress(f"{name}-{window}", settings.items) as advance:
        for number in range(settings.items):
            items.append(item(source, name, window, settings.seed, number))
            advance()
    return items


def _write(path: Path, items: Sequence[Item], source: Source, name: str, window: int, settings: RulerSettings) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for number, each in enumerate(items):
            prompt = source.tokenizer.decode(each.ids, skip_special_tokens=True)
            row = {
                "task": name,
                "rule": TASKS[name].rule,
                "window": window,
                "seed": settings.seed,
                "number": number,
                "tokens": len(each.ids),
                # Parts were tokenised one by one, and where two meet their text may be another token's.
                "tokens_of_text": len(encode(source.tokenizer, prompt)),
                "room": each.room,
                "answers": each.answers,
                "prompt": prompt,
            }
            file.write(json.dumps(row) + "\n")
