"""What `extend`, `train` and `plan` say was measured of a method on a model, as src/ropewalk/records/evidence.json has it.

in   rows of one model, its base among them
out  a case a method and factor; the figures of the seeds of one training
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from typing import Any

from rows import Row, base_of
from run import content
from tables import grouped

from ropewalk.rope.scaling import EXTENDING

#: Models that others made → which of their weights, and from what.
WEIGHTS = content()["weights"]


def cases(rows: list[Row]) -> Iterable[dict[str, Any]]:
    """By method and factor the model, and by training tokens what was found, in the mean over seeds."""
    base = base_of(rows)
    offered = [row for row in rows if row.asked["method"] in (*EXTENDING, "direct") and not row.asked["parameters"]]
    for case in grouped(offered, lambda row: (row.asked["method"], row.asked["factor"])):
        model = next(iter(case[0].records.runs.values())).model
        keys = ("family", "original_window", "window", "scaling", "rope_theta", "head_dim", "parameters")
        budgets = {
            str(seeds[0].asked["tokens"]): figures(seeds, base)
            for seeds in grouped(case, lambda row: row.asked["tokens"])
        }
        yield {
            "model": {"name": case[0].name} | {key: value for key, value in model.to_dict().items() if key in keys},
            "as_it_was": round(base.passkeys[base.window].accuracy, 4),
            "digits": _digits([base], base.window),
            "budgets": budgets,
            "weights": WEIGHTS.get(case[0].name, ""),
        }


def _digits(seeds: list[Row], window: int) -> float | None:
    """Right at a window, in the mean over seeds."""
    return (
        round(statistics.fmean(right), 4)
        if (right := [row.digits[window][0] for row in seeds if window in row.digits])
        else None
    )


def figures(seeds: list[Row], base: Row) -> dict[str, float]:
    """What was found of the seeds of one training, as `ropewalk.records.evidence.Figures` has it."""
    damages = [math.log(damage.value) for row in seeds if (damage := row.damage(base)) is not None]
    inside, keys = ([row.passkeys[window].accuracy for row in seeds] for window in (base.window, seeds[0].new_window))
    figures = {"damage": damages, "inside": inside, "passkeys": keys}
    found = {name: round(statistics.fmean(values), 4) for name, values in figures.items()}
    found |= {"least": round(min(keys), 4), "most": round(max(keys), 4), "seeds": len(keys)}
    found |= {"digits_inside": _digits(seeds, base.window), "digits": _digits(seeds, seeds[0].new_window)}
    found["k_max"] = round(statistics.fmean(row.passkeys[row.new_window].k_max for row in seeds))
    run = next(iter(seeds[0].records.runs.values()))
    recipe = ("steps", "batch_size", "learning_rate") if seeds[0].asked["tokens"] else ()
    return found | {name: run.settings[name] for name in recipe}
