"""What the extension cost in the original window: zero-shot benchmarks before and after, paired; beside table 5."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ropewalk.evals.intervals import Paired
from ropewalk.figures import compare, style
from ropewalk.records import format as number_format
from ropewalk.records import paper
from ropewalk.records.variant import IN_THE_PAPER, Variant, labels, variant_of
from ropewalk.reports.content import Cell, Line, Section, Table
from ropewalk.reports.perplexity import paper_label
from ropewalk.reports.rows import Clean

Row = dict[str, Any]


@dataclass(frozen=True)
class Change:
    """One task before and after on the same items: accuracies, their difference with its interval, McNemar's p."""

    task: str
    state: Variant
    before: float
    after: float
    difference: float
    low: float
    high: float
    p_value: float
    items: int

    @property
    def is_loss(self) -> bool:
        return self.high < 0

    @property
    def is_gain(self) -> bool:
        return self.low > 0


def by_state(clean: Clean) -> dict[Variant, dict[str, Row]]:
    """state → task → row; of the same task measured twice the newest."""
    found: dict[Variant, dict[str, Row]] = {}
    for row in sorted(clean.of("benchmark"), key=lambda row: row["header"].get("started", "")):
        found.setdefault(variant_of(row["header"]), {})[row["task"]] = row
    return dict(sorted(found.items(), key=lambda item: item[0].order))


def changes(clean: Clean) -> list[Change]:
    """Every extended state against the base of its lineage, task by task, where both answered the same items."""
    states = by_state(clean)
    found = []
    for state, tasks in states.items():
        base = base_of(state, states)
        if not state.extended or base is None:
            continue
        for task, after in tasks.items():
            before = states[base].get(task)
            if before is not None:
                found.append(_paired(task, state, before, after))
    return [change for change in found if change is not None]


def base_of(state: Variant, states) -> Variant | None:
    """The untouched base model of a state's lineage."""
    return next((s for s in states if s.role == "base" and not s.steps and s.lineage == state.lineage), None)


def _paired(task: str, state: Variant, before: Row, after: Row) -> Change | None:
    same = before["digest"] == after["digest"] and len(before["answers"]) == len(after["answers"]) > 0
    if not same:
        return None
    pair = Paired.of([c == "1" for c in before["answers"]], [c == "1" for c in after["answers"]])
    low, high = pair.interval()
    return Change(
        task, state, before["accuracy"], after["accuracy"], pair.difference, low, high, pair.p_value(), pair.items
    )


def section(clean: Clean) -> Section | None:
    """The damage report, or None without a benchmark."""
    states, comparisons = by_state(clean), clean.of("benchmark_comparison")
    if not states and not comparisons:
        return None
    made = Section(
        "benchmarks",
        "The original window",
        "What the extension cost where the model was already good: zero-shot accuracy before and after. Both models answer "
        "the same items, so the difference is paired: its interval rests on the items that changed.",
    )
    found = changes(clean)
    if found:
        made.draw(
            compare.benchmark_changes(found, colours=clean.colours),
            "Change in accuracy, in points, with Newcombe's paired 95 % interval.",
        )
        made.tables.append(_changes_table(clean, found))
    elif comparisons:
        made.tables.append(_comparison_table(comparisons))
    if states:
        made.tables.append(_beside_the_paper(clean, states))
    unpaired = _unpaired(states)
    if unpaired:
        made.notes.append(f"Not compared, because the two models were asked different items: {', '.join(unpaired)}.")
    truncated = sorted(
        {f"{name(row['task'])} {row['truncated']}" for t in states.values() for row in t.values() if row["truncated"]}
    )
    if truncated:
        made.notes.append(
            f"Items that lost text from their left because they were longer than the window: {', '.join(truncated)}."
        )
    return made


def name(task: str) -> str:
    return compare.TASK_NAMES.get(task, task)


