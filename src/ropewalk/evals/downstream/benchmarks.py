"""What the extension cost in the original window: five zero-shot benchmarks through lm-eval, before and after.

in   a model, and the base it came from if there is one; benchmark data on the hub or in a directory
out  one row a benchmark (accuracy, interval, every item's verdict), one row a pair (difference, interval, p-value)

The figures are lm-eval's: its prompts, its tokens, its metric `acc` (the choice with the highest summed log-probability). Two
things differ from lm-eval by itself, beside speed (choices.py). It cuts prompts at the config's `max_position_embeddings`, which
readers of an extended checkpoint disagree on; here they are cut at the original window, for both models of a pair, so that
both see the same prompts. And where a prompt is longer, lm-eval drops text from its left with no more than a log line; here
the row counts the items that lost text.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import math
import time
from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import lm_eval
from lm_eval.api.task import ConfigurableTask

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.distributed import ranks
from ropewalk.errors import UserError
from ropewalk.evals.downstream import tasks as definitions
from ropewalk.evals.downstream.harness import Harness
from ropewalk.evals.intervals import Paired, share_interval
from ropewalk.evals.likelihood import default_batch_tokens
from ropewalk.evals.loaded import LoadedModel, fingerprint, open_model, opened
from ropewalk.evals.pairing import refuse_other_tokenizer
from ropewalk.model.load import load_tokenizer
from ropewalk.records import Benchmark, BenchmarkComparison, ModelInfo, Recorder, Rows
from ropewalk.records.resume import already_recorded, by_key, on_record
from ropewalk.settings.command import takes
from ropewalk.settings.downstream import BenchmarksSettings
from ropewalk.settings.options import Opening

TASKS = definitions.TASKS


def measure_task(
    loaded: LoadedModel,
    task: ConfigurableTask,
    *,
    window: int,
    limit: int | None = None,
    batch_tokens: int | None = None,
    data: str = "hub",
    digest: str | None = None,
) -> Benchmark:
    """One benchmark on one model.

    Args:
        loaded: the model.
        task: of `tasks.build`.
        window: tokens a prompt may have; a longer one loses its left part, and is counted.
        limit: the first so many items instead of all.
        batch_tokens: tokens of one forward pass; changes speed and memory alone.
        data: where the items are from, for the row.
        digest: `tasks.digest` of these items, where it was computed already.

    Raises:
        UserError: log-probabilities that are NaN.
    """
    started = time.perf_counter()
    name = task.task_name
    with definitions.quiet(), definitions.cached_templates():
        harness = Harness(loaded, window=window, batch_tokens=batch_tokens or default_batch_tokens(loaded.device))
        results = lm_eval.evaluate(
            lm=harness, task_dict={"tasks": {name: task}}, limit=limit, bootstrap_iters=0, log_samples=True
        )
    digest = digest or definitions.digest(task, limit)
    samples = sorted(results["samples"][name], key=lambda sample: sample["doc_id"])
    _refuse_nan(name, samples)
    right = [bool(sample["acc"]) for sample in samples]
    low, high = share_interval(sum(right), len(right))
    right_normalised = [sample["acc_norm"] for sample in samples if "acc_norm" in sample]
    return Benchmark(
        task=name,
        accuracy=sum(right) / len(right),
        low=low,
        high=high,
        items=len(right),
        correct=sum(right),
        truncated=len(harness.truncated),
        window=window,
        answers="".join("01"[verdict] for verdict in right),
        digest=digest,
        rule=f"lm-eval {importlib.metadata.version('lm-eval')}, {_lm_eval_name(name)} v{task.VERSION}",
        key=_key(loaded, name, digest, window),
        data=data,
        limit=limit,
        accuracy_norm=sum(right_normalised) / len(right_normalised) if right_normalised else None,
        seconds=time.perf_counter() - started,
    )


def _key(loaded: LoadedModel, task: str, digest: str, window: int) -> str:
    """A short hash of everything that decides a row: a row on record with this key need not be measured again."""
    parts = [fingerprint(loaded), loaded.dtype, task, digest, window]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]


def _lm_eval_name(name: str) -> str:
    return "race" if name.startswith("race-") else name


def _refuse_nan(name: str, samples: Iterable[dict[str, Any]]) -> None:
    for sample in samples:
        if any(math.isnan(float(score)) for score, _ in sample["filtered_resps"]):
            raise UserError(
                f"log-probabilities must be numbers, but item {sample['doc_id']} of {name} gave NaN; the weights or their "
                "dtype are broken: try --dtype float32, or another copy of the checkpoint"
            )


def compare(before: Benchmark, after: Benchmark, *, names: tuple[str, str]) -> BenchmarkComparison:
    """Two rows over the same items, paired.

    Args:
        before, after: rows of the base and of the model; rows read from records will do.
        names: of the two models.

    Raises:
        UserError: the rows differ in task, items or window.
    """
    for field in ("task", "digest", "window"):
        if getattr(before, field) != getattr(after, field):
            raise UserError(
                f"a pair needs the same items in the same window, but the {field} differs ({getattr(before, field)}, "
                f"{getattr(after, field)}); measure both with the same data, limit and window"
            )
    pair = Paired.of([verdict == "1" for verdict in before.answers], [verdict == "1" for verdict in after.answers])
    low, high = pair.interval()
    return BenchmarkComparison(
        task=before.task,
        before=names[0],
        after=names[1],
        items=pair.items,
        accuracy_before=before.accuracy,
        accuracy_after=after.accuracy,
        difference=pair.difference,
        low=low,
        high=high,
        lost=pair.lost,
        gained=pair.gained,
        p_value=pair.p_value(),
    )


@takes(BenchmarksSettings)
def benchmarks(settings: BenchmarksSettings) -> Rows[Benchmark | BenchmarkComparison]:
    """Zero-shot accuracy of a model, and of its base beside it (section 3.4, table 5).

    A killed run continues where it stopped: a benchmark that `out` holds for the same weights, dtype, items and window is not
    run again. Under torchrun the items are shared out over the ranks.

    Returns:
        The base's rows (if any), the model's rows, then one comparison a benchmark.

    Raises:
        UserError: see `measure_task`, `compare`, `refuse_other_tokenizer`; a window above what either model can hold.
    """
    model, base = opened(settings.model, settings.base, **settings.opening)
    settings = dataclasses.replace(settings, model=model, base=base)
    _check_pair(settings.model, settings.base, settings.window)  # before benchmarks are fetched
    tasks = definitions.build(settings.tasks or TASKS, settings.data)
    digests = {name: definitions.digest(task, settings.limit) for name, task in tasks.items()}
    recorded = on_record(settings.out)
    ranks.join()
    recorded_rows, old_pairs = ranks.same((by_key(recorded, Benchmark), recorded.of(BenchmarkComparison)))
    if settings.base is None:
        loaded = _open(settings.model, settings, **settings.opening)
        return Rows(measure(loaded, settings, tasks, digests, recorded_rows)[1])
    base, before = measure(
        _open(settings.base, settings, trust_remote_code=settings.trust_remote_code),
        settings,
        tasks,
        digests,
        recorded_rows,
    )
    recorder, after = measure(
        _open(settings.model, settings, **settings.opening), settings, tasks, digests, recorded_rows
    )
    names = (base.run.model.name, recorder.run.model.name)
    pairs = [compare(first, second, names=names) for first, second in zip(before, after, strict=True)]
    for pair in pairs:
        if not already_recorded(pair, old_pairs, recorder.run):
            recorder.add(pair)
    return Rows([*before, *after, *pairs])


def _open(model: Any, settings: BenchmarksSettings, **opening: Unpack[Opening]) -> LoadedModel:
    return open_model(model, tokenizer=settings.tokenizer, data=settings.data, **settings.loading, **opening)


def measure(
    loaded: LoadedModel,
    settings: BenchmarksSettings,
    tasks: dict[str, ConfigurableTask],
    digests: dict[str, str],
    recorded_rows: dict[str, Benchmark],
) -> tuple[Recorder, list[Benchmark]]:
    """Every benchmark on one model, and the recorder of its run.

    Args:
        loaded: the model; nothing here keeps it, so its memory is free before the next one is loaded.
        settings: of the command.
        tasks: of `tasks.build`, by name.
        digests: of each task's items, by name.
        recorded_rows: rows on record, by key, which are not measured again.
    """
    window, data = _window(settings.window, [loaded.info]), str(settings.data or "hub")
    run = loaded.run(tasks=list(settings.tasks or TASKS), limit=settings.limit, data=data, window=window)
    recorder, rows = Recorder(settings.out if ranks.rank() == 0 else None, run), []
    for name, task in tasks.items():
        row = recorded_rows.get(_key(loaded, name, digests[name], window))
        if row is None:
            row = measure_task(
                loaded,
                task,
                window=window,
                limit=settings.limit,
                batch_tokens=settings.batch_tokens,
                data=data,
                digest=digests[name],
            )
            recorder.add(row)
        rows.append(row)
    return recorder, rows


def _check_pair(model: Any, base: Any, window: int | None) -> None:
    """Refuse, before any weight is loaded, what configs and tokenizers alone rule out."""
    checkpoints = [given for given in (base, model) if isinstance(given, Checkpoint)]
    infos = [checkpoint.info for checkpoint in checkpoints]
    if len(checkpoints) == 2 and infos[0].original_window != infos[1].original_window and window is None:
        raise UserError(
            f"a pair is measured in one window, but the original windows differ ({infos[0].original_window}, "
            f"{infos[1].original_window}); name the base this model was made from, or give --window"
        )
    if infos:
        _window(window, infos)
    if len(checkpoints) == 2:
        base_tokenizer, tokenizer = (load_tokenizer(checkpoint) for checkpoint in checkpoints)
        refuse_other_tokenizer(tokenizer, base_tokenizer, names=(str(model), str(base)))


def _window(asked: int | None, infos: Sequence[ModelInfo]) -> int:
    """The window of prompts: the one asked for, or the original window."""
    window = infos[0].original_window if asked is None else asked
    longest = min(info.window for info in infos)
    if not 2 <= window <= longest:
        raise UserError(
            f"a benchmark's window lies between 2 tokens and the {longest} that the model can hold, got {window}; choose a "
            "window in between, or extend the model first"
        )
    return window
