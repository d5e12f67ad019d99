"""Bounds on the attention score a(s): as printed in the paper, as they hold, and the exact suprema.

in   inv_freq (d/2,), theta_j in radians a token, distances s in tokens, and the largest |h_j|
out  bounds in the score's own unit

Every bound is linear in max|h_j|, which is 1 if not given; a score that a model divides by sqrt(head size) needs its bounds
divided alike. Numbers like § 2.1 are sections of docs/method.md, where each statement is proved and its test is named.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Complex, Float, Real

from ropewalk.errors import UserError
from ropewalk.rope.scaling import InvFreq, Rope

Distances = Real[np.ndarray, " n"]
AtDistances = Float[np.ndarray, " n"]
#: One distance, in tokens.
Distance = float | int
#: Phases s theta_j computed at a time: distances are taken in blocks, so that memory does not grow with the window.
_PHASES = 1 << 20
#: No model reads farther, and a curve beyond it would take minutes: a longer window is taken for a typing error.
FARTHEST = 1 << 24


def score(h: Complex[np.ndarray, " half"], inv_freq: InvFreq, s: Distances) -> AtDistances:
    """a(s) = Re sum_j h_j exp(i s theta_j), the score at distance s (Chen et al. 2023, section 2.2, eq. 2 there).

    Args:
        h: (d/2,) products of query and key coordinates, complex.
        inv_freq: (d/2,) radians a token.
        s: (n,) distances in tokens; may be fractional.
    """
    return np.real(np.exp(1j * np.multiply.outer(np.asarray(s, dtype=np.float64), inv_freq)) @ h)


def chord_gap(inv_freq: InvFreq, s: Distances, s1: Distance, s2: Distance) -> Complex[np.ndarray, "n half"]:
    """How far each exp(i s theta_j) is from the straight line through its values at s1 and s2; (n, d/2), complex.

    By linearity a(s) - a_lin(s) = Re sum_j h_j gap_j(s), so everything about interpolation is in these numbers (§ 2.1).
    """
    s = np.asarray(s, dtype=np.float64)
    _check_inside(s, s1, s2)
    share = ((s - s1) / (s2 - s1))[:, None]
    chord = (1 - share) * np.exp(1j * s1 * inv_freq) + share * np.exp(1j * s2 * inv_freq)
    return np.exp(1j * np.outer(s, inv_freq)) - chord


def interpolation_supremum(
    inv_freq: InvFreq, s: Distances, s1: Distance, s2: Distance, largest: float = 1.0
) -> AtDistances:
    """The exact supremum of |a(s) - a_lin(s)| over all h with |h_j| <= largest: largest sum_j |gap_j(s)| (§ 2.1).

    `worst_coefficients` attains it, so no bound that knows only max|h_j| can be smaller. Not in the paper.
    """
    return largest * np.abs(chord_gap(inv_freq, s, s1, s2)).sum(axis=1)


def worst_coefficients(inv_freq: InvFreq, s: Distance, s1: Distance, s2: Distance) -> Complex[np.ndarray, " half"]:
    """The h with |h_j| = 1 that deviates most from the chord at s: each h_j rotates its gap onto the real axis (§ 2.1)."""
    return np.exp(-1j * np.angle(chord_gap(inv_freq, np.array([s]), s1, s2)[0]))


def sum_of_squares(inv_freq: InvFreq) -> float:
    """sum_j theta_j^2. For theta_j = c^(-2j/d) it is (1 - c^-2) / (1 - c^(-4/d)), a geometric series (§ 2.2)."""
    return float(np.sum(inv_freq**2))


def sum_of_squares_printed(rope: Rope) -> float:
    """d / (4 ln c), which the paper's proof takes for an upper bound of `sum_of_squares`. It is a lower one (§ 2.3).

    The proof uses c^x <= 1 + x ln c for x < 0; but exp(y) >= 1 + y for every y. The sum is larger by about 1/2.
    """
    return rope.head_dim / (4 * math.log(rope.rope_theta))


def interpolation_bound(
    inv_freq: InvFreq, s: Distances, s1: Distance, s2: Distance, largest: float = 1.0
) -> AtDistances:
    """What the paper's proof does give: |a(s) - a_lin(s)| <= max|h_j| (s - s1)(s2 - s) / 2 sum_j theta_j^2 (§ 2.2).

    Holds for any inv_freq, so for every rope_theta, partial rotary and every scaling. With unit steps and at the midpoint, where
    it is largest, it is max|h_j| sum_j theta_j^2 / 8: d max|h_j| / 256.1 for LLaMA's d = 128 and c = 10000.
    """
    s = np.asarray(s, dtype=np.float64)
    _check_inside(s, s1, s2)
    return largest * (s - s1) * (s2 - s) / 2 * sum_of_squares(inv_freq)


def interpolation_bound_printed(
    rope: Rope, s: Distances, s1: Distance, s2: Distance, largest: float = 1.0
) -> AtDistances:
    """Theorem 2.1 as printed: d max|h_j| (s - s1)(s2 - s) / (8 ln c) (Chen et al. 2023, eq. 5 there). FALSE.

    It is `interpolation_bound` with `sum_of_squares_printed` in it. At d = 128, c = 10000, halfway between two integers, it
    says 0.4343 where 0.4939 is attained (§ 2.3). Here to be compared with, not to be relied on.
    """
    s = np.asarray(s, dtype=np.float64)
    _check_inside(s, s1, s2)
    return largest * (s - s1) * (s2 - s) / 2 * sum_of_squares_printed(rope)


def partial_sums(inv_freq: InvFreq, s: Distances) -> Complex[np.ndarray, "n half"]:
    """A_k(s) = sum_{j<k} exp(i s theta_j) for k = 1 .. d/2; (n, d/2), complex (Chen et al. 2023, section 2.2)."""
    return np.cumsum(np.exp(1j * np.multiply.outer(np.asarray(s, dtype=np.float64), inv_freq)), axis=1)


def abel_sum(inv_freq: InvFreq, s: Distances) -> AtDistances:
    """B(s) = sum_{k=1}^{d/2} |A_k(s)|, the curve of figure 5 (there divided by d); (n,).

    It depends on the order in which the pairs are summed, fast ones first as in the paper, though a(s) does not (§ 3.1).
    """
    s = np.asarray(s, dtype=np.float64)
    rows = max(1, _PHASES // len(inv_freq))
    parts = [np.abs(partial_sums(inv_freq, s[start : start + rows])).sum(axis=1) for start in range(0, len(s), rows)]
    return np.concatenate(parts) if parts else np.zeros(0)


def extrapolation_bound(inv_freq: InvFreq, s: Distances, largest: float = 1.0) -> AtDistances:
    """|a(s)| <= 2 max|h_j| B(s), by Abel summation (Chen et al. 2023, section 2.2; after Su et al. 2021, eq. 37). True (§ 3.1).

    But weak: it is below `trivial_bound` only where B(s)/d < 1/4, which happens nowhere on 0 .. 1048575 at LLaMA's setting.
    """
    return 2 * largest * abel_sum(inv_freq, s)


def abel_bound(h: Complex[np.ndarray, " half"], inv_freq: InvFreq, s: Distances) -> AtDistances:
    """The same step without its last two estimates: |a(s)| <= sum_k |h_k - h_{k+1}| |A_k(s)|, h past the end being 0 (§ 3.1)."""
    differences = np.abs(np.diff(np.append(h, 0)))
    return np.abs(partial_sums(inv_freq, s)) @ differences


def trivial_bound(inv_freq: InvFreq, largest: float = 1.0) -> float:
    """|a(s)| <= (d/2) max|h_j|: d/2 numbers of at most that size. Attained at any one s by some h, so it is exact (§ 3.2)."""
    return largest * len(inv_freq)


@dataclass(frozen=True)
class Bounds:
    """One model's bounds for |h_j| <= 1, on the integer grid and out to a window; in units of the unscaled score.

    Attributes:
        head_dim, rope_theta, window: the model's d, c and the pretraining window L.
        reach: distances 0 .. reach - 1 were looked at.
        interpolation_printed, interpolation, interpolation_exact: theorem 2.1 as printed, corrected, and the exact supremum,
            halfway between two integer distances.
        trivial: d/2.
        factor: reach over window; PI puts every token on a multiple of 1/factor of the old grid.
        fraction: of those multiples, the one farthest from the old grid, as a part of a step (1/2 for an even factor).
        at_factor, at_factor_exact: the corrected bound and the supremum there; 0 at factor 1, which stays on the grid.
        extrapolation_lowest, extrapolation_highest: 2 B(s) over the new distances window .. reach - 1 (over all if none is new).
        b_min, b_min_at: the minimum of B(s)/d and the distance where it lies.
        b_below_one: share of the distances at which B(s)/d < 1, where the paper's reading of its figure 5 fails.
        b_min_plotted, b_min_plotted_at: the same minimum over 0 .. 2L - 1, the range of the paper's figure 5.
        b_stride: 1 if every distance was looked at, n if every nth.
    """

    kind: ClassVar[str] = "theory_bounds"
    head_dim: int
    rope_theta: float
    window: int
    reach: int
    interpolation_printed: float
    interpolation: float
    interpolation_exact: float
    trivial: float
    factor: float
    fraction: float
    at_factor: float
    at_factor_exact: float
    extrapolation_lowest: float
    extrapolation_highest: float
    b_min: float
    b_min_at: int
    b_below_one: float
    b_min_plotted: float
    b_min_plotted_at: int
    b_stride: int = 1

    @property
    def denominator_printed(self) -> float:
        """32 ln c: the printed bound is d max|h_j| over this."""
        return self.head_dim / self.interpolation_printed

    @property
    def ratio_printed(self) -> float:
        """2 d over the printed interpolation bound: the paper's "about 600 times"."""
        return 2 * self.head_dim / self.interpolation_printed

    @property
    def ratio_corrected(self) -> float:
        """The same reading with the bound that holds."""
        return 2 * self.head_dim / self.interpolation

    @property
    def ratio_honest(self) -> float:
        """The trivial bound, which is smaller than 2 d, over the interpolation bound that holds."""
        return self.trivial / self.interpolation

    @property
    def holds(self) -> bool:
        """Whether theorem 2.1 as printed holds here: printed at least the exact supremum."""
        return self.interpolation_printed >= self.interpolation_exact


