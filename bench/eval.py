"""How fast ropewalk measures, beside plain transformers, in one run on one GPU.

    python -m bench.eval --json runs/eval.json
    python -m bench.eval --shape tiny --device cpu          a dry run in a minute

Perplexity at W = 32768, S = 256: random weights of LLaMA 7B's shape in bfloat16, the same windows one after another, a first
one and then sliding ones. "plain" is the loop of transformers' guide: one window a forward pass, logits at every position,
labels masked; once as it stands (the model then fills a key-value cache that nobody reads) and once with use_cache=False.
Passkey at 8192: the same prompts through `generate`, one by one, greedy, ten new tokens as the protocol's authors ask for
(Mohtashami & Jaggi 2023, and YaRN after them), and once with no more than the key has; and through ropewalk. Random
weights know no key, so verdicts are compared on answers that `generate` itself gave, whole and with a digit changed. `--budget` runs on a small trained model
over 20 documents, against the exact figure. Contestants take turns, and nothing is timed on its first pass; the median turn counts.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")

import numpy as np
import torch
import transformers

from ropewalk import corpus, record, text
from ropewalk import model as models
from ropewalk.evals import budget, engine, passkey
from ropewalk.evals.forced import Prompt, verdicts
from ropewalk.evals.perplexity import Tokens, score_document
from ropewalk.evals.score import Pass, negative_log_likelihoods
from ropewalk.evals.subject import Subject
from ropewalk.parallel import kernels
from ropewalk.train.speed import peak_bytes
from ropewalk.windows import sliding

SHAPES: dict[str, dict[str, int]] = {
    "7b": dict(hidden_size=4096, intermediate_size=11008, num_attention_heads=32, num_key_value_heads=32),
    "tiny": dict(hidden_size=128, intermediate_size=344, num_attention_heads=4, num_key_value_heads=4),
}
LAYERS = {"7b": 32, "tiny": 4}
#: Reference data beside the checkout, or in it.
ROOT = Path(__file__).resolve().parents[1]
LAB = next((path for path in (ROOT / "shared", ROOT.parent / "shared") if path.is_dir()), ROOT.parent / "shared")


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
    models.pin(model)
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
        begun = time.perf_counter()
        result = call()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return result, time.perf_counter() - begun, peak_bytes(self.device)


@torch.no_grad()
def plain_perplexity(model: Any, ids: np.ndarray, window: int, stride: int, **arguments: Any) -> float:
    """The loop of transformers' guide to perplexity, with the sums put together per token."""
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
    passes = [Pass(ids[one.start : one.stop], one.scored) for one in spans]
    sums = [float(nll.sum(dtype=np.float64)) for nll in negative_log_likelihoods(model, passes, batch_tokens=window)]
    return math.exp(math.fsum(sums) / sum(one.scored for one in passes))


def bench_perplexity(
    model: Any, clock: Clock, window: int, stride: int, windows: int, rounds: int, profiled: bool
) -> list[dict[str, Any]]:
    """Contestants in turns, one row a turn; tokens/s counts what the windows hold, the same for all."""
    random = np.random.default_rng(0)
    ids = random.integers(0, model.config.vocab_size, window + (windows - 1) * stride)
    warm = ids[: window + stride]

    def whole_layers(attention: Any) -> Any:
        return _with(attention(), engine.faster(model, passes=10**9, window=window, shape=(1, window)))

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
    sizes, kernels.FLASH_4_SIZES = kernels.FLASH_4_SIZES, ()
    try:
        yield
    finally:
        kernels.FLASH_4_SIZES = sizes


def profile(call: Callable[[], Any]) -> None:
    """The call's kernels by time."""
    activity = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[activity.CUDA, activity.CPU]) as seen:
        call()
        torch.cuda.synchronize()
    for row in sorted(seen.key_averages(), key=lambda row: -row.self_device_time_total)[:16]:
        print(f"{row.self_device_time_total / 1e3:9.2f} ms {row.count:6d} {row.key[:120]}")


