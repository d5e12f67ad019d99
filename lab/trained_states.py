"""Tables 1, 2 and 5 of the paper and its scores, of the lab's trained states: mathematics, benchmarks, attention.

in   the rows of a model that have these measurements, the base's among them
out  Markdown; differences are paired with the base's on the same items or documents
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rows import Row, base_of, control_of
from tables import beside_control, bounded, budget, nats, order, table

from ropewalk.evals.intervals import Paired
from ropewalk.records import Adjacent, AttentionScores
from ropewalk.records import format as number_format
from ropewalk.records.attention_summary import Gist, gist
from ropewalk.records.format import fixed, share
from ropewalk.reports.paired import Ratio, ratio

#: Accuracy of guessing.
CHANCE = {"boolq": 0.5, "piqa": 0.5, "race-middle": 0.25, "race-high": 0.25, "winogrande": 0.5}


def above_chance(base: Row) -> list[str]:
    """The tasks at which the base is better than guessing; what moves at others is no skill."""
    return [task for task, found in base.benchmarks.items() if found.low > CHANCE[task]]


def change(before: Row, after: Row, tasks: Iterable[str]) -> Paired | None:
    """Verdicts on the same items of these tasks, pooled; None where they were not asked the same."""
    first, second = before.benchmarks, after.benchmarks
    tasks = list(tasks)
    if not tasks or any(task not in first or task not in second for task in tasks):
        return None
    if any(first[task].digest != second[task].digest for task in tasks):
        return None
    verdicts = [[c == "1" for task in tasks for c in rows[task].answers] for rows in (first, second)]
    return Paired.of(*verdicts)


def points(found: Paired | None) -> str:
    if found is None:
        return ""
    low, high = found.interval()
    return bounded(fixed(100 * found.difference, 1), 100 * low, 100 * high, lambda value: fixed(value, 1))


def benchmarks_table(rows: list[Row], old: Row) -> str:
    """Accuracy of the base, and points above it; those tasks pooled in the last column at which it is better than guessing."""
    asked, better = old.benchmarks, above_chance(old)
    items = sum(asked[task].items for task in better)
    heads = ["method", "training tokens", "seed", *asked, f"{', '.join(better)}, {items} items"]
    lines = [["base", "", "", *(share(b.accuracy) for b in asked.values()), ""]]
    for row in sorted((row for row in rows if row is not old and row.benchmarks), key=order):
        changes = [change(old, row, [task]) for task in asked]
        lines.append([*_name(row), *map(points, changes), points(change(old, row, better))])
    return table(heads, lines) if len(lines) > 1 else ""


def further_table(rows: list[Row], old: Row) -> str:
    """Perplexity on the further documents by window, and the loss in the old window above the base's and the control's."""
    windows = sorted(old.further)
    heads = ["method", "training tokens", "seed", *(f"perplexity {window}" for window in windows), f"damage at {old.window}, nats", "the same above the control"]  # fmt: skip
    lines = []
    for row in sorted((row for row in rows if row.further), key=order):
        found = row.further
        values = [number_format.perplexity(found[w].perplexity) if w in found else "" for w in windows]
        control = control_of(row, rows) if row.asked["method"] != "control" else None
        damage = _above(old, row, old.window) if row is not old else None
        above = beside_control([(row, control)], lambda control, row: _above(control, row, old.window))
        lines.append([*_name(row), *values, nats(damage), above])
    return table(heads, lines) if len(lines) > 1 else ""


def _above(other: Row, row: Row, window: int) -> Ratio | None:
    """Its perplexity on the further documents over another's."""
    there, here = other.further.get(window), row.further.get(window)
    return ratio(there, here) if there and here else None


def _name(row: Row) -> list[str]:
    tokens = row.asked["tokens"]
    return [row.method, budget(tokens), str(row.asked["seed"]) if tokens else ""]


def states(row: Row) -> list[list[Any]]:
    """The rows of scores and neighbours of each state of a row: of the base inside, beyond, and interpolated; of another one."""
    runs: dict[str, list[Any]] = {}
    for kind in (AttentionScores, Adjacent):
        for m in row.records.of(kind):
            runs.setdefault(m.run.id, []).append(m.row)
    return list(runs.values())


def scores_table(rows: list[Row], old: Row) -> str:
    """What `ropewalk attention` says of each state, against the base inside its window."""
    inside = states(old)
    if len(inside) != 3:
        return ""
    reference = [row for row in inside[0] if isinstance(row, AttentionScores)]
    named = list(zip((["base", "", ""], ["base", "", ""], ["PI", "none", ""]), inside, strict=True))
    named += [(_name(row), state) for row in sorted(rows, key=order) if row is not old and row.asked["method"] != "control" for state in states(row)]  # fmt: skip
    heads = ["method", "training tokens", "seed", "window", f"highest score below {old.window}", "from there on", "far keys below", "from there on ",
             "heads out of range", "change / spread", "attention on the token before"]  # fmt: skip
    return table(heads, [[*name, *_state(gist(state, old.window, reference))] for name, state in named])


def _state(found: Gist) -> list[str]:
    one = [found.inside, found.beyond, found.typical_inside, found.typical_beyond]
    figures = [fixed(value, 1) if number_format.is_finite(value) else "" for value in one]
    out = share(found.out_of_range) if number_format.is_finite(found.out_of_range) else ""
    return [str(found.window), *figures, out, fixed(found.resolution, 3), share(found.previous)]


def section(model: str, rows: list[Row]) -> str:
    """All of it, or nothing where the base was not measured so."""
    rows = [row for row in rows if row.benchmarks or row.further or states(row)]
    old = base_of(rows)
    if old is None:
        return ""
    parts = {
        f"Perplexity on {next(iter(old.further.values())).data if old.further else ''}, of which nothing was trained on (the paper's table 2), documents as above:": further_table(rows, old),
        "The five benchmarks (table 5), zero-shot by lm-eval in the old window; points above the base on the same items, with the paired interval. The last column pools those at which the base is better than guessing:": benchmarks_table(rows, old),
        "Attention scores of one book before the softmax (figures 2 to 4; [method](method.md), section 7, says how to read them):": scores_table(rows, old),
    }  # fmt: skip
    told = "\n\n".join(f"{words}\n\n{found}" for words, found in parts.items() if found)
    return f"### Mathematics, benchmarks and attention scores, {model}\n\n{told}" if told else ""
