"""Commands that measure what a model is used for: benchmarks, summaries, and everything at once. Call, print."""

from __future__ import annotations

import shlex
from typing import Any

from ropewalk.cli import rehearse
from ropewalk.cli.terminal import say, say_rows
from ropewalk.errors import UserError
from ropewalk.sentences import counted
from ropewalk.settings.ablate import AblateSettings
from ropewalk.settings.command import arguments
from ropewalk.settings.downstream import BenchmarksSettings, EvaluateSettings, SummarizeSettings


def benchmarks(options: Any) -> None:
    from ropewalk.cli.tables.downstream import by_model, show_benchmarks
    from ropewalk.evals.downstream.benchmarks import benchmarks

    rows = benchmarks(**arguments(BenchmarksSettings, options))
    if options.json:
        say_rows(by_model(rows, str(options.model)))
    else:
        show_benchmarks(rows)


def summarize(options: Any) -> None:
    from ropewalk.cli.tables.downstream import show_summaries
    from ropewalk.evals.downstream.summary import summarize

    rows = summarize(**arguments(SummarizeSettings, options))
    if options.json:
        say_rows([(str(options.model), rows)])
    else:
        show_summaries(rows)


def evaluate(options: Any) -> None:
    if options.dry_run:
        return rehearse.evaluate(options)
    from ropewalk.suite.runner import evaluate

    outcomes = evaluate(**arguments(EvaluateSettings, options))
    left_out = [outcome for outcome in outcomes if outcome.reason]
    say(
        f"{len(outcomes) - len(left_out)} of {counted(len(outcomes), 'stage')} measured; the page: {options.out}/report.html"
    )
    for outcome in left_out:
        say(f"left out: {outcome.name}, {outcome.model}: {outcome.reason}")


def ablate(options: Any) -> None:
    from ropewalk.suite.ablation import ablate

    outcomes = ablate(**arguments(AblateSettings, options))
    for outcome in outcomes:
        if outcome.reason:
            say(
                f"{outcome.model}/{outcome.name}: {outcome.reason}"
                + (f", {outcome.seconds:.0f} s" if options.dry_run and outcome.seconds else "")
            )
    to_do = [outcome for outcome in outcomes if outcome.reason]
    if options.dry_run:
        minutes = sum(outcome.seconds for outcome in to_do) / 60
        where = "on this machine" if options.chip is None else f"of one {options.chip}"
        refused = [outcome for outcome in to_do if not outcome.seconds]
        say(f"{counted(len(outcomes), 'row')}, {len(to_do) - len(refused)} to do: about {minutes:.1f} minutes {where}")
        if refused:
            raise UserError(f"{counted(len(refused), 'row')} could not be made: {refused[0].reason}")
    elif outcomes and all(outcome.reason and outcome.seconds for outcome in outcomes):  # tried, each of them
        raise UserError(f"no row could be measured: {outcomes[0].reason}")
    else:
        done = len(outcomes) - len(to_do)
        now = f"; now: ropewalk report {shlex.quote(str(options.out))}/*.jsonl --out report.html" if done else ""
        say(f"in {options.out}: {done} of {counted(len(outcomes), 'row')}{now}")
