"""What the extension cost in the original window: zero-shot benchmarks before and after, paired; beside table 5."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean

from ropewalk.evals.intervals import Paired, over_seeds
from ropewalk.figures import accuracy, style
from ropewalk.figures.accuracy import Change
from ropewalk.records import Benchmark, BenchmarkComparison, paper
from ropewalk.records import format as number_format
from ropewalk.records.variant import Variant, labels
from ropewalk.reports.beside_paper import paper_label
from ropewalk.reports.content import Cell, Line, Section, Table, Tile, Verdict, seeds_together
from ropewalk.reports.paired import Bounded
from ropewalk.reports.rows import Clean, once
from ropewalk.reports.seeds import spread

ByTask = dict[str, Benchmark]


def by_variant(clean: Clean) -> dict[Variant, ByTask]:
    """variant → task → row; of the same task measured twice the newest."""
    rows: dict[Variant, ByTask] = {}
    for m in sorted(clean.of(Benchmark), key=lambda m: m.run.started):
        rows.setdefault(m.model_variant, {})[m.row.task] = m.row
    return dict(sorted(rows.items(), key=lambda item: item[0].order))


@once
def changes(clean: Clean) -> list[Change]:
    """Every extended variant against the base of its lineage, task by task, where both answered the same items."""
    pairs = [_paired(*pair) for pair in _pairs(by_variant(clean))]
    return [change for change in pairs if change is not None]


def _pairs(rows: dict[Variant, ByTask]) -> Iterable[tuple[Variant, Benchmark, Benchmark]]:
    """(extended variant, its base's row, its row) for each task that both did."""
    for variant, tasks in rows.items():
        base = base_of(variant, rows)
        if variant.extended and base is not None:
            yield from ((variant, rows[base][task], row) for task, row in tasks.items() if task in rows[base])


def base_of(variant: Variant, variants: Iterable[Variant]) -> Variant | None:
    """The untouched base model of a variant's lineage."""
    return next((v for v in variants if v.role == "base" and not v.steps and v.lineage == variant.lineage), None)


def _paired(variant: Variant, before: Benchmark, after: Benchmark) -> Change | None:
    """None where the two were not asked the same items."""
    if before.digest != after.digest or not len(before.answers) == len(after.answers) > 0:
        return None
    pair = Paired.of([c == "1" for c in before.answers], [c == "1" for c in after.answers])
    low, high = pair.interval()
    return Change(
        after.task, variant, before.accuracy, after.accuracy, pair.difference, low, high, pair.p_value(), pair.items
    )


def mean_change(changes: Sequence[Change]) -> Bounded | None:
    """The mean over tasks, with its 95 % interval: tasks ask different items, so their paired intervals are put together as of independent figures (MOVER, Zou & Donner 2008)."""
    if not changes:
        return None
    value, tasks = fmean(change.difference for change in changes), len(changes)
    below = math.hypot(*(change.difference - change.low for change in changes)) / tasks
    above = math.hypot(*(change.high - change.difference for change in changes)) / tasks
    return value, value - below, value + above


def section(clean: Clean) -> Section | None:
    """The damage report, or None without a benchmark."""
    rows, comparisons = by_variant(clean), clean.of(BenchmarkComparison)
    if not rows and not comparisons:
        return None
    part = Section(
        "benchmarks",
        "The original window",
        "What the extension cost where the model was already good: zero-shot accuracy before and after. Both models answer "
        "the same items, so the difference is paired: its interval rests on the items that changed.",
    )
    compared = changes(clean)
    if compared:
        part.draw(
            accuracy.benchmark_changes(compared, colours=clean.colours),
            "Change in accuracy, in points, with its paired 95 % interval.",
        )
        part.tables.append(_changes_table(clean, compared))
    elif comparisons:
        part.tables.append(_comparison_table([m.row for m in comparisons]))
    if rows:
        part.tables.append(_beside_the_paper(clean, rows))
    part.notes += _notes(rows)
    return part


def _notes(rows: dict[Variant, ByTask]) -> Iterable[str]:
    unpaired = sorted({name(after.task) for v, before, after in _pairs(rows) if _paired(v, before, after) is None})
    if unpaired:
        yield f"Not compared, because the two models were asked different items: {', '.join(unpaired)}."
    truncated = sorted(
        {f"{name(row.task)} {row.truncated}" for tasks in rows.values() for row in tasks.values() if row.truncated}
    )
    if truncated:
        yield f"Items that lost text from their left because they were longer than the window: {', '.join(truncated)}."


def name(task: str) -> str:
    return accuracy.TASK_NAMES.get(task, task)


def _difference(value: float, low: float, high: float, p_value: float) -> Cell:
    """Bold where both leave out that nothing changed: near the limit the interval and McNemar's test need not agree."""
    tone = "" if p_value >= 0.05 else "bad" if high < 0 else "good" if low > 0 else ""
    return Cell.of(value, number_format.points, low, high, tone=tone, strong=bool(tone), within=(-1, 1))


def _tenths(value: float) -> str:
    return number_format.fixed(value, 1)


def _p(value: float) -> str:
    return "< 0.001" if number_format.is_finite(value) and value < 0.001 else number_format.fixed(value, 3)


def _changes_table(clean: Clean, compared: list[Change]) -> Table:
    names = labels(list(dict.fromkeys(change.variant for change in compared)))
    lines = [
        Line(
            name(change.task),
            [
                Cell.of(100 * change.before, _tenths),
                Cell.of(100 * change.after, _tenths),
                _difference(change.difference, change.low, change.high, change.p_value),
                Cell.of(change.p_value, _p, averaged=False),
                Cell(number_format.count(change.items)),
            ],
            note=names[change.variant] if len(names) > 1 else "",
            colour=style.colour(change.variant, clean.colours),
        )
        for change in compared
    ]
    return Table(
        clean.titled(
            "Accuracy before and after, %" + (f": {next(iter(names.values()))}" if len(names) == 1 else ""), names
        ),
        ["before", "after", "points", "p", "items"],
        seeds_together(lines),
        first="task",
        note="Points: after minus before, with the paired 95 % interval; set bold where it leaves out zero and p, where there is one, is below 0.05. p: exact McNemar test of one seed.",
    )


def _comparison_table(rows: list[BenchmarkComparison]) -> Table:
    lines = [
        Line(
            name(row.task),
            [
                Cell(number_format.fixed(100 * row.accuracy_before, 1)),
                Cell(number_format.fixed(100 * row.accuracy_after, 1)),
                _difference(row.difference, row.low, row.high, row.p_value),
                Cell(_p(row.p_value)),
                Cell(number_format.count(row.items)),
            ],
            note=f"{row.before} → {row.after}",
        )
        for row in rows
        if all(
            map(number_format.is_finite, (row.accuracy_before, row.accuracy_after, row.difference, row.low, row.high))
        )
    ]
    return Table("Accuracy before and after, %", ["before", "after", "points", "p", "items"], lines, first="task")


def _beside_the_paper(clean: Clean, rows: dict[Variant, ByTask]) -> Table:
    measured = {name(task) for tasks in rows.values() for task in tasks}
    columns = [column for column in paper.BENCHMARKS if column in measured]
    columns += sorted(measured - set(columns))
    names = labels(list(rows))
    lines = []
    for variant, tasks in rows.items():
        by_column = {name(task): row for task, row in tasks.items()}
        figures = [_accuracy(by_column.get(column)) for column in columns]
        lines.append(Line(names[variant], figures, colour=style.colour(variant, clean.colours)))
    lines = seeds_together(lines)
    methods = {paper.METHODS.get(variant.method) for variant in rows}
    for row in paper.TABLE_5.rows:
        if row.model == "7B" and (row.method == "none" or row.method in methods or "PI" not in methods):
            figures = [
                Cell(number_format.fixed(row.values.get(column), 1) if column in row.values else "")
                for column in columns
            ]
            lines.append(Line(paper_label(row), figures, paper=True))
    return Table(
        clean.titled("Accuracy, %", rows),
        columns,
        lines,
        first="state",
        note="Small figures: 95 % interval.",
        beside=", beside table 5 of the paper",
    )


def _accuracy(row: Benchmark | None) -> Cell:
    if row is None:
        return Cell("")
    return Cell.of(100 * row.accuracy, _tenths, 100 * row.low, 100 * row.high, within=(0, 100))


def tell(verdict: Verdict, clean: Clean, seeds: Sequence[Variant]) -> None:
    """Add to a verdict what benchmarks say of the seeds of one training."""
    own = [change for change in changes(clean) if change.variant in seeds]
    if not own:
        return
    tasks: dict[str, list[float]] = {}
    for change in own:
        tasks.setdefault(name(change.task), []).append(change.difference)
    lost = dict.fromkeys(name(change.task) for change in own if change.is_loss)
    of_seeds = " of some seed" if len(seeds) > 1 else ""
    text = f"Of {number_format.counted(len(tasks), 'benchmark')} in the original window "
    text += f"{len(lost)} lost beyond chance{of_seeds} ({', '.join(lost)})" if lost else "none lost beyond chance"
    means = [mean for seed in seeds if (mean := mean_change([c for c in own if c.variant == seed]))]
    value, low, high = over_seeds(means)
    total, bounds = f"{number_format.points(value)} points", number_format.interval(low, high, number_format.points)
    around = spread([mean for mean, _, _ in means], number_format.points, len(seeds))
    worst = min(tasks, key=lambda task: fmean(tasks[task]))
    lowest = f"; the lowest is {worst} ({number_format.points(fmean(tasks[worst]))})" if len(tasks) > 1 else ""
    verdict.sentences.append(f"{text}; the mean changed by {total}{f' ({around})' if around else ''}{lowest}.")
    verdict.tiles.append(Tile("benchmarks", total, f"95\u202f% interval {bounds}, paired"))
