"""What hemp is for, tried in plain torch: base, extrapolation, PI before and after a short fine-tuning.

in   a checkpoint, the folder corpus.py wrote, and fine-tunings to try (batch x steps @ learning rate)
out  one line a model state: perplexity at L and at the new window, passkey successes by depth, k_max

Measures on the validation modules unless told `--held-out`. Written without ropewalk's own training and measuring code,
so the two can be held against each other.

    python recipes/hemp/measure.py --model build/hemp/model --corpus build/hemp --try 8x40@1e-3 4x80@1e-3
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer

from ropewalk.data.recall import Exercises
from ropewalk.data.stdlib import standard_library

# The passkey prompt of Mohtashami & Jaggi 2023 as Chen et al. 2023 quote it.
HEADER = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. "
    "I will quiz you about the important information there.\n"
)
FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.\n"
KEY = "The pass key is {key}. Remember it. {key} is the pass key.\n"
QUESTION = "What is the pass key? The pass key is "


def interpolated(folder: Path, factor: float, device: str) -> transformers.LlamaForCausalLM:
    """The checkpoint in float32, its positions divided by `factor`."""
    config = transformers.AutoConfig.from_pretrained(folder)
    if factor != 1:
        config.rope_parameters = {"rope_type": "linear", "factor": float(factor), "rope_theta": 10000.0}
    return transformers.LlamaForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32).to(device).eval()


def train(model, blocks: torch.Tensor, batch: int, steps: int, peak: float, seed: int = 0) -> None:
    """The paper's recipe: AdamW 0.9/0.95, weight decay 0, 20 steps of warm-up from a tenth, then constant."""
    draw = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.95), weight_decay=0.0)
    order = torch.randperm(len(blocks), generator=draw)
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = peak * min(1.0, 0.1 + 0.9 * step / 20)
        rows = blocks[order[torch.arange(step * batch, (step + 1) * batch) % len(order)]].to(model.device)
        with torch.autocast(rows.device.type, torch.bfloat16):
            logits = model(rows, use_cache=False).logits[:, :-1]
        torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def blocks_of(tokens: np.ndarray, tokenizer: Tokenizer, window: int, share: float) -> torch.Tensor:
    """Windows of ordinary text, and among them a share of recall exercises."""
    ordinary = tokens[: len(tokens) // window * window].reshape(-1, window)
    count = round(len(ordinary) * share / (1 - share))
    exercises = Exercises(tokenizer, tokens, seed=99).rows(count, window).reshape(count, window)
    return torch.from_numpy(np.concatenate([exercises, ordinary]).astype(np.int64))


@torch.no_grad()
def perplexity(model, documents: list[np.ndarray], window: int, stride: int) -> float:
    """Token-weighted over all documents; the first window scores all it can, each further one its last `stride`."""
    total = count = 0.0
    by_shape: dict[tuple[int, int], list[np.ndarray]] = {}
    for document in documents:
        stop, scored = min(window, len(document)), 1
        while True:
            begin = max(0, stop - window)
            by_shape.setdefault((stop - begin, stop - scored), []).append(document[begin:stop])
            if stop == len(document):
                break
            scored, stop = stop, min(stop + stride, len(document))
    for (length, wanted), rows in by_shape.items():
        per = max(1, (32768 if model.device.type == "cuda" else 4096) // length)
        for i in range(0, len(rows), per):
            x = torch.from_numpy(np.stack(rows[i : i + per]).astype(np.int64)).to(model.device)
            logits = model(x, use_cache=False, logits_to_keep=wanted + 1).logits[:, :-1]
            targets = x[:, -wanted:]
            total += torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum").item()
            count += targets.numel()
    return math.exp(total / count)


@torch.no_grad()
def passkey(model, tokenizer: Tokenizer, window: int, trials: int = 5, depths: int = 32) -> tuple[list[float], int]:
    """Share of trials with all five digits right at each depth, and k_max; the prompt and the key fill the window."""

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    draw = np.random.default_rng(0)
    header, group, question = [0, *ids(HEADER)], ids(FILLER), ids(QUESTION)
    rows, wanted = [], window // depths * np.arange(1, depths + 1)
    for depth in wanted:
        for _ in range(trials):
            digits = "".join(map(str, draw.integers(0, 10, 5)))
            key = ids(KEY.format(key=digits))
            room = window - 5 - len(header) - len(key) - len(question)
            after = int(np.clip(depth - len(question) - len(key), 0, room))
            repeated = group * (window // len(group) + 1)
            rows.append(header + repeated[: room - after] + key + repeated[:after] + question + ids(digits))
    x, answers = torch.tensor(rows).to(model.device), []
    for part in x.split(64 if model.device.type == "cuda" else 8):
        guesses = model(part[:, :-1], use_cache=False, logits_to_keep=5).logits.argmax(-1)
        answers.append((guesses == part[:, -5:]).all(-1))
    success = torch.cat(answers).view(depths, trials).float().mean(1).tolist()
    reached = [depth for depth, share in zip(wanted, success, strict=True) if share < 0.2]
    k_max = int(reached[0] - window // depths) if reached else window
    return success, k_max


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--try", dest="trials", nargs="*", default=[], metavar="BATCHxSTEPS@RATE")
    parser.add_argument(
        "--exercises", type=float, default=0.0, help="share of fine-tuning windows that are the exercise"
    )
    parser.add_argument("--factor", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=8192, help="tokens scored of each document")
    parser.add_argument("--depths", type=int, default=32)
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--quick", action="store_true", help="only the new window, no control")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = Tokenizer.from_file(str(arguments.corpus / "tokenizer.json"))
    if arguments.held_out:
        texts = [path.read_text(encoding="utf-8") for path in standard_library("held_out")]
        documents = [np.array(tokenizer.encode(text).ids) for text in texts]
    else:
        documents = list(np.load(arguments.corpus / "validation.npz").values())
    documents = [document[: arguments.tokens] for document in documents]
    tokens = np.load(arguments.corpus / "stdlib.npy")
    window = transformers.AutoConfig.from_pretrained(arguments.model).max_position_embeddings
    long = window * arguments.factor
    results = []

    def report(name: str, model, windows: list[int]) -> None:
        row = dict(name=name)
        for w in windows:
            row[f"ppl_{w}"] = round(perplexity(model, documents, w, w // 4), 4)
            success, k_max = passkey(model, tokenizer, w, depths=arguments.depths)
            row[f"k_max_{w}"], row[f"mean_{w}"] = k_max, round(float(np.mean(success)), 3)
            row[f"map_{w}"] = "".join(str(min(9, int(share * 9.99))) for share in success)
        results.append(row)
        print(arguments.model.name, json.dumps(row), flush=True)

    both = [window, long]
    base = interpolated(arguments.model, 1, device)
    report("base", base, both)
    untrained = interpolated(arguments.model, arguments.factor, device)
    report("PI, not trained", untrained, both)
    for trial in arguments.trials:
        shape, peak = trial.split("@")
        batch, steps = map(int, shape.split("x"))
        model = copy.deepcopy(untrained)
        began = time.time()
        train(model, blocks_of(tokens, tokenizer, long, arguments.exercises), batch, steps, float(peak))
        print(f"{batch * steps * long / (time.time() - began):.0f} tokens/s")
        report(f"PI {trial}", model, both)
    if arguments.trials and not arguments.quick:  # as much training without any extension, at the last trial's settings
        control = copy.deepcopy(base)
        short = blocks_of(tokens, tokenizer, window, arguments.exercises)
        train(control, short, batch * arguments.factor, steps, float(peak))
        report(f"base, trained {trial}", control, [window])
    (arguments.model / "measured.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
