"""Which items are drawn: of which tasks, at which lengths, from which seeds; before any model reads one.

in   what was asked for, what items are made of
out  an `Item` by its number; what is left out, in words

Each item is made from a seed of its own (the seed, task, length and number), so that more items only add some, and written.py writes those that measure.py
measures.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence

from ropewalk import records
from ropewalk.distributed import ranks
from ropewalk.errors import UserError
from ropewalk.evals.long_context.items import Item, TooSmall
from ropewalk.evals.long_context.source import Source
from ropewalk.evals.long_context.tasks import TASKS, left_out
from ropewalk.sentences import joined

_logger = logging.getLogger(__name__)

#: The shortest length of RULER's.
_SHORTEST = 4096
#: Draws of one item before its task is taken not to fit.
_ATTEMPTS = 8


def of_what(asked: Sequence[str] | None, source: Source, windows: Sequence[int]) -> tuple[list[str], dict[str, str]]:
    """`left_out`, and said before the first item: at a million tokens it is long until a task is done.

    Raises:
        UserError: no task is left.
    """
    names, reasons = left_out(asked, source)
    if not names:
        raise UserError(f"no task can be made of what was given: {'; '.join(map(': '.join, reasons.items()))}")
    if ranks.rank() == 0:
        _logger.info("items of %s, at %s tokens", ", ".join(names), joined(windows))
        for reason in dict.fromkeys(reasons.values()):
            tasks = ", ".join(name for name in reasons if reasons[name] == reason)
            _logger.info("left out: %s: %s", tasks, reason)
    return names, reasons


def lengths(own: int, original: int) -> list[int]:
    """4096, 8192, … up to the model's own window, and that itself, beside the window of pretraining; in tokens."""
    doubled = [_SHORTEST << power for power in range(20) if _SHORTEST << power < own]
    return [*doubled, own, *([original] if _SHORTEST <= original < own else [])]


def item(source: Source, name: str, window: int, seed: int, number: int) -> Item:
    """One item of a task; words and answers differ in their tokens, so one that does not fit is drawn again.

    Raises:
        TooSmall: the task does not fit the length.
    """
    refusals = []
    for attempt in range(_ATTEMPTS):
        try:
            return TASKS[name].make(source, random.Random(f"{seed} {name} {window} {number} {attempt}"), window)
        except TooSmall as error:
            refusals.append(error)
    raise min(refusals, key=lambda refusal: refusal.least)


def nothing_fits(unfit: Sequence[records.Unfit], longest: int) -> UserError:
    """No task fits any length: a refusal that says what each takes at the longest."""
    needs = ", ".join(f"{each['task']} {each['least']}" for each in unfit if each["window"] == longest)
    return UserError(
        f"items of this tokenizer take at least so many tokens: {needs}, and the longest of --windows is {longest}; ask for longer ones "
        "(beyond the model's own, it extrapolates), or for other --tasks"
    )
