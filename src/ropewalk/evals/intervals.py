"""How sure a measured share is, and how sure a difference is when the same items were asked twice.

in   counts of right answers, or pairs of right/wrong on the same items, or values to resample
out  95 % intervals and a p-value

Two models that answer the same questions are paired: what decides is the items on which they differ, not two separate
shares. Comparing the two intervals instead would throw most of the power away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

#: Quantile of the standard normal for a two-sided 95 % interval.
Z95 = 1.959963984540054


def wilson(successes: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927); (0, 1) where nothing was tried.

    It stays within [0, 1] and keeps its coverage at 0 and 1, where the usual normal interval has width zero.
    """
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    centre = share + z * z / (2 * trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


@dataclass(frozen=True)
class Paired:
    """The four counts of the same items answered twice: right both times, lost, gained, wrong both times."""

    both: int
    lost: int
    gained: int
    neither: int

    @classmethod
    def of(cls, before: Sequence[bool], after: Sequence[bool]) -> Paired:
        """Count pairs; `before[i]` and `after[i]` are the same item."""
        first, second = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
        if first.shape != second.shape:
            raise ValueError(f"pairs need equal lengths, got {first.size} and {second.size}")
        return cls(
            int((first & second).sum()),
            int((first & ~second).sum()),
            int((~first & second).sum()),
            int((~first & ~second).sum()),
        )

    @property
    def items(self) -> int:
        return self.both + self.lost + self.gained + self.neither

    @property
    def difference(self) -> float:
        """Share right after minus share right before."""
        return (self.gained - self.lost) / self.items

    def p_value(self) -> float:
        """Exact two-sided McNemar test: were losses and gains equally likely?

        Under that hypothesis the number of losses among the n items that changed is Binomial(n, 1/2); the p-value
        doubles the smaller tail (McNemar 1947, the exact conditional form). 1 where no item changed.
        """
        changed, fewer = self.lost + self.gained, min(self.lost, self.gained)
        if changed == 0:
            return 1.0
        # Whole numbers, so that no tail underflows however many items changed.
        tail = sum(math.comb(changed, count) for count in range(fewer + 1))
        return min(1.0, 2 * tail / 2**changed)

    def interval(self, z: float = Z95) -> tuple[float, float]:
        """Interval of `difference`: Newcombe's score method for paired shares.

        Newcombe 1998, Statistics in Medicine 17, 2635, method 10: Wilson's intervals of the two shares, put together
        with the correlation phi of the pairs, which is shrunk by n/2 in its numerator where it is positive.
        """
        n = self.items
        right_before, right_after = self.both + self.lost, self.both + self.gained
        before, after = right_before / n, right_after / n
        low_before, high_before = wilson(right_before, n, z)
        low_after, high_after = wilson(right_after, n, z)
        product = right_before * (n - right_before) * right_after * (n - right_after)
        association = self.both * self.neither - self.lost * self.gained
        if association > 0:
            association = max(association - n / 2, 0)
        phi = association / math.sqrt(product) if product else 0.0

        def reach(one: float, other: float) -> float:
            return math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))

        low = self.difference - reach(after - low_after, high_before - before)
        high = self.difference + reach(high_after - after, before - low_before)
        return max(-1.0, low), min(1.0, high)


def reach_interval(
    distances: Sequence[int],
    successes: Sequence[int],
    trials: Sequence[int],
    *,
    threshold: float,
    draws: int = 4000,
    seed: int = 0,
) -> tuple[int, int]:
    """A 95 % interval of how far successes reach unbroken: of k_max, in the unit of `distances` (ascending).

    Each distance's chance of success is drawn from what its trials leave open (Jeffreys' Beta(s + 1/2, t - s + 1/2)), the
    reach is worked out for each draw, and the middle 95 % are kept, with the reach that was found. Every distance at one end
    of its own interval would be no use: 0 of 10 alone is still compatible with 20 %, thirty times 0 of 10 is not.
    """
    right, tried = np.asarray(successes), np.asarray(trials)
    chance = np.random.default_rng(seed).beta(right + 0.5, tried - right + 0.5, size=(draws, right.size))
    ends = np.array([0, *distances])
    unbroken = (chance >= threshold).cumprod(axis=1).sum(axis=1)
    low, high = np.quantile(ends[unbroken], [0.025, 0.975], method="nearest")
    found = ends[(right / tried >= threshold).cumprod().sum()]
    return int(min(low, found)), int(max(high, found))


def bootstrap_mean(values: Float[np.ndarray, " items"], *, resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval (95 %) of a mean over items. NaN where there is one item: it says nothing of others."""
    values = np.asarray(values, dtype=np.float64)
    if values.size < 2:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(0, values.size, size=(resamples, values.size))
    low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def bootstrap_ratio(
    sums: Float[np.ndarray, " items"], weights: Float[np.ndarray, " items"], *, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval (95 %) of sum(sums) / sum(weights) over items: a mean per token, over documents.

    Documents are drawn whole, as their tokens are not independent. NaN where there is one item: it says nothing of others.
    """
    sums, weights = np.asarray(sums, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    if sums.size < 2:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(0, sums.size, size=(resamples, sums.size))
    low, high = np.quantile(sums[drawn].sum(axis=1) / weights[drawn].sum(axis=1), [0.025, 0.975])
    return float(low), float(high)
