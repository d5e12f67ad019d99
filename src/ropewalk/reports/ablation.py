"""Which method, which factor, how many steps: states side by side that were given the same number of training tokens."""

from __future__ import annotations

from typing import Any

from ropewalk.figures import compare, style
from ropewalk.records import format as number_format
from ropewalk.records.variant import Variant
from ropewalk.reports import benchmarks, passkey, perplexity
from ropewalk.reports.content import Cell, Line, Section, Table
from ropewalk.reports.rows import Clean
from ropewalk.reports.training import budget, trainings

Row = dict[str, Any]


def section(clean: Clean) -> Section | None:
    """The ablation, or None unless two methods or two factors were measured."""
    made = Section(
        "ablation",
        "Methods and factors at a fixed budget",
        "Each block holds states that were trained on the same number of tokens; within a block only the method, the factor "
        "and the model's own chance differ.",
    )
    for group in perplexity.groups(clean):
        states = {s: rows for s, rows in group.states().items() if s.extended}
        if len({(s.method, s.factor) for s in states}) < 2:
            continue
        blocks = _blocks(states, trainings(clean))
        base = group.base_row()
        level = base["perplexity"] if base and number_format.is_finite(base["perplexity"]) else None
        points = [(s, name, _at(rows, s.window)) for name, block in blocks.items() for s, rows in block.items()]
        points = [point for point in points if number_format.is_finite(point[2])]
        if len({point[0].factor for point in points}) > 1:
            caption = "Perplexity in each state's own new window by factor" + (
                "; 1 is the base in its window." if level else "."
            )
            made.draw(compare.ablation(points, base=level), caption)
        for name, block in blocks.items():
            made.tables.append(_table(clean, group, name, block, base))
    return made if made.tables else None


def _at(rows: dict[int, Row], window: int) -> float | None:
    return rows[window]["perplexity"] if window in rows else None


def _blocks(states: dict[Variant, dict[int, Row]], runs) -> dict[str, dict[Variant, dict[int, Row]]]:
    """Budget in words → its states; tokens where the training is on record, else steps. Blocks of one are left out."""
    found: dict[tuple, dict[Variant, dict[int, Row]]] = {}
    for state, rows in states.items():
        tokens = budget(state, runs) if state.steps else 0
        key = (0, "before training") if not state.steps else (1, tokens) if tokens else (2, state.steps)
        found.setdefault(key, {})[state] = rows
    words = {
        0: lambda _: "before training",
        1: lambda n: f"{number_format.large(n)} training tokens",
        2: lambda n: f"{n} steps",
    }
    return {words[kind](value): block for (kind, value), block in sorted(found.items()) if len(block) > 1}


def _table(clean: Clean, group, name: str, block: dict[Variant, dict[int, Row]], base: Row | None) -> Table:
    keys = passkey.summaries(clean)
    changes = benchmarks.changes(clean)
    lines = []
    for state, rows in sorted(block.items(), key=lambda item: item[0].order):
        k_max = keys.get(state, {}).get(state.window)
        own = [change.difference for change in changes if change.state == state]
        lines.append(
            Line(
                state.method_and_factor,
                [
                    Cell(str(state.window)),
                    Cell(str(state.steps)),
                    _perplexity(rows.get(state.original_window), base),
                    _perplexity(rows.get(state.window), base),
                    Cell(str(k_max["k_max"]), number_format.share(k_max["k_max"] / state.window))
                    if k_max
                    else Cell(""),
                    Cell(benchmarks.points(sum(own) / len(own))) if own else Cell(""),
                ],
                colour=style.colour(state, clean.colours),
            )
        )
    head = ["window", "steps", "perplexity at L", "at the window", "k_max", "benchmarks"]
    return Table(
        f"{name[0].upper()}{name[1:]}; {group.title}",
        head,
        lines,
        first="method",
        note="Small figures: change against the base in its own window; k_max as a part of the window. Benchmarks: mean change in points.",
    )


def _perplexity(row: Row | None, base: Row | None) -> Cell:
    if row is None:
        return Cell("")
    if base is None:
        return Cell(number_format.perplexity(row["perplexity"]))
    return perplexity.cell(row, base)
