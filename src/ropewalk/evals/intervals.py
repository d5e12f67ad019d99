"""How sure a measured share is, and how sure a difference is when the same items were asked twice.

in   counts of right answers, or pairs of right/wrong on the same items, or values to resample
out  95 % intervals and a p-value

Two models that answer the same questions are paired: what decides is the items on which they differ, not two separate
shares. Comparing the two intervals instead would throw most of the power away.

`scipy.stats` takes over half a second to import, so each function that needs it imports it: the page and `--help` import
this module too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Real


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share (Wilson 1927); (0, 1) where nothing was tried.

    It stays within [0, 1] and keeps its coverage at 0 and 1, where the usual normal interval has width zero.
    """
    if trials == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest

    low, high = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    return float(low), float(high)


def student_t95(degrees: float) -> float:
    """The 97.5 % quantile of Student's t: how many standard errors a two-sided 95 % interval reaches to either side.

    Args:
        degrees: of freedom; need not be whole, and may be infinite (then 1.96, as of a normal distribution).
    """
    from scipy.stats import t

    return float(t.ppf(0.975, degrees))


@dataclass(frozen=True)
class Paired:
    """The four counts of the same items answered twice: right both times, lost, gained, wrong both times."""

    both: int
    lost: int
    gained: int
    neither: int

    @classmethod
    def of(cls, before: Sequence[bool], after: Sequence[bool]) -> Paired:
        """Count pairs; `before[i]` and `after[i]` are verdicts on the same item."""
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

        Under that hypothesis the number of losses among the n items that changed is Binomial(n, 1/2) (McNemar 1947, the
        exact conditional form). 1 where no item changed.
        """
        if self.lost + self.gained == 0:
            return 1.0
        from scipy.stats import binomtest

        return float(binomtest(self.lost, self.lost + self.gained, 0.5).pvalue)

    def interval(self) -> tuple[float, float]:
        """95 % interval of `difference`: Newcombe's score method for paired shares.

        Newcombe 1998, Statistics in Medicine 17, 2635, method 10: Wilson's intervals of the two shares, put together
        with the correlation phi of the pairs, which is shrunk by n/2 in its numerator where it is positive.
        """
        n, phi = self.items, self._phi()
        before, after = (self.both + self.lost) / n, (self.both + self.gained) / n
        low_before, high_before = wilson(self.both + self.lost, n)
        low_after, high_after = wilson(self.both + self.gained, n)

        def reach(step: float, other_step: float) -> float:
            return math.sqrt(max(0.0, step * step - 2 * phi * step * other_step + other_step * other_step))

        low = self.difference - reach(after - low_after, high_before - before)
        high = self.difference + reach(high_after - after, before - low_before)
        return max(-1.0, low), min(1.0, high)

    def _phi(self) -> float:
        """The correlation of before and after over items, with Newcombe's correction for continuity; 0 if undefined."""
        n, right_before, right_after = self.items, self.both + self.lost, self.both + self.gained
        product = right_before * (n - right_before) * right_after * (n - right_after)
        association = self.both * self.neither - self.lost * self.gained
        if association > 0:
            association = max(association - n / 2, 0)
        return association / math.sqrt(product) if product else 0.0


def reach_interval(
    distances: Sequence[int],
    successes: Sequence[int],
    trials: Sequence[int],
    *,
    threshold: float,
    draws: int = 4000,
    seed: int = 0,
) -> tuple[int, int]:
    """A 95 % interval of how far successes reach without a gap: of k_max, in the unit of `distances` (ascending).

    Each distance's chance of success is drawn from its posterior (Jeffreys' Beta(s + 1/2, t - s + 1/2) for s successes in t
    trials), the reach is worked out for each draw, and the middle 95 % are kept, widened to include the observed reach.
    Setting every distance to one end of its own interval would be no use: 0 of 10 alone is still compatible with 20 %,
    thirty times 0 of 10 is not.
    """
    right, tried = np.asarray(successes), np.asarray(trials)
    chance = np.random.default_rng(seed).beta(right + 0.5, tried - right + 0.5, size=(draws, right.size))
    ends = np.array([0, *distances])
    unbroken = (chance >= threshold).cumprod(axis=1).sum(axis=1)
    low, high = np.quantile(ends[unbroken], [0.025, 0.975], method="nearest")
    observed = ends[(right / tried >= threshold).cumprod().sum()]
    return int(min(low, observed)), int(max(high, observed))


def bootstrap_mean(values: Real[np.ndarray, " items"], *, resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval (95 %) of a mean over items. NaN where there is one item: it says nothing about others."""
    values = np.asarray(values, dtype=np.float64)
    if values.size < 2:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(0, values.size, size=(resamples, values.size))
    low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def bootstrap_ratio(
    totals: Real[np.ndarray, " items"], weights: Real[np.ndarray, " items"], *, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval (95 %) of sum(totals) / sum(weights) over items: a mean per token, over documents.

    Documents are drawn whole, as their tokens are not independent. NaN where there is one item: it says nothing about others.
    """
    totals, weights = np.asarray(totals, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    if totals.size < 2:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(0, totals.size, size=(resamples, totals.size))
    low, high = np.quantile(totals[drawn].sum(axis=1) / weights[drawn].sum(axis=1), [0.025, 0.975])
    return float(low), float(high)
