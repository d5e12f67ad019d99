"""Commands that measure a model and append what they find to a record file. Parse, call, print."""

from __future__ import annotations

from typing import Annotated, Literal

import tyro

from ropewalk.cli.shared import Data, Flag, Model, RecordFile


def perplexity(
    model: Model,
    /,
    *,
    data: Data,
    windows: list[int] | None = None,
    stride: int = 256,
    as_: Annotated[
        Literal["ropewalk", "yarn", "longlora", "lm-eval", "huggingface"], tyro.conf.arg(name="as")
    ] = "ropewalk",
    budget: Annotated[float | None, tyro.conf.arg(metavar="MINUTES")] = None,
    tolerance: float = 0.005,
    limit: int | None = None,
    min_tokens: int | None = None,
    max_tokens: int | None = None,
    by_step: Flag = False,
    batch_tokens: int | None = None,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    device: str | None = None,
    seed: int = 0,
    out: RecordFile = None,
) -> None:
    """Perplexity over a sliding window (section 3.2), token-weighted, with a 95 % interval over documents.

    Args:
        model: `hemp`, a local directory or a hub id.
        data: Files, directories or data-set ids.
        windows: Tokens, one or more; the model's own if not given. Beyond it is extrapolation.
        stride: Tokens a window moves by (paper: 256).
        as_: Whose definition; the others explain published figures.
        budget: Estimate from random windows within so many minutes.
        tolerance: With --budget, stop when half the interval is at most this share of the perplexity.
        limit: Use the first so many documents that fill the largest window.
        min_tokens: Leave out documents with fewer tokens; the largest window if not given.
        max_tokens: Cut documents to their first so many tokens (paper, proof-pile: 32768).
        by_step: MODEL is the --out of a training run: measure each of its checkpoints (table 3).
        batch_tokens: Tokens of one forward pass; for speed and memory.
        dtype: Of the weights; bfloat16 on a GPU, float32 on a CPU.
        device: cuda, cpu, …; the GPU if there is one.
        seed: Of the bootstrap and of --budget's sample.
        out: Record file to append to; a killed run goes on from it.
    """
    from ropewalk.cli.tables.measured import show_perplexity
    from ropewalk.evals import checkpoints_of_run as steps
    from ropewalk.evals.perplexity import measure as measuring

    for one in steps.checkpoints(model).values() if by_step else [model]:
        rows = measuring.perplexity(
            one,
            data=data,
            windows=windows,
            stride=stride,
            convention=as_,
            budget=budget,
            tolerance=tolerance,
            limit=limit,
            min_tokens=min_tokens,
            max_tokens=max_tokens,
            batch_tokens=batch_tokens,
            dtype=dtype,
            device=device,
            seed=seed,
            out=out,
        )
        show_perplexity(rows, title=str(one) if by_step else "perplexity")


def passkey(
    model: Model,
    /,
    *,
    window: int | None = None,
    depths: int = 32,
    trials: int = 10,
    seed: int = 0,
    by_step: Flag = False,
    batch_tokens: int | None = None,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    device: str | None = None,
    out: RecordFile = None,
) -> None:
    """Passkey retrieval (section 3.3): success by depth, and k_max.

    Args:
        model: `hemp`, a local directory or a hub id.
        window: Tokens of every prompt; the model's own window if not given.
        depths: Distances of the key from the end, evenly spaced (paper: 32).
        trials: Prompts a depth, each with a fresh key (paper: 10).
        seed: Of the keys.
        by_step: MODEL is the --out of a training run: measure each of its checkpoints (table 4).
        batch_tokens: Tokens of one forward pass; for speed and memory.
        dtype: Of the weights; bfloat16 on a GPU, float32 on a CPU.
        device: cuda, cpu, …; the GPU if there is one.
        out: Record file to append to.
    """
    from ropewalk.cli.tables.measured import show_passkey
    from ropewalk.evals import checkpoints_of_run as steps
    from ropewalk.evals.retrieval import passkey as measuring

    models = steps.checkpoints(model).values() if by_step else [model]
    for one in models:
        rows, summary = measuring.passkey(
            one,
            window=window,
            depths=depths,
            trials=trials,
            seed=seed,
            batch_tokens=batch_tokens,
            dtype=dtype,
            device=device,
            out=out,
        )
        show_passkey(rows, summary, title=str(one) if by_step else "passkey")


def retrieval(
    model: Model,
    /,
    *,
    window: int | None = None,
    families: list[Literal["keys", "values", "lookalikes", "chain"]] | None = None,
    trials: int = 32,
    seed: int = 0,
    batch_tokens: int | None = None,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    device: str | None = None,
    out: RecordFile = None,
) -> None:
    """Retrieval harder than the passkey: several keys, several values, look-alikes, a chain (RULER's families).

    Args:
        model: `hemp`, a local directory or a hub id.
        window: Tokens of every prompt; the model's own window if not given.
        families: Some of them; all if not given.
        trials: Prompts a family.
        seed: Of facts, prose and places.
        batch_tokens: Tokens of one forward pass; for speed and memory.
        dtype: Of the weights; bfloat16 on a GPU, float32 on a CPU.
        device: cuda, cpu, …; the GPU if there is one.
        out: Record file to append to.
    """
    from ropewalk.cli.tables.measured import show_retrieval
    from ropewalk.evals import retrieval as measuring

    rows = measuring.retrieval(
        model,
        window=window,
        families=families or tuple(measuring.FAMILIES),
        trials=trials,
        seed=seed,
        batch_tokens=batch_tokens,
        dtype=dtype,
        device=device,
        out=out,
    )
    show_retrieval(rows)


def attention(
    model: Model,
    /,
    *,
    data: Data,
    window: int | None = None,
    base: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None,
    documents: int = 1,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    device: str | None = None,
    out: RecordFile = None,
) -> None:
    """Attention scores by distance on real documents, per layer and head, the paper's bounds on them, and adjacent tokens.

    A base model past its own window is measured three times: inside it, beyond it, and interpolated without training.

    Args:
        model: `hemp`, a local directory or a hub id.
        data: Files, directories or data-set ids; each document is cut to its first --window tokens.
        window: Tokens; the model's own if not given.
        base: The model before extension, measured too; its scores in its own window are what is in range.
        documents: The first so many that fill the window. Each has window squared over 2 scores a head.
        dtype: Of the weights; bfloat16 on a GPU, float32 on a CPU.
        device: cuda, cpu, …; the GPU if there is one.
        out: Record file to append to, one run a state.
    """
    from ropewalk.cli.tables.measured import show_attention
    from ropewalk.evals import attention as probing

    show_attention(
        probing.attention(
            model,
            data=data,
            window=window,
            base=base,
            documents=documents,
            dtype=dtype,
            device=device,
            out=out,
        )
    )
