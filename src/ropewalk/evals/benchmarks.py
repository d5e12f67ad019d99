"""What the extension cost in the original window: five zero-shot benchmarks through lm-eval, before and after.

in   a model, and the base it came from if there is one; benchmark data on the hub or in a directory
out  one row a benchmark (accuracy, interval, every item's verdict), one row a pair (difference, interval, p-value)

The numbers are lm-eval's: its prompts, its scoring, its metric `acc` (the choice with the highest summed log-probability).
Two things differ from running it bare. Its own limit is the config's `max_position_embeddings`, which readers of an
extended checkpoint disagree on; ours is the original window, for both models of a pair, so that both see the same
prompts. And where a prompt is longer, lm-eval drops text from its left and says so on the log only; here the items that
lost text are counted in the row.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.metadata
import math
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import lm_eval
import torch
import transformers
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM

from ropewalk import model as models
from ropewalk.errors import UserError
from ropewalk.evals import tasks as definitions
from ropewalk.evals.intervals import Paired, wilson
from ropewalk.record import Benchmark, BenchmarkComparison, ModelState, Recorder, new_run

TASKS = definitions.TASKS


class Harness(HFLM):
    """lm-eval's own model around one that is loaded already, with a window, that also notes which items lose text.

    `truncated` holds (task, item) for every item with a prompt longer than the window.
    """

    def __init__(self, model: Any, tokenizer: Any, *, window: int, batch_size: int) -> None:
        super().__init__(
            pretrained=model,
            # lm-eval gives the tokenizer a padding token; that is its copy's business.
            tokenizer=copy.deepcopy(tokenizer),
            max_length=window,
            batch_size=batch_size,
            prefix_token_id=_prefix(tokenizer, model.config),
        )
        self.truncated: set[tuple[str, int]] = set()
        self._too_long: list[bool] = []

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        answers = super().loglikelihood(requests, disable_tqdm=disable_tqdm)
        for request, too_long in zip(requests, self._too_long, strict=True):
            if too_long:
                self.truncated.add((request.task_name, request.doc_id))
        return answers

    def _loglikelihood_tokens(self, requests: list[Any], *args: Any, **kwargs: Any) -> list[tuple[float, bool]]:
        longest = max(len(answer) for _, _, answer in requests)
        if longest > self.max_length:
            raise UserError(
                f"an answer must fit into the window, but one has {longest} tokens and the window is {self.max_length}; "
                "measure a model with a longer window, or leave this benchmark out"
            )
        # One more than the window fits: the last token is predicted, never read.
        self._too_long = [len(prompt) + len(answer) > self.max_length + 1 for _, prompt, answer in requests]
        return super()._loglikelihood_tokens(requests, *args, **kwargs)


def _prefix(tokenizer: Any, config: Any) -> int:
    """lm-eval asks for the token before an empty prompt even where none is empty; some tokenizers name neither."""
    known = (tokenizer.bos_token_id, tokenizer.eos_token_id, config.bos_token_id, config.eos_token_id)
    return next((token for token in known if isinstance(token, int)), 0)


def measure(
    model: transformers.PreTrainedModel,
    tokenizer: transformers.PreTrainedTokenizerBase,
    task: ConfigurableTask,
    *,
    window: int,
    limit: int | None = None,
    batch_size: int = 8,
    data: str = "hub",
) -> Benchmark:
    """One benchmark on one model.

    Args:
        model: loaded and verified.
        task: of `tasks.build`.
        window: tokens a prompt may have; what is longer loses its left part, and is counted.
        limit: the first so many items instead of all.
        batch_size: prompts a forward.
        data: where the items are from, for the row.

    Raises:
        UserError: a limit below 1, an answer longer than the window, log-probabilities that are not numbers.
    """
    if limit is not None and limit < 1:
        raise UserError(f"a limit is at least one item, got {limit}; leave it out for the whole benchmark")
    started = time.perf_counter()
    name = task.task_name
    with definitions.quiet():
        harness = Harness(model, tokenizer, window=window, batch_size=batch_size)
        found = lm_eval.evaluate(
            lm=harness, task_dict={"tasks": {name: task}}, limit=limit, bootstrap_iters=0, log_samples=True
        )
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
        digest=_digest(samples),
        rule=f"lm-eval {importlib.metadata.version('lm-eval')}, {_lm_eval_name(name)} v{task.VERSION}",
        data=data,
        limit=limit,
        accuracy_norm=sum(normed) / len(normed) if normed else None,
        seconds=time.perf_counter() - started,
    )


def _lm_eval_name(name: str) -> str:
    return "race" if name.startswith("race-") else name


def _refuse_nan(name: str, samples: Iterable[dict[str, Any]]) -> None:
    for sample in samples:
        if any(math.isnan(float(score)) for score, _ in sample["filtered_resps"]):
            raise UserError(
                f"log-probabilities must be numbers, but item {sample['doc_id']} of {name} gave NaN; the weights or their "
                "dtype are broken: try --dtype float32, or run `ropewalk doctor` on the checkpoint"
            )


def _digest(samples: Iterable[dict[str, Any]]) -> str:
    """What was asked, in order: two rows with one digest answered the same prompts with the same targets."""
    parts = "".join(sample["doc_hash"] + sample["prompt_hash"] + sample["target_hash"] for sample in samples)
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


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


#: Blanks, digits, accents, brackets, another script: where tokenizers part.
_PROBE = "The  pass key is 12345.\nNaïve 2,048-token f(x) = {x_1}; 繩索"


def refuse_other_tokenizer(ours: Any, base: Any, *, names: tuple[str, str]) -> None:
    """Before and after are only comparable over the same tokens.

    A tokenizer that merely has further tokens (a padding token, say) passes.

    Raises:
        UserError: a token of the base's has another number, or a probe text is cut otherwise.
    """
    mine, theirs = ours.get_vocab(), base.get_vocab()
    moved = sum(mine.get(token) != number for token, number in theirs.items())
    if moved or ours(_PROBE)["input_ids"] != base(_PROBE)["input_ids"]:
        found = f"{moved} tokens have other numbers" if moved else "the same text is cut otherwise"
        raise UserError(
            f"a model and its base must share a tokenizer, but between {names[0]} and {names[1]} {found}; "
            "name the base this model was made from, or copy the base's tokenizer files"
        )


def benchmarks(
    model: str | Path,
    *,
    tasks: Sequence[str] = TASKS,
    data: str | Path | None = None,
    base: str | Path | None = None,
    limit: int | None = None,
    batch_size: int = 8,
    window: int | None = None,
    dtype: str | None = None,
    device: str | None = None,
    out: str | Path | None = None,
) -> list[Benchmark | BenchmarkComparison]:
    """Zero-shot accuracy of a model, and of its base beside it (section 3.4, table 5).

    Args:
        model: `hemp`, a directory or a hub id.
        tasks: of boolq, piqa, race-middle, race-high, winogrande.
        data: a directory of `<task>.jsonl` files (or .xz, .gz, .zst); the hub's sets if not given.
        base: the model before its extension; each benchmark is then paired.
        limit: the first so many items of each.
        batch_size: prompts a forward.
        window: tokens a prompt may have; the model's original window if not given.
        out: a records file to append to.

    Returns:
        The base's rows (if any), the model's rows, then one comparison a benchmark.

    Raises:
        UserError: see `measure`, `compare`, `refuse_other_tokenizer`; a window above what either model can hold.
    """
    built = definitions.build(tasks, data)
    names = [model] if base is None else [base, model]
    states = [models.state(name) for name in names]
    window = _common_window(window, states)
    tokenizers = [models.load_tokenizer(name) for name in names]
    if base is not None:
        refuse_other_tokenizer(tokenizers[1], tokenizers[0], names=(str(model), str(base)))
    settings = {
        "tasks": list(tasks),
        "data": str(data or "hub"),
        "limit": limit,
        "window": window,
        "base": base and str(base),
    }
    measured: list[list[Benchmark]] = []
    for name, state, tokenizer in zip(names, states, tokenizers, strict=True):
        loaded = models.load(name, dtype=dtype, device=device)
        recorder = Recorder(
            out, new_run(state, device=_device_name(loaded), dtype=str(loaded.dtype).split(".")[-1], settings=settings)
        )
        measured.append([])
        for task in built.values():
            row = measure(
                loaded, tokenizer, task, window=window, limit=limit, batch_size=batch_size, data=str(data or "hub")
            )
            recorder.add(row)
            measured[-1].append(row)
        del loaded  # the next model needs the room
    rows: list[Benchmark | BenchmarkComparison] = [row for group in measured for row in group]
    if base is not None:
        for before, after in zip(*measured, strict=True):
            pair = compare(before, after, names=(str(base), str(model)))
            recorder.add(pair)
            rows.append(pair)
    return rows


def _common_window(asked: int | None, states: Sequence[ModelState]) -> int:
    window = min(state.original_window for state in states) if asked is None else asked
    holds = min(state.window for state in states)
    if not 2 <= window <= holds:
        raise UserError(
            f"a benchmark's window lies between 2 tokens and the {holds} that the model can hold, got {window}; choose a "
            "window in between, or extend the model first"
        )
    return window


def _device_name(model: torch.nn.Module) -> str:
    device = next(model.parameters()).device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
