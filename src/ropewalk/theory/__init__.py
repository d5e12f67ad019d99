"""What Position Interpolation's paper proves about attention scores, as printed and as it holds, in numpy and float64.

in   frequencies (radians a token) from `rope`, a window, a scaling
out  bounds on scores, the curves of figures 2 and 5, and what each scaling costs in angular resolution

Chen et al. 2023 (arXiv 2306.15595, section 2) write the score of a query q and a key k at distance s = m - n as

    a(s) = Re sum_j h_j exp(i s theta_j),   h_j = (q_2j + i q_2j+1)(k_2j - i k_2j+1),   j = 0 .. d/2 - 1

and bound how far it strays between two known points (interpolation) and how large it gets elsewhere (extrapolation). The
first theorem is false as printed; docs/method.md derives what is true. Reading order: bounds, growth, resolution.
"""

from ropewalk.theory.bounds import (
    Bounds,
    abel_bound,
    abel_sum,
    bounds,
    chord_gap,
    extrapolation_bound,
    interpolation_bound,
    interpolation_bound_printed,
    interpolation_supremum,
    partial_sums,
    score,
    sum_of_squares,
    sum_of_squares_printed,
    trivial_bound,
    worst_coefficients,
)
from ropewalk.theory.growth import SOLVERS, Growth, check_size, features, fit, growth
from ropewalk.theory.resolution import BANDS, Band, Resolution, bands, mean_angle, resolution, scalings_for

__all__ = [
    "BANDS",
    "SOLVERS",
    "Band",
    "Bounds",
    "Growth",
    "Resolution",
    "abel_bound",
    "abel_sum",
    "bands",
    "bounds",
    "check_size",
    "chord_gap",
    "extrapolation_bound",
    "features",
    "fit",
    "growth",
    "interpolation_bound",
    "interpolation_bound_printed",
    "interpolation_supremum",
    "mean_angle",
    "partial_sums",
    "resolution",
    "scalings_for",
    "score",
    "sum_of_squares",
    "sum_of_squares_printed",
    "trivial_bound",
    "worst_coefficients",
]