def generated(model: Any, ids: np.ndarray, tokens: int) -> np.ndarray:
    row = torch.from_numpy(ids)[None].to(model.device)
    found = model.generate(
        row,
        attention_mask=torch.ones_like(row),
        max_new_tokens=tokens,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        use_cache=True,
    )
    return found[0, row.shape[1] :].cpu().numpy()


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
    beginning, rows = protocol.beginning, []
    # Kernels are chosen and compiled by shape: a depth near, one far.
    warm = [prompts[0], prompts[-1]]

    def judged(context: Any) -> tuple[dict[str, Any], list[np.ndarray]]:
        with context():
            verdicts(model, warm, beginning=beginning)
            found, seconds, peak = clock(lambda: verdicts(model, prompts, beginning=beginning))
            if profiled:
                profile(lambda: verdicts(model, prompts[::4], beginning=beginning))
            return {"prompts": len(prompts), "seconds": seconds, "peak": peak} | agreement(
                model, chosen, said, beginning
            ), found

    generated(model, prompts[0].ids, size)
    for _ in range(rounds):
        torch._dynamo.reset()
        for name, tokens in {"plain": 10, "plain, no more tokens than the key": size}.items():
            said, seconds, peak = clock(
                lambda tokens=tokens: [generated(model, prompt.ids, tokens) for prompt in chosen]
            )
            rows.append({"what": "passkey", "who": name, "prompts": plain, "seconds": seconds, "peak": peak})
        plain_right = [bool((one == prompt.answer).all()) for one, prompt in zip(said, chosen, strict=True)]
        for name, context in {
            "ropewalk": partial(engine.faster, model, passes=10**9, window=window),
            "ropewalk, not compiled": nullcontext,
        }.items():
            row: dict[str, Any] = {"what": "passkey", "who": name}
            try:
                figures, found = judged(context)
                by_prompt = {id(prompt): bool(one.all()) for prompt, one in zip(prompts, found, strict=True)}
                row |= figures
                row["same_verdicts_on_keys"] = [by_prompt[id(prompt)] for prompt in chosen] == plain_right
            except Exception as error:  # noqa: BLE001
                row["error"] = f"{type(error).__name__}: {error}"[:300]
                traceback.print_exc(limit=-6)
            rows.append(row)
    print(json.dumps(rows), flush=True)
    return rows


def agreement(model: Any, prompts: list[Prompt], said: list[np.ndarray], beginning: np.ndarray) -> dict[str, Any]:
    """Verdicts on what `generate` said (right by definition), and on the same with one token changed (wrong)."""
    right = [Prompt(prompt.ids, answer) for prompt, answer in zip(prompts, said, strict=True)]
    wrong = [
        Prompt(one.ids, np.where(np.arange(len(one.answer)) == 1, (one.answer + 1) % 100, one.answer)) for one in right
    ]
    judged = [bool(one.all()) for one in verdicts(model, right + wrong, beginning=beginning)]
    agreed = sum(judged[: len(right)]) + sum(not one for one in judged[len(right) :])
    return {"agreed": agreed, "of": len(judged)}


def budget_data(documents: int, tokens: int) -> tuple[str, list[str]]:
    """lab-2k and books where they are at hand; else hemp and the longest modules of the standard library."""
    if (LAB / "models" / "lab-2k").is_dir():
        books = text.documents([LAB / "data" / "books" / "test.jsonl.xz"])
        return str(LAB / "models" / "lab-2k"), [next(books).text[: 6 * tokens] for _ in range(documents)]
    paths = sorted(corpus.standard_library("train"), key=lambda path: -path.stat().st_size)[:documents]
    return "hemp", [path.read_text(encoding="utf-8") for path in paths]


def bench_budget(
    clock: Clock, device: torch.device, documents: int, tokens: int, window: int, stride: int
) -> list[dict]:
    """The exact figure over books and its estimate in a twentieth of the time; and ours beside the plain loop in float32."""
    name, texts = budget_data(documents, tokens)
    subject = Subject(
        models.load(name, device=device, dtype="float32"), models.load_tokenizer(name), models.state(name)
    )
    ids = [text.encode(subject.tokenizer, one)[:tokens] for one in texts]
    held = [Tokens(str(at), one) for at, one in enumerate(ids)]
    score_document(subject, held[0], window, stride)
    exact, seconds, _ = clock(lambda: [score_document(subject, one, window, stride) for one in held])
    figure = math.exp(sum(one.nll for one in exact) / sum(one.tokens for one in exact))
    short = ids[0][: window + 8 * stride]
    plain, ours = (measure(subject.model, short, window, stride) for measure in (plain_perplexity, our_perplexity))
    rows = [
        {"what": "float32", "plain": plain, "ropewalk": ours, "relative": abs(ours / plain - 1)},
        {
            "what": "budget",
            "who": "exact",
            "model": Path(name).name,
            "perplexity": figure,
            "seconds": seconds,
            "documents": documents,
        },
    ]
    for seed in range(5):
        (found, drawn, _), spent, _ = clock(
            lambda seed=seed: budget.sample(
                subject.model, ids, window, stride, minutes=seconds / 20 / 60, tolerance=0, seed=seed
            )
        )
        low, high = (math.exp(end) for end in found.interval)
        rows.append(
            {"what": "budget", "who": f"seed {seed}", "perplexity": math.exp(found.nats), "low": low, "high": high}
            | {"seconds": spent, "share": len(drawn) / found.windows, "holds": low <= figure <= high}
        )
    for row in rows:
        print(json.dumps(row), flush=True)
    return rows


