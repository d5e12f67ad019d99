"""Rows of the recall exercise (ropewalk.data.recall) for hemp's pretraining, on all cores.

in   the folder corpus.py wrote
out  recall.npy in it, uint16 [rows, length]

    python recipes/hemp/exercises.py --corpus build/hemp --rows 300000
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from ropewalk.data.recall import Exercises


def _some(job: tuple[str, str, int, int, int]) -> np.ndarray:
    tokenizer, ordinary, seed, count, length = job
    return Exercises(Tokenizer.from_file(tokenizer), np.load(ordinary, mmap_mode="r"), seed).rows(count, length)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="the folder corpus.py wrote")
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--length", type=int, default=257)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    workers, each = os.cpu_count() or 1, 500
    jobs = [
        (str(arguments.corpus / "tokenizer.json"), str(arguments.corpus / "train.npy"), seed, each, arguments.length)
        for seed in range(arguments.seed, arguments.seed + arguments.rows // each)
    ]
    with multiprocessing.Pool(workers) as pool:
        np.save(arguments.corpus / "recall.npy", np.concatenate(pool.map(_some, jobs, chunksize=4)))


if __name__ == "__main__":
    main()
