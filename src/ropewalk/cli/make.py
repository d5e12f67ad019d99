"""Commands that make something: a longer model, a trained one, a page, the demo. Parse, call, print."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ropewalk.cli.shared import Data, Flag, Model, Out


def extend(
    model: Model,
    /,
    *,
    window: int,
    out: Out,
    method: Literal["linear", "ntk", "yarn", "auto"] = "linear",
    current_window: int | None = None,
    overwrite: Flag = False,
    convert_pickle: Flag = False,
    trust_remote_code: Flag = False,
) -> None:
    """Write a checkpoint with a longer context window. No weight is loaded or changed.

    Args:
        model: `hemp`, a local directory or a hub id.
        window: The new window in tokens; longer than the current one.
        out: Directory of the new checkpoint.
        method: linear is Position Interpolation (Chen et al. 2023, section 2.3); auto keeps the method the model has.
        current_window: What the model reads now, if its config leaves that open.
        overwrite: Replace --out if it exists.
        convert_pickle: Rewrite pickled weights as safetensors (weights-only load).
        trust_remote_code: Accept model code that comes with the checkpoint.
    """
    from ropewalk.model.extend import extend

    state = extend(
        model,
        window=window,
        out=out,
        method=method,
        current_window=current_window,
        overwrite=overwrite,
        convert_pickle=convert_pickle,
        trust_remote_code=trust_remote_code,
    )
    print(
        f"{out}: {state.family}, window {state.original_window} → {state.window} tokens, {state.method} factor {state.factor:g}; "
        "transformers computes these speeds\n"
        f"vLLM multiplies the window by the factor once more: serve with --max-model-len {state.window}"
    )


def train(
    model: Model,
    /,
    *,
    data: Data,
    window: int,
    out: Out,
    steps: int = 1000,
    method: Literal["linear", "ntk", "yarn", "auto", "plain"] = "linear",
    mode: Literal["full", "lora", "pose"] = "full",
    batch_size: int = 64,
    micro_batch: int | None = None,
    learning_rate: float | None = None,
    warmup: int = 20,
    clip: float = 1.0,
    save_every: int = 200,
    keep: int = 2,
    seed: int = 0,
    resume: Flag = False,
    mask_documents: Flag = False,
    allow_short: Flag = False,
    field: str | None = None,
    precision: Literal["auto", "float32", "bfloat16", "bfloat16-stochastic"] = "auto",
    optimizer: Literal["adamw", "adamw-8bit", "adamw-offload"] = "adamw",
    cp: int = 1,
    replicas: int = 1,
    memory: Literal["auto", "full", "none"] = "auto",
    device: str | None = None,
    threads: int | None = None,
    lora_rank: int = 8,
    lora_alpha: int = 16,
    chunk_window: int | None = None,
    current_window: int | None = None,
    tensorboard: Flag = False,
    wandb: str | None = None,
    overwrite: Flag = False,
    trust_remote_code: Flag = False,
) -> None:
    """Fine-tune a model at a longer window, after extending it there. Defaults are the paper's (Chen et al. 2023, section 3.1).

    Args:
        model: `hemp`, a local directory or a hub id.
        data: Files (text, JSON lines, Parquet, packed or not), directories, or data-set ids as owner/name:config:split.
        window: Tokens; the model is extended to it first if its own window is shorter.
        out: Directory of the trained model, its checkpoints and records.jsonl.
        steps: Optimiser steps (section 3.1: 1000; direct fine-tuning 10000).
        method: How the model is extended; linear is Position Interpolation, plain is direct fine-tuning.
        mode: full trains every weight; lora adapters, embeddings and norms; pose the short window at skipped positions.
        batch_size: Windows a step over all devices (section 3.1: 64 up to 8192 tokens, else 128).
        micro_batch: Windows in memory at a time on one device; chosen if not given.
        learning_rate: 2e-5, from 33B parameters on 1e-5, if not given (section 3.1).
        warmup: Steps over which the rate rises linearly from 10 % (section 3.1); constant after that.
        clip: Largest gradient norm; 0 for none.
        save_every: Steps between checkpoints; 0 for none.
        keep: Checkpoints that can be resumed from; older ones keep their model.
        seed: Of the reading order and all else random.
        resume: Go on from the newest sound checkpoint in --out, or start if there is none.
        mask_documents: Attention ends where a document ends.
        allow_short: Train even if no document is as long as the window.
        field: The field of a row that holds its text.
        precision: auto is float32 on a CPU, float32 weights with bfloat16 arithmetic on a GPU.
        optimizer: adamw-8bit and adamw-offload need torchao.
        cp: Devices that share one window.
        replicas: Copies of the weights, each sharded over its own devices; as many as machines, if these are joined by a slow network.
        memory: What is kept for the backward pass: auto as many activations as fit, full each layer's input only, none all of them.
        device: cpu, cuda, …; the GPU if there is one.
        threads: CPU threads; if not given, OMP_NUM_THREADS, or what a second of trying finds fastest.
        lora_rank: Of the adapters in mode lora.
        lora_alpha: Of the adapters in mode lora.
        chunk_window: Tokens in memory in mode pose; the model's original window if not given.
        current_window: What the model reads now, if its config leaves that open.
        tensorboard: Also write TensorBoard files.
        wandb: Also log to this Weights & Biases project.
        overwrite: Replace --out if it exists.
        trust_remote_code: Accept model code that comes with the checkpoint.
    """
    options = dict(locals())
    from ropewalk.training import train as run

    state = run(options.pop("model"), **options)
    if os.environ.get("RANK", "0") != "0":
        return  # torchrun's first process has said it
    print(
        f"{out}: {state.family}, window {state.window} tokens, {state.method} factor {state.factor:g}, {state.steps} steps; "
        f"the loss of every step is in {out}/records.jsonl\n"
        f"now: ropewalk perplexity {out} --data … --windows {state.original_window} {state.window}"
    )


def report(
    records: Annotated[list[Path], tyro.conf.Positional, tyro.conf.arg(metavar="RECORDS.jsonl")],
    /,
    *,
    out: Annotated[Path, tyro.conf.arg(metavar="FILE.html")],
    title: str | None = None,
    overwrite: Flag = False,
) -> None:
    """Turn record files into one self-contained page.

    Args:
        records: One or more record files.
        out: The page.
        title: Its heading.
        overwrite: Replace --out if it exists.
    """
    from ropewalk.reports import report as write_report

    print(write_report(records, out, title=title, overwrite=overwrite))


def demo(*, out: Out = Path("demo"), overwrite: Flag = False) -> None:
    """Run the whole job on the embedded model and this machine's standard library, in minutes, and write the page.

    Args:
        out: Directory of the models, the records and report.html.
        overwrite: Replace --out if it exists.
    """
    from ropewalk.cli.tables.demo import show_demo
    from ropewalk.suite.demo import demo as run

    started = time.perf_counter()
    show_demo(run(out, overwrite=overwrite), time.perf_counter() - started)
    print(f"the page: {out}/report.html")
