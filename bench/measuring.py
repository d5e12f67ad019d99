"""Who measures in `bench.eval`: the plain loops of transformers, and ropewalk; perplexity and passkey, on one model.

in   a model with random weights, a clock
out  a row a turn: seconds, peak memory, and what was measured
"""

from __future__ import annotations

import gc
import json
import math
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
import transformers

from ropewalk.attention_ops import flash_4
from ropewalk.data.sliding import sliding
from ropewalk.evals import compile
from ropewalk.evals.likelihood import Pass, negative_log_likelihoods
from ropewalk.evals.retrieval import passkey
from ropewalk.evals.retrieval.forced import Prompt, verdicts
from ropewalk.model.verify import pin_rope
from ropewalk.training.throughput import peak_bytes

SHAPES: dict[str, dict[str, int]] = {
    "7b": dict(hidden_size=4096, intermediate_size=11008, num_attention_heads=32, num_key_value_heads=32),
    "tiny": dict(hidden_size=128, intermediate_size=344, num_attention_heads=4, num_key_value_heads=4),
}
LAYERS = {"7b": 32, "tiny": 4}


def build(shape: str, vocabulary: int, device: torch.device, dtype: torch.dtype) -> Any:
    """Random weights, made where they are used."""
    config = transformers.LlamaConfig(
        **SHAPES[shape],
        num_hidden_layers=LAYERS[shape],
        vocab_size=vocabulary,
        max_position_embeddings=131072,
        attn_implementation="sdpa",
    )
    torch.set_default_dtype(dtype)
    with device:
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
    torch.set_default_dtype(torch.float32)
    pin_rope(model)
    return model


class Clock:
    """Seconds and peak memory of a call, everything on the device finished before and after."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self, call: Callable[[], Any]) -> tuple[Any, float, int]:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        result = call()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return result, time.perf_counter() - started, peak_bytes(self.device)


@torch.no_grad()
def plain_perplexity(model: Any, ids: np.ndarray, window: int, stride: int, **arguments: Any) -> float:
    """The loop of transformers' guide to perplexity, with the losses weighted by their tokens."""
    row = torch.from_numpy(ids)[None].to(model.device)
    total, tokens = 0.0, 0
    for start, stop, first in sliding(len(ids), window, stride):
        seen = row[:, start:stop]
        labels = seen.clone()
        labels[:, : first - start] = -100
        loss = model(seen, labels=labels, **arguments).loss
        total += float(loss) * (stop - first)
        tokens += stop - first
    return math.exp(total / tokens)


def our_perplexity(model: Any, ids: np.ndarray, window: int, stride: int) -> float:
    spans = sliding(len(ids), window, stride)
    passes = [Pass(ids[span.start : span.stop], span.scored) for span in spans]
    nlls = [float(nll.sum(dtype=np.float64)) for nll in negative_log_likelihoods(model, passes, batch_tokens=window)]
    return math.exp(math.fsum(nlls) / sum(item.scored for item in passes))


def bench_perplexity(
    model: Any, clock: Clock, window: int, stride: int, windows: int, rounds: int, profiled: bool
) -> list[dict[str, Any]]:
    """Contestants in turns, one row a turn; tokens/s counts what the windows hold, the same for all."""
    random = np.random.default_rng(0)
    ids = random.integers(0, model.config.vocab_size, window + (windows - 1) * stride)
    warm = ids[: window + stride]

    def whole_layers(attention: Any) -> Any:
        return _with(attention(), compile.faster(model, passes=10**9, window=window, shapes=[(1, window)]))

    contestants: dict[str, tuple[Callable[..., float], Any, dict[str, Any]]] = {
        "plain": (plain_perplexity, nullcontext, {}),
        "plain, use_cache=False": (plain_perplexity, nullcontext, {"use_cache": False}),
        "ropewalk": (our_perplexity, partial(whole_layers, nullcontext), {}),
        "ropewalk, PyTorch's attention": (our_perplexity, partial(whole_layers, without_flash_4), {}),
        "ropewalk, not compiled": (our_perplexity, nullcontext, {}),
    }
    rows = []
    for round_ in range(rounds):
        for name, (measure, context, arguments) in contestants.items():
            if round_ and name == "ropewalk, not compiled":
                continue
            row: dict[str, Any] = {"what": "perplexity", "who": name, "window": window, "stride": stride}
            torch._dynamo.reset()  # or one contestant's compiled layers would serve another, with its attention
            try:
                with context():
                    run = partial(measure, model, window=window, stride=stride, **arguments)
                    _, row["first_seconds"], _ = clock(partial(run, ids=warm))
                    value, seconds, peak = clock(partial(run, ids=ids))
                    if profiled and not round_:
                        print(name)
                        profile(lambda run=run: run(ids=warm))
                row |= {
                    "perplexity": value,
                    "seconds": seconds,
                    "tokens_per_second": windows * window / seconds,
                    "peak": peak,
                }
            except Exception as error:  # noqa: BLE001 - one contestant's failure must not end the others' turns
                row["error"] = f"{type(error).__name__}: {error}"[:300]
                traceback.print_exc(limit=-6)
            print(json.dumps(row), flush=True)
            rows.append(row)
    return rows


@contextmanager
def _with(*contexts: Any) -> Iterator[None]:
    """Several contexts as one, entered in their order."""
    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        yield


@contextmanager
def without_flash_4() -> Iterator[None]:
    """As if FlashAttention-4 were not installed."""
    sizes, flash_4.SIZES = flash_4.SIZES, ()
    try:
        yield
    finally:
        flash_4.SIZES = sizes


