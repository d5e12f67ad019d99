"""Commands that measure what a model is used for: benchmarks, summaries, and everything at once. Call, print."""

from __future__ import annotations

from typing import Any

from ropewalk.cli.terminal import say
from ropewalk.settings.command import arguments
from ropewalk.settings.downstream import BenchmarksSettings, EvaluateSettings, SummarizeSettings


def benchmarks(options: Any) -> None:
    from ropewalk.cli.tables.downstream import show_benchmarks
    from ropewalk.evals.downstream.benchmarks import benchmarks

    show_benchmarks(benchmarks(**arguments(BenchmarksSettings, options)))


def summarize(options: Any) -> None:
    from ropewalk.cli.tables.downstream import show_summaries
    from ropewalk.evals.downstream.summary import summarize

    show_summaries(summarize(**arguments(SummarizeSettings, options)))


def evaluate(options: Any) -> None:
    from ropewalk.suite.runner import evaluate

    outcomes = evaluate(**arguments(EvaluateSettings, options))
    left_out = [outcome for outcome in outcomes if outcome.reason]
    say(f"{len(outcomes) - len(left_out)} of {len(outcomes)} stages measured; the page: {options.out}/report.html")
    for outcome in left_out:
        say(f"left out: {outcome.name}, {outcome.model}: {outcome.reason}")
