"""Run by torchrun in test_low_bit.py: torchao's optimisers on two processes of a CPU, in a directory that holds a tiny model.

usage: torchrun --nproc-per-node 2 low_bit_ranks.py DIRECTORY
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

from ropewalk import testing
from ropewalk.data.documents import Document
from ropewalk.training import train

DOCUMENTS = [Document(f"d{number}", testing.prose(80, number)) for number in range(8)]
SHARED = dict(data=DOCUMENTS, window=96, batch_size=2, learning_rate=1e-3, warmup=2, save_every=2, device="cpu")
REGIMES = {
    "8-bit": dict(precision="bfloat16", optimizer="adamw-8bit"),
    "stochastic": dict(precision="bfloat16-stochastic", optimizer="adamw"),
    "both": dict(precision="bfloat16-stochastic", optimizer="adamw-8bit"),
}


def go(place: Path, name: str, out: str, **options) -> None:
    """A run of a regime in `place`."""
    train(place / "base", out=place / name / out, **SHARED, **REGIMES[name], **options)


def main() -> None:
    warnings.simplefilter("ignore")
    place = Path(sys.argv[1])
    for name in REGIMES:
        go(place, name, "once", steps=4)
        go(place, name, "twice", steps=2)
        go(place, name, "twice", steps=4, resume=True)
        go(place, name, "grown", steps=4, resume=True)  # which one process began


if __name__ == "__main__":
    main()
