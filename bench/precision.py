"""Whether training in one precision ends where another does: the same steps by several seeds in each, compared as the runs go on.

    python -m bench.precision --model MODEL --data books/train-1.jsonl.xz --candidate bfloat16-stochastic --json runs/precision.json
    python -m bench.precision --reference float32 --candidate bfloat16 --model hemp --data src --window 256 --steps 20      on a CPU: a minute

Runs take turns: the first seed in both precisions, then the others. The first --train documents are trained on, by a method and a rate as `ropewalk train`
takes them; the --held-out ones after them are read at the end, each cut to a window. The rule, set before anything was run: in every tenth of the
steps the mean training loss, and the held-out loss at the end, of the candidate's runs lies between the least and the most of the reference's seeds.
A seed decides the order of the windows, so that two runs of one seed differ by precision alone; their difference is shown beside it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import ropewalk
from ropewalk import records
from ropewalk.data.documents import read_documents
from ropewalk.data.reading import Document
from ropewalk.model.devices import device_name

#: Parts of the steps that are compared one by one.
_PARTS = 10


@dataclass(frozen=True)
class Run:
    """One run: loss of each step, in nats a token, and of the held-out documents at its end; seconds in all; tokens/s of the median step."""

    precision: str
    seed: int
    losses: list[float]
    held_out: float
    seconds: float
    speed: float

    @property
    def figures(self) -> list[float]:
        """Mean loss of each part of the steps, in order; then the held-out loss."""
        size = len(self.losses) / _PARTS
        parts = [self.losses[int(part * size) : int((part + 1) * size)] for part in range(_PARTS)]
        return [*map(statistics.fmean, parts), self.held_out]


def run(args: argparse.Namespace, precision: str, seed: int, train: list[Document], held_out: list[Document]) -> Run:
    """Train once, in a directory that is gone afterwards."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        out: Any = Path(folder) / "out"
        options = dict(window=args.window, batch_size=args.batch_size, steps=args.steps, seed=seed, save_every=0)
        ropewalk.train(args.model, data=train, out=out, precision=precision, optimizer="adamw", **options)
        steps = [each.row for each in records.read([out / "records.jsonl"]).of(records.Step)]
        dtype = "bfloat16" if torch.cuda.is_available() else "float32"
        (row,) = ropewalk.perplexity(
            out, data=held_out, windows=[args.window], stride=args.window, max_tokens=args.window, dtype=dtype
        )
    losses, speed = [step.loss for step in steps], statistics.median(step.tokens_per_second for step in steps)
    return Run(precision, seed, losses, math.log(row.perplexity), time.perf_counter() - started, speed)


def table(reference: list[Run], candidate: list[Run]) -> str:
    """A row a figure: the reference's least and most, the candidate's mean, whether it lies between, and its mean difference seed by seed."""
    lines = [
        "| loss | reference, least | most | candidate, mean | inside | candidate - reference, same seed |",
        "|---|---|---|---|---|---|",
    ]
    inside = []
    by_seed = {run.seed: run for run in reference}
    for number in range(_PARTS + 1):
        least, most = (f(r.figures[number] for r in reference) for f in (min, max))
        mean = statistics.fmean(r.figures[number] for r in candidate)
        paired = statistics.fmean(r.figures[number] - by_seed[r.seed].figures[number] for r in candidate)
        inside.append(least <= mean <= most)
        name = "held out" if number == _PARTS else f"tenth {number + 1} of the steps"
        lines.append(
            f"| {name} | {least:.4f} | {most:.4f} | {mean:.4f} | {'yes' if inside[-1] else 'NO'} | {paired:+.4f} |"
        )
    verdict = "inside" if all(inside) else f"outside in {inside.count(False)} of {len(inside)} figures"
    return "\n".join([*lines, "", f"{len(candidate)} of the candidate, {len(reference)} of the reference: {verdict}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--reference", default="bfloat16")
    parser.add_argument("--candidate", required=True, help="a precision, by the names of `ropewalk train`")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--window", type=int, default=16384)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--train", type=int, default=48, help="documents")
    parser.add_argument("--held-out", type=int, default=24, help="documents after these")
    parser.add_argument("--budget", type=float, default=3600, help="seconds after which no new run starts")
    parser.add_argument("--json", type=Path, help="write every run here")
    args = parser.parse_args()
    started, runs = time.perf_counter(), list[Run]()
    documents = list(itertools.islice(read_documents(args.data), args.train + args.held_out))
    train, held_out = documents[: args.train], documents[args.train :]
    first, *others = args.seeds
    pairs = [(p, first) for p in (args.reference, args.candidate)]
    pairs += [(p, seed) for p in (args.reference, args.candidate) for seed in others]
    device = device_name(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    for precision, seed in pairs:
        if time.perf_counter() - started > args.budget:
            print(f"no time left for {precision}, seed {seed}", flush=True)
            continue
        runs.append(run(args, precision, seed, train, held_out))
        last = runs[-1]
        print(
            f"{precision}, seed {seed}: {last.seconds:.0f} s, {last.speed:.0f} tokens/s, last step's loss {last.losses[-1]:.4f}, held out {last.held_out:.4f}",
            flush=True,
        )
        if args.json:
            args.json.parent.mkdir(parents=True, exist_ok=True)
            about = dict(device=device, versions=records.versions(), arguments=vars(args) | {"json": str(args.json)})
            args.json.write_text(json.dumps({**about, "runs": [asdict(each) for each in runs]}, indent=1))
    print(f"\n{device}, {args.model} at {args.window}, {args.steps} steps of {args.batch_size} windows\n")
    print(table(*([r for r in runs if r.precision == p] for p in (args.reference, args.candidate))))


if __name__ == "__main__":
    main()