def medians(rows: list[dict[str, Any]], what: str) -> list[dict[str, Any]]:
    """One row a contestant: the turn whose seconds are the median of its turns."""
    measured = [row for row in rows if row["what"] == what and "error" not in row]
    turns = {who: [row for row in measured if row["who"] == who] for who in dict.fromkeys(r["who"] for r in measured)}
    return [sorted(own, key=lambda row: row["seconds"])[(len(own) - 1) // 2] for own in turns.values()]


def table(rows: list[dict[str, Any]], machine: str) -> str:
    """What the run found, as text."""
    lines = [f"\n{machine}, torch {torch.__version__}, transformers {transformers.__version__}", ""]
    measured = medians(rows, "perplexity")
    if measured:
        lines += [
            f"perplexity, W {measured[0]['window']}, S {measured[0]['stride']}   tokens/s   x plain   peak GiB   x plain"
        ]
        base = measured[0]
        for row in measured:
            lines.append(
                f"  {row['who']:36}{row['tokens_per_second']:10.0f}{row['tokens_per_second'] / base['tokens_per_second']:10.2f}"
                f"{row['peak'] / 2**30:11.2f}{row['peak'] / base['peak']:10.2f}   perplexity {row['perplexity']:.2f}"
            )
    asked = medians(rows, "passkey")
    if asked:
        lines += [
            "",
            "passkey                                prompts/min   x plain   peak GiB   verdicts as generate's",
        ]
        each = [row["prompts"] / row["seconds"] * 60 for row in asked]
        for row, rate in zip(asked, each, strict=True):
            agreed = f"{row['agreed']} of {row['of']}, keys {row['same_verdicts_on_keys']}" if "agreed" in row else ""
            lines.append(f"  {row['who']:36}{rate:12.0f}{rate / each[0]:10.2f}{row['peak'] / 2**30:11.2f}   {agreed}")
    for row in rows:
        if "error" in row:
            lines.append(f"  {row['what']}, {row['who']}: {row['error']}")
        if row["what"] == "float32":
            lines.append(
                f"\nfloat32, small model: plain {row['plain']:.6f}, ropewalk {row['ropewalk']:.6f}, apart {row['relative']:.1e}"
            )
        if row["what"] == "budget" and row["who"] == "exact":
            lines.append(
                f"\nbudget, {row['documents']} documents: exact {row['perplexity']:.3f} in {row['seconds']:.2f} s"
            )
        elif row["what"] == "budget":
            lines.append(
                f"  {row['who']}: {row['perplexity']:.3f}, {row['low']:.3f} to {row['high']:.3f}, holds it: {row['holds']}, "
                f"{row['seconds']:.2f} s, {100 * row['share']:.1f} % of windows"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="7b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", nargs="*", choices=["perplexity", "passkey", "budget"], default=None)
    parser.add_argument("--windows", type=int, default=9, help="windows of the perplexity turn, the first included")
    parser.add_argument("--trials", type=int, default=4, help="passkey prompts at each of 32 depths")
    parser.add_argument("--plain", type=int, default=12, help="passkey prompts that go through generate")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each contestant")
    parser.add_argument("--profile", action="store_true", help="list kernels of the perplexity turns by time")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    device, big = torch.device(asked.device), asked.shape == "7b"
    only = asked.only or ["perplexity", "passkey", "budget"]
    transformers.logging.set_verbosity_error()
    clock, rows = Clock(device), []
    if "budget" in only:
        size = (20, 40_000, 2048, 256) if big else (20, 600, 256, 64)
        rows += bench_budget(clock, device, *size)
    if "perplexity" in only or "passkey" in only:
        tokenizer = models.load_tokenizer("hemp")
        model = build(asked.shape, 32_000 if big else 8192, device, torch.bfloat16 if big else torch.float32)
        if "perplexity" in only:
            rows += bench_perplexity(
                model, clock, *((32768, 256) if big else (512, 64)), asked.windows, asked.rounds, asked.profile
            )
        if "passkey" in only:
            rows += bench_passkey(
                model,
                tokenizer,
                clock,
                8192 if big else 512,
                32,
                asked.trials,
                asked.plain,
                asked.rounds,
                asked.profile,
            )
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(
            json.dumps({"machine": machine, "versions": record.versions(), "command": sys.argv, "rows": rows}, indent=1)
        )
    print(table(rows, machine))


if __name__ == "__main__":
    main()
