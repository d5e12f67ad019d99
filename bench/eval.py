"""How fast ropewalk measures, beside plain transformers, in one run on one GPU.

    python -m bench.eval --json runs/eval.json
    python -m bench.eval --shape tiny --device cpu          a dry run in a minute

Perplexity at W = 32768, S = 256: random weights of LLaMA 7B's shape in bfloat16, the same windows one after another, a first
one and then sliding ones. "plain" is the loop of transformers' guide: one window a forward pass, logits at every position,
labels masked; once as it stands (the model then fills a key-value cache that nobody reads) and once with use_cache=False.
Passkey at 8192: the same prompts through `generate`, one by one, greedy, ten new tokens as the protocol's authors ask for
(Mohtashami & Jaggi 2023, and YaRN after them), and once with no more than the key has; and through ropewalk. Random
weights know no key, so verdicts are compared on answers that `generate` itself gave, whole and with a digit changed. `--budget` runs on a small trained model
over 20 documents, against the exact figure. "products" is what the chip sustains with nothing else to do: the bound. Contestants
take turns, and nothing is timed on its first pass; the median turn counts.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")

import torch
import transformers

from bench.measuring import (
    SHAPES,
    Clock,
    bench_passkey,
    bench_perplexity,
    bench_products,
    build,
    our_perplexity,
    plain_perplexity,
)
from ropewalk import records
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.data.documents import read_documents
from ropewalk.data.encode import encode
from ropewalk.data.select import TokenizedDocument
from ropewalk.data.stdlib import standard_library
from ropewalk.evals.loaded import LoadedModel
from ropewalk.evals.perplexity import sampled
from ropewalk.evals.perplexity.measure import score_document
from ropewalk.model.load import load_model, load_tokenizer

PARTS = ["budget", "perplexity", "passkey", "products"]
#: Reference data beside the checkout, or in it.
ROOT = Path(__file__).resolve().parents[1]
LAB = next((path for path in (ROOT / "shared", ROOT.parent / "shared") if path.is_dir()), ROOT.parent / "shared")


def budget_data(documents: int, tokens: int) -> tuple[str, list[str]]:
    """lab-2k and books where they are at hand; else hemp and the longest modules of the standard library."""
    if (LAB / "models" / "lab-2k").is_dir():
        books = read_documents([LAB / "data" / "books" / "test.jsonl.xz"])
        return str(LAB / "models" / "lab-2k"), [next(books).text[: 6 * tokens] for _ in range(documents)]
    paths = sorted(standard_library("train"), key=lambda path: -path.stat().st_size)[:documents]
    return "hemp", [path.read_text(encoding="utf-8") for path in paths]


def bench_budget(
    clock: Clock, device: torch.device, documents: int, tokens: int, window: int, stride: int
) -> list[dict]:
    """The exact figure over books and its estimate in a twentieth of the time; and ours beside the plain loop in float32."""
    name, texts = budget_data(documents, tokens)
    loaded = LoadedModel(
        load_model(name, device=device, dtype="float32"), load_tokenizer(name), Checkpoint.open(name).info
    )
    ids = [encode(loaded.tokenizer, text)[:tokens] for text in texts]
    tokenized = [TokenizedDocument(str(number), row) for number, row in enumerate(ids)]
    score_document(loaded, tokenized[0], window, stride)
    exact, seconds, _ = clock(lambda: [score_document(loaded, document, window, stride) for document in tokenized])
    figure = math.exp(sum(row.nll for row in exact) / sum(row.tokens for row in exact))
    short = ids[0][: window + 8 * stride]
    plain, ours = (measure(loaded.model, short, window, stride) for measure in (plain_perplexity, our_perplexity))
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
        (estimate, drawn, _), spent, _ = clock(
            lambda seed=seed: sampled.sample(
                loaded.model, tokenized, window, stride, minutes=seconds / 20 / 60, tolerance=0, seed=seed
            )
        )
        low, high = (math.exp(end) for end in estimate.interval)
        rows.append(
            {"what": "budget", "who": f"seed {seed}", "perplexity": math.exp(estimate.nats), "low": low, "high": high}
            | {"seconds": spent, "share": len(drawn) / estimate.windows, "holds": low <= figure <= high}
        )
    for row in rows:
        print(json.dumps(row), flush=True)
    return rows


def medians(rows: list[dict[str, Any]], what: str) -> list[dict[str, Any]]:
    """One row a contestant: the turn whose seconds are the median of its turns."""
    measured = [row for row in rows if row["what"] == what and "error" not in row]
    turns = {who: [row for row in measured if row["who"] == who] for who in dict.fromkeys(r["who"] for r in measured)}
    return [sorted(rows, key=lambda row: row["seconds"])[(len(rows) - 1) // 2] for rows in turns.values()]


def table(rows: list[dict[str, Any]], machine: str) -> str:
    """What the run found, as text."""
    lines = [f"\n{machine}, torch {torch.__version__}, transformers {transformers.__version__}", ""]
    measured = medians(rows, "perplexity")
    if measured:
        lines += [
            f"perplexity, W {measured[0]['window']}, S {measured[0]['stride']}   tokens/s   x plain   peak GiB   x plain"
        ]
        plain = measured[0]
        for row in measured:
            lines.append(
                f"  {row['who']:36}{row['tokens_per_second']:10.0f}{row['tokens_per_second'] / plain['tokens_per_second']:10.2f}"
                f"{row['peak'] / 2**30:11.2f}{row['peak'] / plain['peak']:10.2f}   perplexity {row['perplexity']:.2f}"
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
        if row["what"] == "products":
            lines.append(f"products of a layer, {row['who']}: {row['rate'] / 1e12:.1f} TFLOP/s")
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
    parser.add_argument("--only", nargs="*", choices=PARTS, default=None)
    parser.add_argument("--windows", type=int, default=9, help="windows of the perplexity turn, the first included")
    parser.add_argument("--trials", type=int, default=4, help="passkey prompts at each of 32 depths")
    parser.add_argument("--plain", type=int, default=12, help="passkey prompts that go through generate")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each contestant")
    parser.add_argument("--profile", action="store_true", help="list kernels of the perplexity turns by time")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    device, big = torch.device(asked.device), asked.shape == "7b"
    only = asked.only or PARTS
    transformers.logging.set_verbosity_error()
    clock, rows = Clock(device), []
    if "budget" in only:
        size = (20, 40_000, 2048, 256) if big else (20, 600, 256, 64)
        rows += bench_budget(clock, device, *size)
    if "perplexity" in only or "passkey" in only:
        tokenizer = load_tokenizer("hemp")
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
    if "products" in only:
        model = None  # its weights would be in the way
        rows += bench_products(asked.shape, 32768 if big else 512, device, torch.bfloat16, 2.5 if big else 0.1)
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(
            json.dumps(
                {"machine": machine, "versions": records.versions(), "command": sys.argv, "rows": rows}, indent=1
            )
        )
    print(table(rows, machine))


if __name__ == "__main__":
    main()
