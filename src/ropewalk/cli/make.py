"""Commands that make something: a longer model, a trained one, a page, the demo. Call, print."""

from __future__ import annotations

import time
from typing import Any

from ropewalk.cli.terminal import say
from ropewalk.settings.command import arguments
from ropewalk.settings.extend import ExtendSettings
from ropewalk.settings.pages import DemoSettings, ReportSettings
from ropewalk.settings.train import TrainSettings


def extend(options: Any) -> None:
    from ropewalk.model.extend import extend

    info = extend(**arguments(ExtendSettings, options))
    say(
        f"{options.out}: {info.family}, window {info.original_window} → {info.window} tokens, {info.method} factor {info.factor:g}; "
        "transformers computes this inv_freq\n"
        f"vLLM multiplies the window by the factor once more: serve with --max-model-len {info.window}"
    )


def train(options: Any) -> None:
    from ropewalk.training import train

    info = train(**arguments(TrainSettings, options))
    say(
        f"{options.out}: {info.family}, window {info.window} tokens, {info.method} factor {info.factor:g}, {info.steps} steps; "
        f"the loss of every step is in {options.out}/records.jsonl\n"
        f"now: ropewalk perplexity {options.out} --data … --windows {info.original_window} {info.window}"
    )


def report(options: Any) -> None:
    from ropewalk.reports import report

    say(str(report(**arguments(ReportSettings, options))))


def demo(options: Any) -> None:
    from ropewalk.cli.tables.demo import show_demo
    from ropewalk.suite.demo import demo

    started = time.perf_counter()
    show_demo(demo(**arguments(DemoSettings, options)), time.perf_counter() - started)
    say(f"the page: {options.out}/report.html")
