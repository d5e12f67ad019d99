"""Whether an extended model runs on the same infrastructure at the same cost: base and extended at equal length, forward, training step, `generate`.

    python -m bench.reuse                                              SmolLM2's shape with eight layers, on one core: six minutes
    python -m bench.reuse --model MODEL --window 32768 --length 8192 --methods linear yarn llama3

The base is extended by each method to --window; then all read the same --length tokens, within the base's own window. Contestants take turns, in an
order that is reversed every turn, after one that is not timed; CPU seconds of the process on a CPU, where cores may be shared, else wall seconds. A
ratio is the geometric mean over turns of extended over base in the same turn, with Student's 95 % interval; below 1 is faster than the base.
"again" is the base a second time: what the clock itself makes of two equal models.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from scipy import stats

from ropewalk import extend, load_model, testing
from ropewalk.model.devices import device_name
from ropewalk.model.loss import NextTokenLoss

#: SmolLM2-135M but for its layers, of which it has 30.
SMALL: dict[str, Any] = dict(
    hidden_size=576, intermediate_size=1536, num_hidden_layers=8, num_attention_heads=9, num_key_value_heads=3, vocab_size=49152,
    max_position_embeddings=8192, rope_theta=100000.0, tie_word_embeddings=True,
)  # fmt: skip
TIMED = ("forward", "step", "generate")


def made(place: Path) -> Path:
    """A checkpoint of random weights."""
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(transformers.LlamaConfig(**SMALL)).save_pretrained(place)
    testing.byte_tokenizer(SMALL["max_position_embeddings"]).save_pretrained(place)
    return place


class Contestant:
    """One model, and what is timed of it: a forward pass over `length` tokens, a training step on them, `new_tokens` generated at their end."""

    def __init__(self, directory: Any, length: int, new_tokens: int) -> None:
        self.model: Any = load_model(directory)
        self.new_tokens, self.loss = new_tokens, NextTokenLoss(self.model)
        ids = np.random.default_rng(0).integers(10, self.model.config.get_text_config().vocab_size, (1, length + 1))
        self.ids = torch.from_numpy(ids).to(self.model.device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5, fused=True)

    @torch.no_grad()
    def forward(self) -> None:
        self.model(input_ids=self.ids[:, :-1], use_cache=False, logits_to_keep=1)

    def step(self) -> None:
        self.loss(self.ids[:, :-1], self.ids[:, 1:]).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def generate(self) -> None:
        prompt, count = self.ids[:, : -1 - self.new_tokens], self.new_tokens
        mask = torch.ones_like(prompt)
        counts = dict(max_new_tokens=count, min_new_tokens=count)
        self.model.generate(prompt, attention_mask=mask, do_sample=False, pad_token_id=0, **counts)


def seconds(call: Callable[[], None], device: torch.device) -> float:
    """Of one call."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    gc.collect()
    wait()
    started = clock()
    call()
    wait()
    return clock() - started


def taken(contestants: dict[str, Contestant], what: str, turns: int) -> dict[str, np.ndarray]:
    """Seconds of each contestant, [turns]."""
    device = contestants["base"].model.device
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(turns + 1):
        for name in list(contestants)[:: 1 if turn % 2 else -1]:
            spent = seconds(getattr(contestants[name], what), device)
            times[name] += [spent] * (turn > 0)
    return {name: np.array(each) for name, each in times.items()}


def ratio(times: np.ndarray, base: np.ndarray) -> tuple[float, float, float]:
    """Geometric mean of times over base's, low and high end of its interval."""
    logs = np.log(times / base)
    half = stats.t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / len(logs) ** 0.5
    low, mean, high = np.exp(logs.mean() + half * np.array([-1, 0, 1]))
    return float(mean), float(low), float(high)


def main() -> None:
    """Print a row for each thing timed and each method."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="a checkpoint; random weights if not given")
    parser.add_argument("--methods", nargs="+", default=["linear", "yarn"])
    parser.add_argument("--window", type=int, default=32768, help="that the base is extended to")
    parser.add_argument("--length", type=int, default=512, help="tokens that are read")
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--what", nargs="+", default=TIMED, choices=TIMED)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = args.model or made(Path(folder) / "base")
        contestants = {name: Contestant(base, args.length, args.new_tokens) for name in ("base", "again")}
        for method in args.methods:
            out = Path(folder) / method
            extend(base, window=args.window, method=method, out=out)
            contestants[method] = Contestant(out, args.length, args.new_tokens)
        device = device_name(contestants["base"].model.device)
        about = f"{args.model or 'SmolLM2 with 8 layers'}, {args.length} tokens, extended to {args.window}"
        print(
            f"{about}, {args.turns} turns on {device}\n\n| timed | method | extended / base | base, s |\n|---|---|---|---|"
        )
        for what in args.what:
            times = taken(contestants, what, args.turns)
            for method in ("again", *args.methods):
                mean, low, high = ratio(times[method], times["base"])
                print(
                    f"| {what} | {method} | {mean:.3f} ({low:.3f} to {high:.3f}) | {np.median(times['base']):.3f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
