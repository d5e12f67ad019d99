"""Commands that measure what a model is used for: benchmarks, summaries, and everything at once. Parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from ropewalk.cli.shared import Data, Flag, Model, RecordFile

Task = Literal["boolq", "piqa", "race-middle", "race-high", "winogrande"]


def benchmarks(
    model: Model,
    /,
    *,
    tasks: list[Task] | None = None,
    data: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    base: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None,
    limit: int | None = None,
    window: int | None = None,
    batch_tokens: int | None = None,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    device: str | None = None,
    out: RecordFile = None,
) -> None:
    """Zero-shot accuracy in the original window through lm-eval (section 3.4), paired with the base's if that is given.

    Args:
        model: `hemp`, a local directory or a hub id.
        tasks: All five if not given.
        data: Directory of <task>.jsonl files (or .xz, .gz, .zst); the hub's sets if not given.
        base: The model before its extension.
        limit: The first so many items of each.
        window: Tokens a prompt may have; the original window if not given.
        batch_tokens: Tokens of one forward pass; for speed and memory.
        dtype: Of the weights; bfloat16 on a GPU, float32 on a CPU.
        device: cuda, cpu, …; the GPU if there is one.
        out: Record file to append to; a killed run goes on from it.
    """
    from ropewalk.cli.tables.downstream import show_benchmarks
    from ropewalk.evals.downstream import benchmarks as measuring

    rows = measuring.benchmarks(
        model,
        tasks=tasks or measuring.TASKS,
        data=data,
        base=base,
        limit=limit,
        window=window,
        batch_tokens=batch_tokens,
        dtype=dtype,
        device=device,
        out=out,
    )
    show_benchmarks(rows)


def summarize(
    model: Model,
    /,
    *,
    data: Data,
    train: Annotated[list[str] | None, tyro.conf.arg(metavar="DATA...")] = None,
    trained: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    epochs: int = 10,
    batch_size: int = 64,
    learning_rate: float | None = None,
    window: int | None = None,
    document_tokens: int | None = None,
    summary_tokens: int | None = None,
    temperature: float = 0.5,
    top_p: float = 0.95,
    seed: int = 0,
    limit: int | None = None,
    batch: int | None = None,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    device: str | None = None,
    out: RecordFile = None,
) -> None:
    """Summaries of long documents, drawn and greedy, scored by ROUGE (section 3.5); fine-tunes on --train first.

    Args:
        model: `hemp`, a local directory or a hub id.
        data: JSON-lines files with document and summary, or data-set ids as owner/name:split, to measure on.
        train: Pairs to fine-tune on first; none of them may be in --data.
        trained: Directory of the fine-tuned model; needed with --train, and training goes on from what lies there.
        epochs: Passes over the pairs (paper: 10).
        batch_size: Pairs a step (not stated in section 3.5; section 3.1 has 64).
        learning_rate: 2e-5, from 33B parameters on 1e-5, if not given (paper).
        window: Tokens of document, prompt and summary; the paper's 16384, or the model's own if that is shorter.
        document_tokens: Tokens of a document that are shown (paper: 15000); what fits a smaller window.
        summary_tokens: The longest summary (paper: 1000); its share of a smaller window.
        temperature: Of the drawn summaries (paper: 0.5).
        top_p: Share of the likeliest tokens drawn from (paper: 0.95).
        seed: Of the draws, and of the training order.
        limit: The first so many documents.
        batch: Documents at a time; from the memory if not given.
        dtype: Of the weights; bfloat16 on a GPU, float32 on a CPU.
        device: cuda, cpu, …; the GPU if there is one.
        out: Record file to append to; a killed run goes on from it.
    """
    from ropewalk.cli.tables.downstream import show_summaries
    from ropewalk.evals.downstream import summary as measuring
    from ropewalk.evals.downstream.generation import Decoding

    training = {} if train is None else {"learning_rate": learning_rate, "seed": seed}
    rows = measuring.summarize(
        model,
        data=data,
        train=train,
        trained=trained,
        epochs=epochs,
        batch_size=batch_size,
        decodings=[Decoding(temperature, top_p, seed), Decoding(temperature=0.0)],
        limit=limit,
        window=window,
        document_tokens=document_tokens,
        summary_tokens=summary_tokens,
        batch=batch,
        dtype=dtype,
        device=device,
        out=out,
        **training,
    )
    show_summaries(rows)


def evaluate(
    model: Model,
    /,
    *,
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")],
    suite: Literal["paper"] = "paper",
    base: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None,
    size: Literal["auto", "small", "full"] = "auto",
    data: Annotated[list[str] | None, tyro.conf.arg(metavar="DATA...")] = None,
    math: Annotated[list[str] | None, tyro.conf.arg(metavar="DATA...")] = None,
    benchmarks: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    pairs: Annotated[list[str] | None, tyro.conf.arg(metavar="DATA...")] = None,
    train_pairs: Annotated[list[str] | None, tyro.conf.arg(metavar="DATA...")] = None,
    budget: Annotated[float | None, tyro.conf.arg(metavar="MINUTES")] = None,
    documents: int | None = None,
    items: int | None = None,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    device: str | None = None,
    seed: int = 0,
    overwrite: Flag = False,
) -> None:
    """Everything the paper measures, as far as it fits this machine, and the page; a killed run goes on where it was.

    Args:
        model: `hemp`, a local directory or a hub id.
        out: Directory of records.jsonl, stages.jsonl and report.html; a suite that lies there already goes on.
        suite: Which measurements.
        base: The model before its extension; benchmarks are then paired, and the untrained extension is measured too.
        size: full is the paper's, small a quarter of an hour on two cores; auto is full where there is a GPU.
        data: Long documents for perplexity and attention; the standard library's held-out modules if not given.
        math: Further documents for perplexity, in a row of their own (paper: proof-pile).
        benchmarks: Directory of benchmark files; the hub's sets if not given.
        pairs: Documents and summaries; no summaries if not given.
        train_pairs: Pairs to fine-tune on before summarising.
        budget: Minutes for each perplexity, which is then an estimate.
        documents: Documents of the perplexity, if not the size's number.
        items: Items of each benchmark, if not the size's number.
        dtype: Of the weights; bfloat16 on a GPU, float32 on a CPU.
        device: cuda, cpu, …; the GPU if there is one.
        seed: Of everything that is drawn.
        overwrite: Throw an earlier suite in --out away.
    """
    from ropewalk.distributed import ranks
    from ropewalk.suite.runner import evaluate as run

    change = {name: value for name, value in (("documents", documents), ("items", items)) if value is not None}
    outcomes = run(
        model,
        out=out,
        suite=suite,
        base=base,
        size=size,
        data=data,
        math=math,
        benchmarks=benchmarks,
        pairs=pairs,
        train_pairs=train_pairs,
        budget=budget,
        dtype=dtype,
        device=device,
        seed=seed,
        overwrite=overwrite,
        change=change,
    )
    if ranks.rank() != 0:
        return
    left_out = [outcome for outcome in outcomes if outcome.reason]
    print(f"{len(outcomes) - len(left_out)} of {len(outcomes)} stages measured; the page: {out}/report.html")
    for outcome in left_out:
        print(f"left out: {outcome.name}, {outcome.subject}: {outcome.reason}")
