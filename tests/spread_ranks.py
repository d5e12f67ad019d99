"""Run by torchrun in test_spread.py: every measuring command over a model whose layers two processes hold together.

usage: torchrun --nproc-per-node 2 spread_ranks.py DIRECTORY
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from ropewalk import attention, benchmarks, gain, passkey, perplexity, retrieval, summarize
from ropewalk.distributed import ranks
from ropewalk.evals.loaded import fingerprint, open_model


def held(model) -> int:
    """Weights in this process."""
    return sum((p.to_local() if hasattr(p, "to_local") else p).numel() for p in model.parameters())


def measure(place: Path, out: Path, **options) -> None:
    """Every command; three documents, five depths and so on: one process of two has more to do than the other."""
    model, base, documents = place / "model", place / "base", [place / f"{number}.txt" for number in range(3)]
    perplexity(model, data=documents, windows=[64, 256], stride=60, out=out, **options)
    perplexity(model, data=documents, windows=[128], stride=64, budget=5, seed=1, out=out, **options)
    perplexity(model, data=documents, windows=[64], stride=32, convention="yarn", out=out, **options)
    gain(model, data=documents, window=256, short=64, evaluator=place / "judge", out=out, **options)
    passkey(model, window=256, depths=5, trials=2, out=out, **options)
    retrieval(model, window=448, families=["keys"], trials=3, out=out, **options)
    benchmarks(model, base=base, tasks=["piqa"], data=place, window=100, out=out, **options)
    summarize(model, data=place / "pairs.jsonl", summary_tokens=8, batch=1, out=out, **options)
    attention(model, base=base, data=documents[:1], window=256, out=out, **options)


def main() -> None:
    place = Path(sys.argv[1])
    loaded = open_model(place / "model", shard="on", device="cpu")
    said = {
        "fingerprint": fingerprint(loaded),
        "held": ranks.gathered({ranks.rank(): held(loaded.model)}),
        "weights": sum(p.numel() for p in loaded.model.parameters()),
    }
    measure(place, place / "two.jsonl", shard="on", device="cpu")
    if os.environ["RANK"] == "0":
        (place / "said.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main()
