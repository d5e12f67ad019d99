"""Tables of what a model is used for: benchmarks and summaries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from ropewalk.cli.terminal import console
from ropewalk.records import Benchmark, BenchmarkComparison, Summary
from ropewalk.sentences import counted

BenchmarkRows = Sequence[Benchmark | BenchmarkComparison]


def by_model(rows: BenchmarkRows, name: str = "") -> list[tuple[str, list[Any]]]:
    """Each model's accuracies by its name, `name` where one alone was measured; pairs come last, by the second model's."""
    alone = [row for row in rows if isinstance(row, Benchmark)]
    pairs = [row for row in rows if isinstance(row, BenchmarkComparison)]
    names = [pairs[0].before, pairs[0].after] if pairs else [name]
    each = len(alone) // len(names)
    parts = [(name, alone[at * each : (at + 1) * each]) for at, name in enumerate(names)]
    return [*parts, (names[-1], pairs)] if pairs else parts


def show_benchmarks(rows: BenchmarkRows) -> None:
    """Print each model's accuracies as a table, and pairs as another; 80 characters wide at most."""
    for name, of_model in by_model(rows):
        is_pairs = isinstance(of_model[0], BenchmarkComparison)
        console().print(_differences(of_model) if is_pairs else _accuracies(of_model, name))


def _accuracies(rows: Sequence[Benchmark], name: str) -> Table:
    title = f"{name}: accuracy" if name else "accuracy"
    table = Table(title=f"{title}, % (zero-shot, lm-eval)", title_justify="left")
    for heading in ("benchmark", "accuracy", "95 % interval", "items", "lost text", "seconds"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row.task,
            f"{100 * row.accuracy:.1f}",
            f"{100 * row.low:.1f} to {100 * row.high:.1f}",
            f"{row.items}",
            f"{row.truncated}",
            f"{row.seconds:.0f}",
        )
    return table


def _differences(pairs: Sequence[BenchmarkComparison]) -> Table:
    table = Table(title=f"{pairs[0].before} → {pairs[0].after}, in points", title_justify="left")
    for heading in ("benchmark", "before", "after", "change, 95 % interval", "lost, gained", "p"):
        table.add_column(heading, justify="right", no_wrap=True)
    for pair in pairs:
        table.add_row(
            pair.task,
            f"{100 * pair.accuracy_before:.1f}",
            f"{100 * pair.accuracy_after:.1f}",
            f"{100 * pair.difference:+.1f}, {100 * pair.low:+.1f} to {100 * pair.high:+.1f}",
            f"{pair.lost}, {pair.gained}",
            f"{pair.p_value:.3f}",
        )
    return table


def show_summaries(rows: Sequence[Summary]) -> None:
    """Print rows as a table, and below it what was cut."""
    from ropewalk.evals.downstream.summary import SCORES

    table = Table(title="ROUGE × 100: F-measure, Porter stemmer", title_justify="left")
    for heading in ("decoding", "score", "mean", "95 % interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    terminal = console()
    for row in rows:
        for name, rouge_name in SCORES.items():
            low, high = row.intervals[name]
            interval = "none" if math.isnan(low) else f"{100 * low:.1f} to {100 * high:.1f}"
            table.add_row(row.decoding, rouge_name, f"{100 * getattr(row, name):.1f}", interval)
    terminal.print(table)
    for row in rows:
        terminal.print(
            f"{row.decoding}: {counted(row.documents, 'document')}, {row.cut} of them cut to {row.document_tokens} tokens; "
            f"summaries cut off at {row.summary_tokens} tokens: {row.unfinished}; {row.seconds:.0f} s"
        )
