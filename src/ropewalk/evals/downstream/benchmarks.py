"""What the extension cost in the original window: five zero-shot benchmarks through lm-eval, before and after.

in   a model, and the base it came from if there is one; benchmark data on the hub or in a directory
out  one row a benchmark (accuracy, interval, every item's verdict), one row a pair (difference, interval, p-value)

The numbers are lm-eval's: its prompts, its tokens, its metric `acc` (the choice with the highest summed log-probability).
Two things differ from running it bare, beside speed (choices.py). Its own limit is the config's `max_position_embeddings`, which readers of an
extended checkpoint disagree on; ours is the original window, for both models of a pair, so that both see the same
prompts. And where a prompt is longer, lm-eval drops text from its left and says so on the log only; here the items that
lost text are counted in the row.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import lm_eval
import torch
from lm_eval.api.task import ConfigurableTask

from ropewalk.distributed import ranks
from ropewalk.errors import UserError
from ropewalk.evals.downstream import tasks as definitions
from ropewalk.evals.downstream.harness import Harness
from ropewalk.evals.intervals import Paired, wilson
from ropewalk.evals.likelihood import default_batch_tokens
from ropewalk.evals.loaded import LoadedModel, fingerprint, open_model
from ropewalk.evals.pairing import refuse_other_tokenizer
from ropewalk.evals.recorded import already_recorded, by_key, on_record
from ropewalk.model.load import load_tokenizer, model_info
from ropewalk.records import Benchmark, BenchmarkComparison, ModelInfo, Recorder

TASKS = definitions.TASKS


def measure(
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
        loaded: a model, its tokenizer and state.
        task: of `tasks.build`.
        window: tokens a prompt may have; what is longer loses its left part, and is counted.
        limit: the first so many items instead of all.
        batch_tokens: tokens of one forward pass; changes speed and memory alone.
        data: where the items are from, for the row.
        digest: `tasks.digest` of these items, where it is known.

    Raises:
        UserError: a limit below 1, log-probabilities that are not numbers.
    """
    if limit is not None and limit < 1:
        raise UserError(f"a limit is at least one item, got {limit}; leave it out for the whole benchmark")
    started = time.perf_counter()
    name = task.task_name
    with definitions.quiet():
        harness = Harness(loaded, window=window, batch_tokens=batch_tokens or default_batch_tokens(loaded.device))
        found = lm_eval.evaluate(
            lm=harness, task_dict={"tasks": {name: task}}, limit=limit, bootstrap_iters=0, log_samples=True
        )
    digest = digest or definitions.digest(task, limit)
    samples = sorted(found["samples"][name], key=lambda sample: sample["doc_id"])
    _refuse_nan(name, samples)
    right = [bool(sample["acc"]) for sample in samples]
    low, high = wilson(sum(right), len(right))
    normed = [sample["acc_norm"] for sample in samples if "acc_norm" in sample]
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
        accuracy_norm=sum(normed) / len(normed) if normed else None,
        seconds=time.perf_counter() - started,
    )


def _key(loaded: LoadedModel, task: str, digest: str, window: int) -> str:
    """Everything that decides a row, as a short name: what is on record under it need not be measured again."""
    said = [fingerprint(loaded.model), loaded.dtype, task, digest, window]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:20]


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
    """The pair of two rows over the same items. Rows read back from records do too: `Benchmark(**row)`.

    Raises:
        UserError: the rows are of different tasks, items or windows, and so are no pair.
    """
    for what in ("task", "digest", "window"):
        if getattr(before, what) != getattr(after, what):
            raise UserError(
                f"a pair needs the same items in the same window, but the {what} differs ({getattr(before, what)}, "
                f"{getattr(after, what)}); measure both with the same data, limit and window"
            )
    pair = Paired.of([c == "1" for c in before.answers], [c == "1" for c in after.answers])
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


