"""How fast ropewalk trains, beside transformers and transformers + liger-kernel, in one run on one GPU.

    python -m bench.train --json runs/train.json

All contestants train the same random weights of one shape (LLaMA 7B's; others with --shape) on the same tokens with AdamW (bfloat16 weights,
stochastically rounded, clipping at 1; torchao's, and ropewalk's calls of it), in one process, taking turns; before each turn the weights go back to
the same start, so that losses can be compared. The first step of a turn is not timed. The table comes last.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")

import torch
from torch import Tensor, nn

from bench.card import card_of
from bench.contestants import CONTESTANTS, SHAPES, Bench, Turn
from ropewalk import records
from ropewalk.attention_ops import flash_4
from ropewalk.planner.chip_names import named
from ropewalk.planner.chips import Chip, Mfu, mfu
from ropewalk.training import throughput


def attention(device: torch.device, tokens: int, heads: int = 32, size: int = 128) -> tuple[float, list[Tensor]]:
    """FLOP/s of causal attention, forward and backward, at half the square; its result and gradients."""
    generator = torch.Generator(device).manual_seed(0)
    shape = (1, tokens, heads, size)
    q, k, v, upstream = (
        torch.randn(shape, generator=generator, device=device, dtype=torch.bfloat16).transpose(1, 2) for _ in range(4)
    )
    leaves = [t.requires_grad_() for t in (q, k, v)]

    def once() -> list[Tensor]:
        out = nn.functional.scaled_dot_product_attention(*leaves, is_causal=True)
        return [out.detach(), *torch.autograd.grad(out, leaves, upstream)]

    once()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(3):
        results = once()
    torch.cuda.synchronize()
    return 3 * 2 * tokens**2 * size * heads * 3 / (time.perf_counter() - begin), results


def trust_fastest(device: torch.device, tokens: int) -> bool:
    """Whether the fastest attention runs here and agrees with PyTorch's own choice; both are timed and printed."""
    rate, expected = attention(device, tokens)
    print(f"attention at {tokens}, as PyTorch picks: {rate / 1e12:.0f} TFLOP/s", flush=True)
    try:
        with flash_4.fastest(device, 128) as name:
            rate, results = attention(device, tokens)
    except Exception:  # noqa: BLE001 - a kernel that fails is reported and not used
        traceback.print_exc()
        return False
    errors = [float((a.float() - b.float()).norm() / b.float().norm()) for a, b in zip(results, expected, strict=True)]
    print(f"{name}: {rate / 1e12:.0f} TFLOP/s, relative differences {[f'{e:.1e}' for e in errors]}", flush=True)
    return max(errors) < 2e-2  # two bfloat16 kernels differ by 1e-3 to 1e-2


