"""How much figure 2 of the paper depends on float32 arithmetic: the same normal equations, summed in different ways.

python -m bench.figure2        (and with OMP_NUM_THREADS=1, =2: a BLAS sums in other blocks)

Medians over 20 seeds of max|a(s)| for s in 2048 .. 4095, after a fit to standard-normal targets on 0 .. 2047, d = 128, c = 10000.
"""

from __future__ import annotations

import os

import numpy as np

from ropewalk import records
from ropewalk.rope.scaling import Rope

SEEDS = 20


def basis(dtype: type) -> np.ndarray:
    """(4096, 128) features in float32, their phases worked out in `dtype`."""
    phase = np.outer(np.arange(4096).astype(dtype), Rope(128).inv_freq().astype(dtype))
    return np.hstack([np.sin(phase), np.cos(phase)]).astype(np.float32)


def by_blas(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return x.T @ x, x.T @ y


def rounded_once(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    wide = x.astype(np.float64)
    return (wide.T @ wide).astype(np.float32), (wide.T @ y.astype(np.float64)).astype(np.float32)


def in_order(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    gram, right = np.zeros((x.shape[1],) * 2, np.float32), np.zeros((x.shape[1], y.shape[1]), np.float32)
    for row, target in zip(x, y, strict=True):
        gram += np.outer(row, row)
        right += np.outer(row, target)
    return gram, right


def main() -> None:
    targets = np.stack([np.random.default_rng(seed).standard_normal(2048) for seed in range(SEEDS)], axis=1)
    print(f"numpy {records.versions()['numpy']}, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}")
    for phases in (np.float64, np.float32):
        features = basis(phases)
        for name, normal_equations in (("BLAS", by_blas), ("rounded once", rounded_once), ("in order", in_order)):
            # One seed at a time: a BLAS multiplies a matrix and a vector in other blocks than two matrices.
            largest = []
            for seed in range(SEEDS):
                gram, right = normal_equations(features[:2048], targets[:, seed : seed + 1].astype(np.float32))
                largest.append(float(np.abs(features[2048:] @ np.linalg.solve(gram, right)).max()))
            spread = f"median {np.median(largest):8.0f}, {min(largest):6.0f} to {max(largest):6.0f}"
            print(f"phases in {phases.__name__}, sums {name:12}: {spread}")


if __name__ == "__main__":
    main()
