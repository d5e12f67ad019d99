"""Commands that tell what to expect before anything is loaded. Parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from ropewalk.cli.shared import Flag, Model
from ropewalk.cli.terminal import say


def theory(
    *,
    model: str | None = None,
    window: int | None = None,
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    overwrite: Flag = False,
) -> None:
    """Print and draw what the theory says of a model in a longer window: bounds, growth, angular resolution. No weights.

    Args:
        model: `hemp`, a local directory or a hub id; LLaMA 7B's rotation if not given.
        window: Tokens; the model's own window if it was extended, else 16 times that.
        out: Directory for figures and records; theory-NAME-WINDOW if not given.
        overwrite: Write into --out if it exists.
    """
    from ropewalk.cli.tables.theory import show_theory
    from ropewalk.suite.theory import theory as run

    forecast = run(model, window=window, out=out, overwrite=overwrite)
    show_theory(forecast)
    say(f"figures (SVG and PNG) and theory.jsonl in {forecast.out}")


def plan(
    model: Model,
    /,
    *,
    window: int,
    gpus: Annotated[str | None, tyro.conf.arg(metavar="8xH100")] = None,
    steps: int = 1000,
    batch_size: int = 64,
    micro_batch: int | None = None,
    mode: Literal["full", "lora", "pose"] = "full",
    precision: Literal["auto", "float32", "bfloat16", "bfloat16-stochastic"] = "auto",
    optimizer: Literal["adamw", "adamw-8bit", "adamw-offload"] = "adamw",
    cp: int | None = None,
    replicas: int | None = None,
    memory: Literal["auto", "full", "none"] = "auto",
    chunk_window: int | None = None,
    lora_rank: int = 8,
    price: float | None = None,
) -> None:
    """Say what training would take before anything is loaded: memory by part, layout, tokens/s, hours, cost.

    Args:
        model: `hemp`, a local directory, a hub id (its config.json alone is fetched), or llama-7b, -13b, -33b, -65b.
        window: Tokens.
        gpus: How many of which chip, by data sheet; without it this machine, timed for ten seconds.
        steps: Optimiser steps (Chen et al. 2023, section 3.1: 1000).
        batch_size: Windows a step over all devices (section 3.1: 64 up to 8192 tokens, else 128).
        micro_batch: Windows in memory at a time on one device; chosen if not given.
        mode: As in train.
        precision: As in train.
        optimizer: As in train.
        cp: Devices that share one window; chosen if not given.
        replicas: Copies of the weights, each sharded over its own devices; chosen if not given.
        memory: As in train: auto keeps as many activations as fit, full each layer's input only, none all of them.
        chunk_window: Tokens in memory in mode pose; the model's own window if not given.
        lora_rank: Of the adapters in mode lora.
        price: Of a chip and hour, in any currency.
    """
    from ropewalk.cli.tables.plan import show_plan
    from ropewalk.planner.planner import plan as make

    options = dict(
        gpus=gpus,
        steps=steps,
        batch_size=batch_size,
        micro_batch=micro_batch,
        mode=mode,
        precision=precision,
        optimizer=optimizer,
        cp=cp,
        replicas=replicas,
        keep=memory,
        chunk_window=chunk_window,
        lora_rank=lora_rank,
        price=price,
    )
    show_plan(make(model, window=window, **options))