def table(turns: list[Turn], flops: Callable[[int], float], rate: float | None, chip: Chip | None) -> str:
    """One line a contestant and size: median tokens/s, shares of both peaks, spread, peak memory, losses."""
    lines = [
        f"| size | who | tokens/s | {Mfu.OF_SHEET} | {Mfu.OF_PRODUCT} | against transformers | against liger | peak GiB | spread | losses |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    sizes = list(dict.fromkeys((t.batch, t.tokens) for t in turns))
    for batch, tokens in sizes:
        here = [t for t in turns if (t.batch, t.tokens) == (batch, tokens)]
        rates = {who: _rates([t for t in here if t.who == who]) for who in dict.fromkeys(t.who for t in here)}
        medians = {who: statistics.median(all_) for who, all_ in rates.items() if all_}
        for who, median in medians.items():
            own_turns = [t for t in here if t.who == who and not t.error]
            ratios = [
                f"{median / medians[other]:.3f}" if other in medians else "" for other in ("transformers", "liger")
            ]
            shares = mfu(median * flops(tokens), chip, rate)
            told = " | ".join("" if share is None else f"{share:.3f}" for share in (shares.sheet, shares.measured))
            spread = (max(rates[who]) - min(rates[who])) / median
            losses = " ".join(f"{loss:.4f}" for loss in own_turns[0].losses)
            lines.append(
                f"| {batch} x {tokens} | {who} | {median:.0f} | {told} | {ratios[0]} | {ratios[1]} | {own_turns[0].peak:.1f} | "
                f"{spread:.1%} | {losses} |"
            )
        lines += [f"| {batch} x {tokens} | {t.who} | {t.error[:60]} | | | | | | | |" for t in here if t.error]
    return "\n".join(lines)


def _rates(turns: list[Turn]) -> list[float]:
    """Tokens a second of every timed step."""
    return [t.batch * t.tokens / seconds for t in turns if not t.error for seconds in t.seconds[1:]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--low-bit", action="store_true", help="AdamW's moments in 8 bits")
    parser.add_argument(
        "--one-optimizer", action="store_true", help="ropewalk's for everybody, not torchao's as it comes"
    )
    parser.add_argument("--sizes", nargs="*", default=["1x32768", "4x8192", "16x2048"], help="batch x tokens")
    parser.add_argument("--who", nargs="+", default=["transformers", "liger", "ropewalk"], choices=list(CONTESTANTS))
    parser.add_argument("--longest", nargs="*", default=["1x131072"], help="sizes that only ropewalk runs")
    parser.add_argument("--steps", type=int, default=2, help="timed steps a turn")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each contestant at each size")
    parser.add_argument("--shape", default="7b", choices=list(SHAPES))
    parser.add_argument("--layers", type=int, help="fewer than the shape has")
    parser.add_argument("--budget", type=float, default=520, help="seconds after which no new turn starts")
    parser.add_argument("--longest-steps", type=int, default=1, help="timed steps at those sizes")
    parser.add_argument(
        "--profile", choices=list(CONTESTANTS), help="list this contestant's kernels by time after its turns"
    )
    parser.add_argument("--memory", type=float, help="GiB, as if the card had no more; its arithmetic is its own")
    parser.add_argument("--json", type=Path, help="write every turn here")
    arguments = parser.parse_args()
    with card_of(int(arguments.memory * 2**30)) if arguments.memory else contextlib.nullcontext():
        measure(arguments)


def measure(arguments: argparse.Namespace) -> None:
    """All turns that were asked for, then the table."""
    started = time.perf_counter()
    # Each size and each choice of what is kept is compiled by itself.
    torch._dynamo.config.recompile_limit = 64
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    print(name, records.versions(), sys.argv, flush=True)
    rate = throughput.matrix_rate(device, torch.bfloat16)
    bench = Bench(
        device,
        arguments.shape,
        arguments.layers,
        arguments.profile,
        low_bit=arguments.low_bit,
        one_optimizer=arguments.one_optimizer,
    )
    if rate:
        print(f"matrix {rate / 1e12:.0f} TFLOP/s", flush=True)
        bench.fastest = trust_fastest(device, 32768)
        torch.cuda.empty_cache()
    print(f"[{time.perf_counter() - started:6.1f} s] ready", flush=True)
    turns: list[Turn] = []
    todo = [
        (who, s, arguments.steps) for s in arguments.sizes for _ in range(arguments.rounds) for who in arguments.who
    ]
    todo += [("ropewalk", size, arguments.longest_steps) for size in arguments.longest]
    for who, size, steps in todo:
        if time.perf_counter() - started > arguments.budget:
            print(f"no time left for {who} at {size}", flush=True)
            continue
        batch, tokens = (int(part) for part in size.split("x"))
        turns.append(bench.turn(who, batch, tokens, steps))
        if arguments.json:
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            about = dict(device=name, versions=records.versions(), command=sys.argv, matrix_rate=rate)
            arguments.json.write_text(json.dumps({**about, "turns": [asdict(t) for t in turns]}, indent=1))
    print(f"\n{name}, matrix rate {(rate or 0) / 1e12:.0f} TFLOP/s, {time.perf_counter() - started:.0f} s in all\n")
    print(table(turns, lambda tokens: throughput.flops_per_token(bench.model, tokens), rate, named(name)))


if __name__ == "__main__":
    main()
