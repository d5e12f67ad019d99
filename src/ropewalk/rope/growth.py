"""Figure 2: scores fitted inside the window, looked at outside it; and why they explode there.

in   a `Rope`, random targets at the distances 0 .. L - 1, a way to solve the least squares
out  max|a(s)| inside and outside

The paper fits a(s) to 2048 random targets, finds it above 8000 outside and takes that for the nature of extrapolation. How
large it gets is decided by the conditioning of the fit: the d columns are numerically dependent (most pairs hardly rotate
in the window), and how a solver rounds decides how large the coefficients of the nearly invisible directions become. A
little ridge, which a trained network always has in some form, leaves the fit and removes the explosion. Numbers and the full
argument: docs/method.md, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Real

from ropewalk.errors import UserError
from ropewalk.rope.bounds import check_reach
from ropewalk.rope.scaling import InvFreq, Rope

#: No head in use rotates half as many coordinates; past it the fits take minutes and gigabytes.
WIDEST = 1024
#: name → (float type, ridge); ridge None stands for least squares by singular values instead of the normal equations.
SOLVERS: dict[str, tuple[type, float | None]] = {
    "normal equations, float32": (np.float32, 0.0),  # the paper's figure 2
    "normal equations, float64": (np.float64, 0.0),
    "least squares, float64": (np.float64, None),
    "ridge 1.0, float64": (np.float64, 1.0),
}


def features(inv_freq: InvFreq, s: Real[np.ndarray, " n"], dtype: type = np.float64) -> Float[np.ndarray, "n d"]:
    """(sin s theta_j, cos s theta_j), shape (n, d): the basis in which a(s) is linear; h_j = (cos's - i sin's weight)."""
    phase = np.outer(np.asarray(s, dtype=np.float64), inv_freq)
    return np.hstack([np.sin(phase), np.cos(phase)]).astype(dtype)


def fit(basis: Float[np.ndarray, "n d"], targets: Float[np.ndarray, "n k"], solver: str) -> Float[np.ndarray, "d k"]:
    """Weights (d, k) of the basis that fit k columns of targets, by one of `SOLVERS`; float64 whatever the solver's type.

    NaN where the normal equations are singular to the last bit.

    Raises:
        UserError: no such solver.
    """
    if solver not in SOLVERS:
        raise UserError(f"a solver is one of {', '.join(SOLVERS)}, got {solver!r}; choose one of them")
    dtype, ridge = SOLVERS[solver]
    if ridge is None:
        return np.linalg.lstsq(basis, targets, rcond=None)[0]
    # Rounded to float32 once, after exact enough sums: what a BLAS adds of its own depends on its blocks and threads, and
    # here that moves the result between 70 and 12000 (docs/method.md, 4). Rounded so, it is the same everywhere.
    x, y = basis.astype(dtype).astype(np.float64), targets.astype(dtype).astype(np.float64)
    gram = (x.T @ x + ridge * np.eye(x.shape[1])).astype(dtype)
    try:
        return np.linalg.solve(gram, (x.T @ y).astype(dtype)).astype(np.float64)
    except np.linalg.LinAlgError:  # with a very large rope_theta, columns are equal to the last bit
        return np.full((basis.shape[1], targets.shape[1]), np.nan)


@dataclass(frozen=True)
class Growth:
    """How large fitted scores get. Medians over seeds, each seed a fresh draw of standard-normal targets.

    Attributes:
        solver: one of `SOLVERS`.
        window, reach: fitted on 0 .. window - 1, looked at up to reach - 1 (tokens).
        seeds: how many draws.
        inside, outside: median of max|a(s)| over the fitted distances, and over the others.
        lowest, highest: of the outside maxima, over the seeds.
        distances, envelope: the running maximum of |a| up to each distance, median over seeds; for drawing.
    """

    kind: ClassVar[str] = "theory_growth"
    solver: str
    window: int
    reach: int
    seeds: int
    inside: float
    outside: float
    lowest: float
    highest: float
    distances: list[float]
    envelope: list[float]


def growth(rope: Rope, reach: int, *, seeds: int = 20, window: int | None = None) -> list[Growth]:
    """Fit `seeds` draws of targets by every solver and follow them out to `reach`.

    Args:
        rope: as pretrained; its window is fitted unless `window` says otherwise.
        reach: tokens; more than the window.
        seeds: seed k draws its targets from numpy's default_rng(k).
        window: distances 0 .. window - 1 are fitted.

    Raises:
        UserError: nothing lies outside the window, the reach is absurdly long, or the head absurdly wide.
    """
    check_size(rope, reach)
    window = window or rope.window
    if reach <= window:
        raise UserError(
            f"growth is looked for outside the fitted window of {window}, got a reach of {reach}; ask for more"
        )
    inv_freq = rope.inv_freq()
    distances = _drawn(window, reach)
    fitted = _fitted(window)
    inside, all_seen = features(inv_freq, fitted), features(inv_freq, distances)
    targets = np.stack([np.random.default_rng(seed).standard_normal(len(fitted)) for seed in range(seeds)], axis=1)
    return [_growth_of(solver, inside, targets, all_seen, distances, window, reach) for solver in SOLVERS]


def check_size(rope: Rope, reach: int) -> None:
    """Refuse sizes that would take minutes and gigabytes, before anything is allocated.

    Raises:
        UserError: a reach past `FARTHEST`, or more than `WIDEST` rotated coordinates.
    """
    check_reach(reach)
    if rope.head_dim > WIDEST:
        # The features at the fitted and the drawn distances, in float64, and the phases they are made from.
        needed = 2.5 * 8 * rope.head_dim * (min(rope.window, 8192) + min(reach, 32768))
        raise UserError(
            f"the theory is worked out for heads of at most {WIDEST} rotated coordinates, got {rope.head_dim}, which would "
            f"take about {needed / 2**30:.1f} GiB; check head_dim in the config"
        )


def _fitted(window: int) -> Float[np.ndarray, " n"]:
    """Every distance of the window up to 8192; of a longer one 8192 drawn at random, since even steps would alias fast pairs."""
    if window <= 8192:
        return np.arange(window, dtype=np.float64)
    return np.sort(np.random.default_rng(0).choice(window, 8192, replace=False)).astype(np.float64)


def _drawn(window: int, reach: int) -> Float[np.ndarray, " n"]:
    """Every distance up to 32768; of a longer reach 32768 of them, half inside the window and half outside."""
    if reach <= 32768:
        return np.arange(reach, dtype=np.float64)
    edges = np.concatenate([np.linspace(0, window - 1, 16384), np.linspace(window, reach - 1, 16384)])
    return np.unique(edges.round())


def _growth_of(
    solver: str,
    basis: Float[np.ndarray, "n d"],
    targets: Float[np.ndarray, "n k"],
    seen: Float[np.ndarray, "m d"],
    distances: Float[np.ndarray, " m"],
    window: int,
    reach: int,
) -> Growth:
    """Fit every column of targets by one solver; `seen` is the basis at `distances`, which reach beyond the window."""
    size = np.abs(seen @ fit(basis, targets, solver))
    outside = size[distances >= window].max(axis=0)
    running = np.median(np.maximum.accumulate(size, axis=0), axis=1)
    keep = np.unique(np.geomspace(1, len(distances), 400).astype(int)) - 1
    return Growth(
        solver=solver,
        window=window,
        reach=reach,
        seeds=targets.shape[1],
        inside=float(np.median(size[distances < window].max(axis=0))),
        outside=float(np.median(outside)),
        lowest=float(outside.min()),
        highest=float(outside.max()),
        distances=distances[keep].tolist(),
        envelope=running[keep].tolist(),
    )
