"""The items of a measurement written into a directory, without a model's forward passes: to look at, and for others to check.

in   the settings of `ruler`, of which those of the model's passes do not matter; a directory
out  a file a task and length, each item a JSON line: the items that `ruler` measures with these settings
"""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

from ropewalk import records
from ropewalk.checkpoint.checkpoint import Checkpoint, ModelName
from ropewalk.checkpoint.files import whole_directory
from ropewalk.errors import UserError
from ropewalk.evals.long_context.items import TooSmall
from ropewalk.evals.long_context.measure import item, lengths, nothing_fits, of_what
from ropewalk.evals.long_context.source import Source
from ropewalk.evals.long_context.tasks import TASKS
from ropewalk.model.load import load_tokenizer
from ropewalk.progress import Progress, is_first_process
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
    source = Source(load_tokenizer(checkpoint), windows[-1], settings.data, settings.questions, settings.needle)
    names, _ = of_what(settings.tasks, source, windows)
    unfit: list[records.Unfit] = []
    with whole_directory(out) as directory:
        for window in windows:
            for name in names:
                start = time.perf_counter()
                try:
                    _write(directory / f"{name}-{window}.jsonl", source, name, window, settings)
                except TooSmall as small:
                    (directory / f"{name}-{window}.jsonl").unlink()
                    unfit.append(records.Unfit(task=name, window=window, least=small.least))
                    _logger.info("left out: %s at %d tokens: %s", name, window, small)
                else:
                    seconds = time.perf_counter() - start
                    _logger.info("%s, %d tokens: %d made in %.1f s", name, window, settings.items, seconds)
        if len(unfit) == len(windows) * len(names):
            raise nothing_fits(unfit, windows[-1])
    return (len(windows) * len(names) - len(unfit)) * settings.items


def _write(path: Path, source: Source, name: str, window: int, settings: RulerSettings) -> None:
    """The items of one task at one length, in the order of their numbers."""
    with open(path, "w", encoding="utf-8") as file, Progress(path.stem, settings.items) as advance:
        for number in range(settings.items):
            each = item(source, name, window, settings.seed, number)
            row = {
                "task": name,
                "rule": TASKS[name].rule,
                "window": window,
                "seed": settings.seed,
                "number": number,
                "tokens": len(each.ids),
                "room": each.room,
                "answers": each.answers,
                "prompt": source.tokenizer.decode(each.ids, skip_special_tokens=True),
            }
            file.write(json.dumps(row) + "\n")
            advance()