def benchmarks(
    model: Any,
    *,
    tasks: Sequence[str] = TASKS,
    data: str | Path | None = None,
    base: Any = None,
    limit: int | None = None,
    window: int | None = None,
    batch_tokens: int | None = None,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    tokenizer: Any = None,
    out: str | Path | None = None,
) -> list[Benchmark | BenchmarkComparison]:
    """Zero-shot accuracy of a model, and of its base beside it (section 3.4, table 5).

    A run that was killed goes on where it stopped: a benchmark that `out` holds for the same weights, dtype, items and
    window is not run again. Under torchrun the items are spread over the ranks.

    Args:
        model: `hemp`, a directory, a hub id, or a transformers model (then with its tokenizer).
        tasks: of boolq, piqa, race-middle, race-high, winogrande.
        data: a directory of `<task>.jsonl` files (or .xz, .gz, .zst); the hub's sets if not given.
        base: the model before its extension; each benchmark is then paired.
        limit: the first so many items of each.
        window: tokens a prompt may have; the original window if not given, for both models.
        batch_tokens: tokens of one forward pass; changes speed and memory alone.
        dtype, device: as in `model.load`.
        tokenizer: with a model object.
        out: record file to append to and to resume from.

    Returns:
        The base's rows (if any), the model's rows, then one comparison a benchmark.

    Raises:
        UserError: see `measure`, `compare`, `refuse_other_tokenizer`; a window above what either model can hold.
    """
    built = definitions.build(tasks, data)
    _check_pair(model, base, window)
    digests = {name: definitions.digest(task, limit) for name, task in built.items()}
    settings = {"tasks": list(tasks), "limit": limit, "data": str(data or "hub")}
    recorded = on_record(out)
    known, before = ranks.same((by_key(recorded, Benchmark), recorded.of(BenchmarkComparison.kind)))
    measured: list[list[Benchmark]] = []
    names: list[str] = []
    for one in (base, model) if base is not None else (model,):
        loaded = open_model(one, tokenizer=tokenizer, dtype=dtype, device=device)
        holds = _window(window, [loaded.info])
        recorder = Recorder(out if ranks.rank() == 0 else None, loaded.run(**settings, window=holds))
        names.append(loaded.info.name)
        measured.append([])
        for name, task in built.items():
            row = known.get(_key(loaded, name, digests[name], holds))
            if row is None:
                row = measure(
                    loaded,
                    task,
                    window=holds,
                    limit=limit,
                    batch_tokens=batch_tokens,
                    data=str(data or "hub"),
                    digest=digests[name],
                )
                recorder.add(row)
            measured[-1].append(row)
        del loaded  # the next model needs the room
    rows: list[Benchmark | BenchmarkComparison] = [row for group in measured for row in group]
    if base is not None:
        for first, second in zip(*measured, strict=True):
            pair = compare(first, second, names=(names[0], names[1]))
            if not already_recorded(pair, before):
                recorder.add(pair)  # pyrefly: ignore[unbound-name] (there is always one model)
            rows.append(pair)
    return rows


def _check_pair(model: Any, base: Any, window: int | None) -> None:
    """What can be refused by reading configs and tokenizers is refused before any weight is loaded."""
    names = [name for name in (base, model) if isinstance(name, str | Path)]
    states = [model_info(name) for name in names]
    if len(names) == 2 and states[0].original_window != states[1].original_window and window is None:
        raise UserError(
            f"a pair is measured in one window, but the original windows differ ({states[0].original_window}, "
            f"{states[1].original_window}); name the base this model was made from, or give --window"
        )
    if states:
        _window(window, states)
    if len(names) == 2:
        base_tokenizer, tokenizer = (load_tokenizer(name) for name in names)
        refuse_other_tokenizer(tokenizer, base_tokenizer, names=(str(model), str(base)))


def _window(asked: int | None, states: Sequence[ModelInfo]) -> int:
    window = states[0].original_window if asked is None else asked
    holds = min(state.window for state in states)
    if not 2 <= window <= holds:
        raise UserError(
            f"a benchmark's window lies between 2 tokens and the {holds} that the model can hold, got {window}; choose a "
            "window in between, or extend the model first"
        )
    return window