def _unpaired(states: dict[Variant, dict[str, Row]]) -> list[str]:
    found = set()
    for state, tasks in states.items():
        base = base_of(state, states)
        if state.extended and base:
            found |= {
                name(task)
                for task, row in tasks.items()
                if task in states[base] and _paired(task, state, states[base][task], row) is None
            }
    return sorted(found)


def _difference(value: float, low: float, high: float) -> Cell:
    tone = "bad" if high < 0 else "good" if low > 0 else ""
    return Cell(points(value), f"{points(low)} to {points(high)}", tone, strong=bool(tone))


def points(value: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{value * 100:+.1f}".replace("-", "−") if number_format.is_finite(value) else number_format.NONE


def _p(value: float) -> str:
    return "< 0.001" if number_format.is_finite(value) and value < 0.001 else number_format.fixed(value, 3)


def _changes_table(clean: Clean, found: list[Change]) -> Table:
    names = labels(list(dict.fromkeys(change.state for change in found)))
    lines = [
        Line(
            name(change.task),
            [
                Cell(number_format.fixed(100 * change.before, 1)),
                Cell(number_format.fixed(100 * change.after, 1)),
                _difference(change.difference, change.low, change.high),
                Cell(_p(change.p_value)),
                Cell(number_format.count(change.items)),
            ],
            note=names[change.state] if len(names) > 1 else "",
            colour=style.colour(change.state, clean.colours),
        )
        for change in found
    ]
    return Table(
        "Accuracy before and after, %" + (f": {next(iter(names.values()))}" if len(names) == 1 else ""),
        ["before", "after", "points", "p", "items"],
        lines,
        first="task",
        note="Points: after minus before, with the paired 95 % interval; set bold where it leaves out zero. p: exact McNemar test.",
    )


def _comparison_table(rows: list[Row]) -> Table:
    lines = [
        Line(
            name(row["task"]),
            [
                Cell(number_format.fixed(100 * row["accuracy_before"], 1)),
                Cell(number_format.fixed(100 * row["accuracy_after"], 1)),
                _difference(row["difference"], row["low"], row["high"]),
                Cell(_p(row["p_value"])),
                Cell(number_format.count(row["items"])),
            ],
            note=f"{row['before']} → {row['after']}",
        )
        for row in rows
        if all(
            number_format.is_finite(row[key])
            for key in ("accuracy_before", "accuracy_after", "difference", "low", "high")
        )
    ]
    return Table("Accuracy before and after, %", ["before", "after", "points", "p", "items"], lines, first="task")


def _beside_the_paper(clean: Clean, states: dict[Variant, dict[str, Row]]) -> Table:
    measured = {name(task) for tasks in states.values() for task in tasks}
    columns = [column for column in paper.BENCHMARKS if column in measured]
    columns += sorted(measured - set(columns))
    names = labels(list(states))
    lines = []
    for state, tasks in states.items():
        rows = {name(task): row for task, row in tasks.items()}
        lines.append(
            Line(names[state], [_accuracy(rows.get(c)) for c in columns], colour=style.colour(state, clean.colours))
        )
    methods = {IN_THE_PAPER.get(state.method) for state in states}
    for row in paper.TABLE_5.rows:
        if row.model == "7B" and (row.method == "none" or row.method in methods or "PI" not in methods):
            figures = [
                Cell(number_format.fixed(row.values.get(column), 1) if column in row.values else "")
                for column in columns
            ]
            lines.append(Line(paper_label(row), figures, paper=True))
    return Table(
        "Accuracy, %, beside table 5 of the paper",
        columns,
        lines,
        first="state",
        note="Small figures: Wilson's 95 % interval.",
    )


def _accuracy(row: Row | None) -> Cell:
    if row is None:
        return Cell("")
    low, high = (100 * row[side] if number_format.is_finite(row[side]) else None for side in ("low", "high"))
    return Cell(
        number_format.fixed(100 * row["accuracy"] if number_format.is_finite(row["accuracy"]) else None, 1),
        number_format.interval(low, high, lambda value: number_format.fixed(value, 1)),
    )
