"""How long passes take on a CPU, reckoned before the first of them: one of 8192 tokens takes minutes there.

in   a model, the passes of a measurement
out  seconds; a sentence at the start of what takes minutes

On a GPU nothing is reckoned: the first batch shows it in a moment.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch

from ropewalk.attention_ops.transformers import BLOCKS
from ropewalk.data.sliding import SlidingWindow
from ropewalk.distributed.ranks import rank, same
from ropewalk.errors import UserError
from ropewalk.model.devices import has_fast_bfloat16
from ropewalk.planner.shape import read_shape
from ropewalk.records.format import duration
from ropewalk.training.deadline import seconds_of

_logger = logging.getLogger(__name__)
#: Seconds: what takes less is neither announced nor refused.
SHORT = 20.0
#: Seconds for which products are timed where it is announced: a busy machine gives some of them to other programs.
_TIMED = 0.5
#: (tokens that are read, of them scored) → passes of that kind. What passes share counts once: fewer than none of a length that others begin with.
Passes = Counter[tuple[int, int]]


def passes_of(windows: Sequence[SlidingWindow]) -> Passes:
    """Of windows that are read one by one."""
    return Counter((each.stop - each.start, each.scored) for each in windows)


def reckoned(model: Any, passes: Passes, *, lasting: float = 0.0) -> float:
    """Seconds that passes take at the rate of a matrix product here and now, as the first rank measures it; 0 where nobody knows.

    A weight is one multiplication and one addition a token, those of the head for scored tokens alone; a model whose config the planner
    cannot count, or on a GPU, is not reckoned. lasting: as of `seconds_of`.
    """
    weight = next(model.parameters())
    if weight.device.type != "cpu":
        return 0.0
    try:
        shape = read_shape(model.config.to_dict(), name="")
    except UserError:
        return 0.0
    flops, masked = 0.0, model.config._attn_implementation != BLOCKS  # a model given as an object may be
    for (tokens, scored), count in passes.items():
        body = 2.0 * (shape.active_weights - shape.embedding) + shape.attention_work(tokens, masked=masked)
        flops += count * (tokens * body + 2.0 * shape.embedding * scored)
    return same(seconds_of(flops, weight.device, weight.dtype, lasting=lasting))


def announce(title: str, model: Any, what: str, passes: Passes, ways: str) -> None:
    """Say at the start how long this rank's passes will take, where that is more than a moment. what: they are, in words. ways: what makes it shorter."""
    seconds = reckoned(model, passes)
    if seconds >= SHORT / 10:
        seconds = reckoned(model, passes, lasting=_TIMED)
    if rank() == 0 and seconds >= SHORT:
        if next(model.parameters()).dtype == torch.float32 and has_fast_bfloat16():
            ways += ", and --dtype bfloat16, of all that is compared, takes less time on this CPU"
        _logger.info("%s: %s, about %s here, as busy as it is now; %s", title, what, duration(seconds), ways)
