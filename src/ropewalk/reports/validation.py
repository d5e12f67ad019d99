"""What a grid's validation text says of trainings: by it settings such as the learning rate are chosen, so that test figures stay untouched.

in   rows of perplexity on validation texts
out  mean losses that may be compared, nats a token
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean

from ropewalk.records import Perplexity
from ropewalk.records import format as number_format
from ropewalk.records.variant import Variant
from ropewalk.reports.comparable import is_of_validation
from ropewalk.reports.rows import Clean, once

#: Variant → what was read, as far as it decides whether two may be compared, → the row.
Read = dict[Variant, dict[tuple, Perplexity]]


def mean_loss(rows: Iterable[Perplexity]) -> float:
    """Of one state, over its rows at the old and the new window, nats a token: infinite where a perplexity is no number."""
    return fmean(math.log(row.perplexity) if number_format.is_finite(row.perplexity) else math.inf for row in rows)


@once
def read(clean: Clean, lineage: tuple) -> Read:
    """The rows of validation texts."""
    rows: Read = {}
    for m in clean.of(Perplexity):
        if m.model_variant.lineage == lineage and is_of_validation(m):
            what = (m.row.data, m.row.window, m.row.stride, m.row.convention, m.row.bos, m.row.tokens)
            rows.setdefault(m.model_variant, {})[what] = m.row
    return rows


def losses(trainings: Sequence[Sequence[Variant]], rows: Read) -> list[float] | None:
    """The mean loss of each training: over the seeds that all have, else over its own. None where one has none, or they did not read the same."""
    known = [[seed for seed in seeds if seed in rows] for seeds in trainings]
    if not all(known) or len({frozenset(rows[seed]) for seeds in known for seed in seeds}) > 1:
        return None
    common = set.intersection(*({seed.recipe.seed for seed in seeds} for seeds in known))
    shared = [[seed for seed in seeds if seed.recipe.seed in common] or seeds for seeds in known]
    return [fmean(mean_loss(rows[seed].values()) for seed in seeds) for seeds in shared]