def bounds(rope: Rope, reach: int) -> Bounds:
    """All bounds of one model.

    Args:
        rope: the rotary embedding as pretrained.
        reach: the window to look at, tokens.

    Raises:
        UserError: a reach below 1 or past 16777216.
    """
    check_reach(reach)
    inv_freq, middle = rope.inv_freq(), np.array([0.5])
    # Every distance up to 262144; past that every nth, so that a window of millions still takes seconds.
    stride = max(1, math.ceil(reach / (1 << 18)))
    distances = np.arange(0, reach, stride)
    curve = abel_sum(inv_freq, distances) / rope.head_dim
    new = curve[distances >= rope.window] if reach > rope.window else curve
    fraction = _farthest_from_grid(reach / rope.window)
    plotted = abel_sum(inv_freq, np.arange(_plotted(rope))) / rope.head_dim
    return Bounds(
        head_dim=rope.head_dim,
        rope_theta=rope.rope_theta,
        window=rope.window,
        reach=reach,
        interpolation_printed=float(interpolation_bound_printed(rope, middle, 0.0, 1.0)[0]),
        interpolation=float(interpolation_bound(inv_freq, middle, 0.0, 1.0)[0]),
        interpolation_exact=float(interpolation_supremum(inv_freq, middle, 0.0, 1.0)[0]),
        trivial=trivial_bound(inv_freq),
        factor=reach / rope.window,
        fraction=fraction,
        at_factor=float(interpolation_bound(inv_freq, np.array([fraction]), 0.0, 1.0)[0]),
        at_factor_exact=float(interpolation_supremum(inv_freq, np.array([fraction]), 0.0, 1.0)[0]),
        extrapolation_lowest=2 * float(new.min()) * rope.head_dim,
        extrapolation_highest=2 * float(new.max()) * rope.head_dim,
        b_min=float(curve.min()),
        b_min_at=int(distances[curve.argmin()]),
        b_below_one=float((curve < 1).mean()),
        b_min_plotted=float(plotted.min()),
        b_min_plotted_at=int(plotted.argmin()),
        b_stride=stride,
    )


