"""What the lab found: tables and figures of docs/results.md, from the records alone, on any machine.

python lab/results.py
"""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path

from ropewalk.records import Perplexity, Records, read


def rows_in(directory: Path) -> list[Records]:
    """The rows of a grid, one a file."""
    return [read([path]) for path in sorted(directory.glob("*.jsonl"))]


def asked(row: Records) -> dict:
    """What a row is: as `ablate` was asked for it."""
    return next(iter(row.runs.values())).settings["row"]


def validation_loss(row: Records) -> float | None:
    """Mean over the old and the new window, nats a token; None where it was not measured."""
    losses = [math.log(m.row.perplexity) for m in row.of(Perplexity) if m.row.data == asked(row)["validation"]]
    return sum(losses) / len(losses) if losses else None


def chosen_rates(directory: Path) -> dict[str, float]:
    """Method → its learning rate: the best on validation at the budget that most rates were tried at."""
    tried: dict[tuple[str, int], dict[float, float]] = defaultdict(dict)
    for row in rows_in(directory):
        about, loss = asked(row), validation_loss(row)
        if loss is not None and about["seed"] == 0:
            tried[about["method"], about["tokens"]][about["learning_rate"]] = loss
    most = {
        method: max((len(rates), tokens) for (of, tokens), rates in tried.items() if of == method)
        for method, _ in tried
    }
    return {
        method: min(rates, key=rates.__getitem__)
        for method, (_, tokens) in most.items()
        for rates in [tried[method, tokens]]
    }