def profile(call: Callable[[], Any], *, shown: bool = True) -> None:
    """The call's kernels by time."""
    activity = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[activity.CUDA, activity.CPU]) as seen:
        call()
        torch.cuda.synchronize()
    if not shown:
        return
    for row in sorted(seen.key_averages(), key=lambda row: -row.self_device_time_total)[:24]:
        print(f"{row.self_device_time_total / 1e3:9.2f} ms {row.count:6d} {row.key[:120]}")


def bench_products(
    shape: str, tokens: int, device: torch.device, dtype: torch.dtype, seconds: float
) -> list[dict[str, Any]]:
    """The rate of a layer's products with nothing between them, for as long as heat and power take to matter."""
    sizes = SHAPES[shape]
    width, inner = sizes["hidden_size"], sizes["intermediate_size"]
    narrow, wide = (torch.randn(tokens, n, device=device, dtype=dtype) for n in (width, inner))
    square, up, down = (
        torch.randn(n, m, device=device, dtype=dtype) * 0.02
        for n, m in ((width, width), (inner, width), (width, inner))
    )
    three, two = square.repeat(3, 1), up.repeat(2, 1)
    product = torch.nn.functional.linear

    def apart() -> None:
        for weight in (square, square, square, square, up, up):
            product(narrow, weight)
        product(wide, down)

    def joined() -> None:
        for weight in (three, square, two):
            product(narrow, weight)
        product(wide, down)

    operations = 2 * tokens * (4 * width * width + 3 * width * inner)
    rows = []
    for library in ("cublas", "cublaslt") if device.type == "cuda" else ("",):
        if library:
            torch.backends.cuda.preferred_blas_library(library)
        for name, call in {"apart": apart, "joined": joined}.items():
            spent, calls = 0.0, 0
            while spent < seconds:
                _, passed, _ = Clock(device)(lambda call=call: [call() for _ in range(8)])
                spent, calls = spent + passed, calls + 8
            rows.append({"what": "products", "who": f"{library} {name}".strip(), "rate": operations * calls / spent})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def generated(model: Any, ids: np.ndarray, tokens: int) -> np.ndarray:
    row = torch.from_numpy(ids)[None].to(model.device)
    whole = model.generate(
        row,
        attention_mask=torch.ones_like(row),
        max_new_tokens=tokens,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        use_cache=True,
    )
    return whole[0, row.shape[1] :].cpu().numpy()


def bench_passkey(
    model: Any,
    tokenizer: Any,
    clock: Clock,
    window: int,
    depths: int,
    trials: int,
    plain: int,
    rounds: int,
    profiled: bool,
) -> list[dict[str, Any]]:
    """Seconds a prompt: `generate` on `plain` of the prompts, ropewalk on all of them; and whether verdicts agree."""
    protocol = passkey.Protocol(tokenizer, window)
    keys = np.random.default_rng(0).integers(10_000, 100_000, size=(depths, trials))
    asked = passkey.depths_of(window, depths)
    prompts = [protocol.prompt(str(key), asked[at])[0] for at in range(depths) for key in keys[at]]
    chosen = [prompts[at] for at in np.linspace(0, len(prompts) - 1, plain).astype(int)]
    size = len(prompts[0].answer)
    prefix, rows = protocol.prefix, []
    # Kernels are chosen and compiled by shape: a depth near, one far.
    warm = [prompts[0], prompts[-1]]

    def judged(context: Any) -> tuple[dict[str, Any], list[np.ndarray]]:
        with context():
            verdicts(model, warm, prefix=prefix)
            results, seconds, peak = clock(lambda: verdicts(model, prompts, prefix=prefix))
            if profiled:
                profile(lambda: verdicts(model, prompts[::4], prefix=prefix))
            return {"prompts": len(prompts), "seconds": seconds, "peak": peak} | agreement(
                model, chosen, answers, prefix
            ), results

    generated(model, prompts[0].ids, size)
    for _ in range(rounds):
        torch._dynamo.reset()
        for name, tokens in {"plain": 10, "plain, no more tokens than the key": size}.items():
            answers, seconds, peak = clock(
                lambda tokens=tokens: [generated(model, prompt.ids, tokens) for prompt in chosen]
            )
            rows.append({"what": "passkey", "who": name, "prompts": plain, "seconds": seconds, "peak": peak})
        plain_right = [bool((answer == prompt.answer).all()) for answer, prompt in zip(answers, chosen, strict=True)]
        for name, context in {
            "ropewalk": partial(compile.faster, model, passes=10**9, window=window),
            "ropewalk, not compiled": nullcontext,
        }.items():
            row: dict[str, Any] = {"what": "passkey", "who": name}
            try:
                figures, results = judged(context)
                by_prompt = {id(prompt): bool(result.all()) for prompt, result in zip(prompts, results, strict=True)}
                row |= figures
                row["same_verdicts_on_keys"] = [by_prompt[id(prompt)] for prompt in chosen] == plain_right
            except Exception as error:  # noqa: BLE001
                row["error"] = f"{type(error).__name__}: {error}"[:300]
                traceback.print_exc(limit=-6)
            rows.append(row)
    print(json.dumps(rows), flush=True)
    return rows


def agreement(model: Any, prompts: list[Prompt], answers: list[np.ndarray], prefix: np.ndarray) -> dict[str, Any]:
    """Verdicts on what `generate` gave (right by definition), and on the same with one token changed (wrong)."""
    right = [Prompt(prompt.ids, answer) for prompt, answer in zip(prompts, answers, strict=True)]
    wrong = [Prompt(p.ids, np.where(np.arange(len(p.answer)) == 1, (p.answer + 1) % 100, p.answer)) for p in right]
    judged = [bool(result.all()) for result in verdicts(model, right + wrong, prefix=prefix)]
    agreed = sum(judged[: len(right)]) + sum(not verdict for verdict in judged[len(right) :])
    return {"agreed": agreed, "of": len(judged)}