def _farthest_from_grid(factor: float) -> float:
    """Of the multiples k/factor, the fractional part nearest to 1/2.

    For a rational factor the parts repeat, else they fill the interval evenly; k up to 4096 is enough for both.
    """
    fractions = np.arange(1, 4097) / max(factor, 1.0) % 1.0
    return float(fractions[np.abs(fractions - 0.5).argmin()])


def _plotted(rope: Rope) -> int:
    """Distances in the paper's figure 5, twice the window; at most 262144."""
    return min(2 * rope.window, 1 << 18)


def check_reach(reach: int) -> None:
    """Raises UserError for a window below 1 or past `FARTHEST`, which no model has."""
    if not 1 <= reach <= FARTHEST:
        raise UserError(
            f"a window is between 1 and {FARTHEST} tokens, got {reach}; check --window and the config's max_position_embeddings"
        )


def _check_inside(s: Distances, s1: Distance, s2: Distance) -> None:
    if not s1 < s2:
        raise UserError(f"an interval has its start before its end, got {s1:g} and {s2:g}; swap them")
    if s.size and not (s.min() >= s1 and s.max() <= s2):
        raise UserError(
            f"interpolation bounds hold between {s1:g} and {s2:g}, got distances from {s.min():g} to {s.max():g}; "
            "use extrapolation_bound outside"
        )
