"""Long-context tasks by length, and how long a context is used."""

from __future__ import annotations

from collections.abc import Sequence

from ropewalk.evals.intervals import share_over_seeds
from ropewalk.figures import compare, style
from ropewalk.records import EffectiveLength, LongTask, Measurement
from ropewalk.records import format as number_format
from ropewalk.records.variant import Variant, labels, last_steps
from ropewalk.reports.content import Cell, Line, Section, Table, seeds_together
from ropewalk.reports.drawn import to_draw
from ropewalk.reports.paired import Bounded
from ropewalk.reports.rows import Clean

ByVariant = dict[Variant, dict[int, dict[str, LongTask]]]


def section(clean: Clean) -> Section | None:
    """The section of long-context tasks, or None without any."""
    measurements = clean.of(LongTask)
    keep = last_steps(list(dict.fromkeys(m.variant for m in measurements)))
    rows: ByVariant = {}
    for m in sorted(measurements, key=lambda m: (m.model_variant.order, m.row.window)):
        if m.variant in keep:
            rows.setdefault(m.model_variant, {}).setdefault(m.row.window, {})[m.row.task] = m.row
    if not rows:
        return None
    names = labels(list(rows))
    part = Section(
        "long-context",
        "Long-context tasks",
        "RULER's tasks and others like it, of prompts that with their answers are exactly as long as said: needles among other text, chains, the "
        "most frequent words, questions; scored from 0 to 100 as RULER scores.",
    )
    summaries = [m for m in clean.of(EffectiveLength) if m.model_variant in rows]
    for tasks in dict.fromkeys(tuple(m.row.tasks) for m in summaries):
        _show_means(part, clean, [m for m in summaries if tuple(m.row.tasks) == tasks], names)
    part.tables.append(_tasks(clean, rows, names))
    return part


def broadest(clean: Clean) -> dict[Variant, EffectiveLength]:
    """Of each variant the measurement of the most tasks: a single one beside it decides nothing. The newest of several such."""
    ordered = sorted(clean.of(EffectiveLength), key=lambda m: (len(m.row.tasks), m.run.started))
    return {m.model_variant: m.row for m in ordered}


def _show_means(
    part: Section, clean: Clean, summaries: list[Measurement[EffectiveLength]], names: dict[Variant, str]
) -> None:
    """The figure of means by length, of rows over the same tasks, and a sentence a model."""
    newest = {m.model_variant: m for m in sorted(summaries, key=lambda m: m.run.started)}
    longest = {(variant, m.row.by_window[-1]["window"]): m for variant, m in newest.items()}
    drawn, left_out = to_draw(clean, {state: m.row.by_window[-1]["score"] for state, m in longest.items()})
    series = [
        (each.name, each.first, _means([longest[seed, each.window].row for seed in each.seeds])) for each in drawn
    ]
    tasks = summaries[0].row.tasks
    part.draw(
        compare.score_by_length(series, threshold=summaries[0].row.threshold, colours=clean.colours),
        f"Mean score of {number_format.counted(len(tasks), 'task')} by length, with 95 % intervals; the dashed line is the threshold of RULER's effective length, the dotted one "
        "the window of pretraining. Of several seeds it is their mean, with its interval for other items and other seeds."
        + left_out,
        f"Mean of {', '.join(tasks)}" if len(tasks) < 13 else "RULER's thirteen tasks",
    )
    for variant, m in newest.items():
        part.notes.append(f"{names[variant]}: {m.row.in_words}")
        rows = [other.row for other in clean.of(LongTask) if (other.model_variant, other.run.id) == (variant, m.run.id)]
        part.notes += [each for each in [*m.row.omissions, *m.row.besides(rows)] if each not in part.notes]


def _means(seeds: Sequence[EffectiveLength]) -> list[tuple[int, float, float, float]]:
    """(length, mean score of these seeds, its interval) of each length."""
    by_window: dict[int, list[Bounded]] = {}
    for at in (at for row in seeds for at in row.by_window):
        by_window.setdefault(at["window"], []).append((at["score"], at["low"], at["high"]))
    return [(window, *share_over_seeds(scores)) for window, scores in sorted(by_window.items())]


def _tasks(clean: Clean, rows: ByVariant, names: dict[Variant, str]) -> Table:
    """A line a model and length, a column a task."""
    tasks = list(
        dict.fromkeys(task for by_window in rows.values() for of_window in by_window.values() for task in of_window)
    )
    lines = []
    for variant, by_window in rows.items():
        for window, of_window in by_window.items():
            cells = [Cell(str(window)), *(_cell(of_window.get(task)) for task in tasks)]
            lines.append(Line(names[variant], cells, colour=style.colour(variant, clean.colours)))
    items = sorted(
        {row.items for by_window in rows.values() for of_window in by_window.values() for row in of_window.values()}
    )
    return Table(
        clean.titled("Score by task and length", names),
        ["tokens", *tasks],
        seeds_together(lines),
        first="state",
        note=f"Small figures: 95 % interval over {number_format.counted(items[0], 'item') if len(items) == 1 else f'{items[0]} to {items[-1]} items'}.",
    )


def _cell(row: LongTask | None) -> Cell:
    return Cell("–") if row is None else Cell.of(row.score, number_format.share, row.low, row.high, within=(0, 1))
