"""Whether a row of `ablate` is all there: by how many rows its header says that it has, and by what it was asked to measure.

in   what was read of record files
out  by run those that belong to a row of which something is missing, and what
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from ropewalk.errors import STRANGE_DATA
from ropewalk.records.attention import AttentionScores
from ropewalk.records.downstream import Benchmark
from ropewalk.records.kinds import Row
from ropewalk.records.measurement import Measurement
from ropewalk.records.recipe import CONTROL, NONE, ablated, row_name
from ropewalk.records.retrieval import PasskeySummary, Retrieval
from ropewalk.records.rows import ContextGain, Perplexity, Run, Step

#: In the row of a header: how many rows it has. Those of earlier versions do not say.
ROWS = "rows"
#: What tells rows of one directory apart, and what of that is of the training.
_OF_TRAINING = ("learning_rate", "seed")
_IDENTITY = {"name", "method", "parameters", "factor", "tokens", *_OF_TRAINING}
#: Of the harder retrieval set, a row each; evals/retrieval/facts.py has them, and needs torch.
FAMILIES = 4


def windows_of(word: str, old: int, new: int, prompts: list[int], text: float) -> list[int]:
    """At which windows a row's perplexity is measured. word: of --windows. prompts: those of keys and facts. text: tokens that documents reach."""
    doublings = [old << power for power in range(20) if old << power < new]
    choices = {"all": [old // 4, *doublings, new], "ends": sorted({old, new}), "prompts": prompts}
    return [window for window in choices[word] if window <= text]


def missing(runs: Iterable[Run], measurements: Iterable[Measurement[Row]], unknown: int = 0) -> dict[str, str]:
    """Run → what the row of `ablate` that it is of lacks; nothing of a whole one. unknown: further rows of it, of kinds that only a later version knows."""
    rows: dict[str, list[Run]] = {}
    for run in runs:
        if row := ablated(run):
            rows.setdefault(json.dumps(row, sort_keys=True), []).append(run)
    of_run: dict[str, list[Row]] = {}
    for m in measurements:
        of_run.setdefault(m.run.id, []).append(m.row)
    lacks = {
        key: _lacks(own, [row for run in own for row in of_run.get(run.id, ())], unknown) for key, own in rows.items()
    }
    return {run.id: lacks[key] for key, own in rows.items() if lacks[key] for run in own}


def _lacks(own: list[Run], rows: list[Row], unknown: int) -> str:
    row = ablated(own[0])
    if at_odds := _at_odds(row, own):
        return at_odds
    steps = max((each for run in own if isinstance(each := run.settings.get("steps"), int)), default=0)
    done = {each.step for each in rows if isinstance(each, Step)}
    if row.get("tokens") and len(done) < steps:
        return f"has {len(done)} of the {steps} steps of its training"
    if row.get("tokens") and row.get("measure") and not steps:
        return "lacks the header of its training"
    unclaimed = Counter((type(each), 0 if isinstance(each, Benchmark) else getattr(each, "window", 0)) for each in rows)
    for name, what in _asked(row, own[0]):
        if not unclaimed[what] and name not in row.get("left_out", {}):
            return f"lacks {name}"
        unclaimed[what] -= 1  # a validation is another text at the same window
    tasks = {task for run in own for task in run.settings.get("tasks", ())}
    if tasks - {each.task for each in rows if isinstance(each, Benchmark)}:
        return "lacks benchmarks"
    return f"has {len(rows)} of its {row[ROWS]} rows" if len(rows) + unknown < row.get(ROWS, 0) else ""


def _at_odds(row: dict[str, Any], own: list[Run]) -> str:
    """What its name or the header of its training say otherwise than a row's own settings; nothing where they agree, or a row of an earlier version does not say."""
    if row.keys() >= _IDENTITY:
        try:
            name = row_name(
                row["method"], row["parameters"], *(row[key] for key in ("factor", "tokens", *_OF_TRAINING))
            )
        except STRANGE_DATA:
            return "has settings that no row has"
        if name != str(row["name"]).rpartition("/")[2]:
            return f"has the settings of {name}"
    trainings = [run for run in own if "learning_rate" in run.settings]
    said = [(key, run.settings.get(key)) for key in _OF_TRAINING for run in trainings]
    said += [("seed", run.seed) for run in trainings]
    for key, value in said:
        if value != row.get(key):
            return f"has {key} {value} in its training's header and {row.get(key)} in its own settings"
    return ""


def _asked(row: dict[str, Any], run: Run) -> Iterator[tuple[str, tuple[type, int]]]:
    """(measurement, by its name in `suite/measurements.py`; a row that it ends with, and its window)."""
    asks, factor, text = row.get("measure", ()), row.get("factor", 1), row.get("test_tokens", 0)
    is_old = row.get("method") in (NONE, CONTROL)
    new = round(run.model.window * factor) if is_old else run.model.window
    old = run.model.window if is_old else round(new / factor)
    prompts = sorted(set(row.get("prompt_windows") or (old, new)))
    for window in windows_of(row["windows"], old, new, prompts, text) if "perplexity" in asks else ():
        yield f"perplexity at {window}", (Perplexity, window)
        if row.get("also") is not None:
            yield f"perplexity at {window} of the further documents", (Perplexity, window)
    if row.get("validation") is not None and row.get("tokens") and "validation" in asks:
        yield from ((f"validation at {window}", (Perplexity, window)) for window in sorted({old, new}))
    for window in prompts:
        if "passkey" in asks:
            yield f"passkey at {window}", (PasskeySummary, window)
        yield from [(f"retrieval at {window}", (Retrieval, window))] * (FAMILIES * ("retrieval" in asks))
    for name, kind in (("gain", ContextGain), ("attention", AttentionScores)):
        if name in asks and new <= text:
            yield name, (kind, new)
    if "benchmarks" in asks:
        yield "benchmarks", (Benchmark, 0)
