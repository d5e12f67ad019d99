"""What is measured of a row of an ablation: the same texts, prompts and items for every row, so that rows are paired.

in   a model in memory, what was asked for
out  records, by the functions that the measuring commands have
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ropewalk.data.tokenising import Sources
from ropewalk.evals.attention import measure as attention
from ropewalk.evals.loaded import LoadedModel
from ropewalk.evals.perplexity import context_gain
from ropewalk.evals.perplexity import measure as perplexities
from ropewalk.evals.perplexity.two_pass import Contexts
from ropewalk.evals.retrieval import harder, passkey
from ropewalk.settings.ablate import AblateSettings
from ropewalk.settings.measure import (
    AttentionSettings,
    GainSettings,
    PasskeySettings,
    PerplexitySettings,
    RetrievalSettings,
)
from ropewalk.suite.grid import Grid
from ropewalk.suite.row import Row


def measurements(grid: Grid, row: Row, loaded: LoadedModel, records: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What is measured of a row, one after the other, by name."""
    asked, own = grid.settings, {"model": loaded.model, "tokenizer": loaded.tokenizer, "out": records}
    texts = {"limit": asked.documents, "min_tokens": grid.test_tokens, "max_tokens": grid.test_tokens}
    new, asks = grid.new_window(row), asked.measure

    def perplexity(data: Sources, window: int) -> Callable[[], Any]:
        settings = PerplexitySettings(**own, **texts, data=data, windows=[window], stride=grid.stride(window))
        return lambda: perplexities.measure(loaded, settings)

    for window in grid.windows(row) if "perplexity" in asks else ():
        yield f"perplexity at {window}", perplexity(asked.test, window)
        if asked.also is not None:
            yield f"perplexity at {window} of the further documents", perplexity(asked.also, window)
    if asked.validation is not None and row.tokens and "validation" in asks:
        for window in sorted({grid.window, new}):
            yield f"validation at {window}", perplexity(asked.validation, window)
    if "gain" in asks and new <= grid.test_tokens:
        contexts = Contexts(new, grid.window, max(1, grid.window // 2))
        gains = GainSettings(**own, **texts, data=asked.test)
        yield "gain", lambda: context_gain.measure(loaded, gains, contexts)
    for window in grid.prompt_windows(row) if "passkey" in asks else ():
        keys = PasskeySettings(**own, window=window, depths=asked.depths, trials=asked.trials)
        yield f"passkey at {window}", functools.partial(passkey.measure, loaded, keys)
    for window in grid.prompt_windows(row) if "retrieval" in asks else ():
        facts = RetrievalSettings(**own, window=window, trials=asked.prompts)
        yield f"retrieval at {window}", functools.partial(harder.measure, loaded, facts)
    if "attention" in asks and new <= grid.test_tokens:
        scores = AttentionSettings(**own, data=asked.test, window=new)
        yield "attention", functools.partial(attention.measure, loaded, scores)
    if "benchmarks" in asks:
        yield "benchmarks", functools.partial(_benchmarks, loaded, asked, records)


@functools.lru_cache(maxsize=1)
def benchmark_tasks(data: Path | None, items: int) -> tuple[Any, dict[str, str]]:
    """The benchmarks with their items, which are read once a process, and a digest of each.

    Raises:
        UserError: a file that is not there, or a set that cannot be fetched.
    """
    from ropewalk.evals.downstream import tasks

    built = tasks.build(tasks.TASKS, data)
    return built, {name: tasks.digest(task, items) for name, task in built.items()}


def _benchmarks(loaded: LoadedModel, asked: AblateSettings, records: Path) -> None:
    from ropewalk.evals.downstream import benchmarks
    from ropewalk.settings.downstream import BenchmarksSettings

    settings = BenchmarksSettings(
        model=loaded.model, tokenizer=loaded.tokenizer, data=asked.benchmarks, limit=asked.items, out=records
    )
    benchmarks.measure(loaded, settings, *benchmark_tasks(asked.benchmarks, asked.items), {})
