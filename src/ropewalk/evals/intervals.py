"""How sure a measured share is, and how sure a difference is when the same items were asked twice.

in   counts of right answers, or pairs of right/wrong on the same items, or figures of documents
out  95 % intervals and a p-value

Two models that answer the same questions are paired: what decides is the items on which they differ, not two separate
shares. Comparing the two intervals instead would throw most of the power away.

`scipy.stats` takes over half a second to import, so each function that needs it imports it: the page and `--help` import
this module too.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Real

from ropewalk.records import Perplexity


def exp(nats: float) -> float:
    """exp, infinite where `math.exp` would overflow: a broken model's perplexity is a number too."""
    return math.inf if nats > 700 else math.exp(nats)


def perplexity_interval(low: float, high: float) -> tuple[float, float]:
    """The ends of a perplexity's interval, from those of the loss in nats a token; no perplexity is below 1. NaN stays NaN."""
    return exp(max(low, 0.0)), exp(high)


def share_interval(total: float, count: float, tail: float = 0.025) -> tuple[float, float]:
    """The exact interval of a share (Clopper & Pearson 1934), 95 % unless told otherwise; (0, 1) where nothing was tried.

    It covers at least as often as it says whatever the share and however few were tried, which score intervals do not: Wilson's of one trial
    covers a share of 0.8 in 80 % of cases. Trials may differ in their chances, and scores may lie between 0 and 1: both scatter less
    than equal trials of the same mean do (Hoeffding 1956), so the interval is then wider than it need be.

    Args:
        total: successes, or the sum of scores between 0 and 1.
        count: of trials; not whole where it is an effective one.
        tail: the chance of error to either side.
    """
    from scipy.special import betaincinv

    low = float(betaincinv(total, count - total + 1, tail)) if total > 0 else 0.0
    high = float(betaincinv(total + 1, count - total, 1 - tail)) if total < count else 1.0
    return low, high


def scores_interval(scores: Float[np.ndarray, " items"]) -> tuple[float, float]:
    """95 % interval of the mean of scores between 0 and 1: Student's; where all are alike, which tells nothing of their scatter, as of shares. NaN below two."""
    if scores.size > 1 and np.ptp(scores) == 0:
        return share_interval(float(scores.sum()), scores.size)
    low, high = documents_interval(scores, np.ones(scores.size))
    return float(np.clip(low, 0, 1)), float(np.clip(high, 0, 1))  # which leave NaN as it is


def over_seeds(seeds: Sequence[Sequence[Any]]) -> tuple[float, float, float]:
    """The mean over seeds, and its 95 % interval: for other documents or prompts, and for other seeds; of one seed what it has.

    Seeds are measured on the same documents and prompts, so that these err alike in all of them: of them the mean of the seeds' own intervals is
    left, however many the seeds are. Between seeds it is Student's. The two are put together by MOVER (Zou & Donner 2008), which covers at
    least 95 % whichever is the larger; one scatter with Satterthwaite's degrees of freedom would cover 89 % at two seeds.

    Args:
        seeds: of each its figure and the ends of its interval; NaN where it has none, which leaves the mean without one. Of a difference of two methods
            a row a seed of the one, and in it such three a seed of the other: between seeds each then scatters by itself.
    """
    figures = np.array(seeds, dtype=np.float64)
    mean, low, high = figures.reshape(-1, 3).mean(axis=0)
    values = figures[..., 0]
    axes = range(values.ndim)
    reach = math.hypot(
        *(_student_reach(values.mean(axis=tuple(other for other in axes if other != axis))) for axis in axes)
    )
    return float(mean), float(mean - math.hypot(mean - low, reach)), float(mean + math.hypot(high - mean, reach))


def perplexity_over_seeds(seeds: Sequence[Sequence[Any]]) -> tuple[float, float, float]:
    """The same of perplexities, on the scale of losses, as their changes are: the exponential of the mean loss. Never below 1, as no perplexity is.

    Args:
        seeds: of each its perplexity and the ends of its interval; NaN where it has none.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # an end at 0 or below leaves that side open
        mean, low, high = np.exp(over_seeds(np.log(np.array(seeds, dtype=np.float64)).tolist()))
    return float(mean), float(np.maximum(low, 1.0)), float(high)


def share_over_seeds(seeds: Sequence[Sequence[Any]]) -> tuple[float, float, float]:
    """The same of shares, with no end beyond 0 and 1."""
    mean, low, high = over_seeds(seeds)
    return mean, max(low, 0.0), min(high, 1.0)


def _student_reach(values: Float[np.ndarray, " seeds"]) -> float:
    """Of the 95 % interval of a mean; 0 of one value, which tells nothing of scatter."""
    return student_t95(values.size - 1) * float(values.std(ddof=1)) / math.sqrt(values.size) if values.size > 1 else 0.0


@functools.lru_cache(maxsize=1024)
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
        """95 % interval of `difference`, from the exact intervals of the share that was gained and of the share that was lost.

        They are put together by MOVER (Zou & Donner 2008) with the correlation of two cells of a multinomial, of which half a count more is
        assumed in each: where nothing was seen to change, what can have changed went one way or the other. It covers at
        least 95 % however few the items are and whatever their chances, which Newcombe's score method (1998) does not: 50 % at two items.
        """
        gained, lost = self.gained / self.items, self.lost / self.items
        least_gained, most_gained = share_interval(self.gained, self.items)
        least_lost, most_lost = share_interval(self.lost, self.items)
        odds = [(count + 0.5) / (self.items - count + 0.5) for count in (self.gained, self.lost)]
        correlation = -min(1.0, math.sqrt(odds[0] * odds[1]))

        def reach(step: float, other_step: float) -> float:
            return math.sqrt(step * step - 2 * correlation * step * other_step + other_step * other_step)

        low = self.difference - reach(gained - least_gained, most_lost - lost)
        high = self.difference + reach(most_gained - gained, lost - least_lost)
        return max(-1.0, low), min(1.0, high)


def documents_interval(
    totals: Real[np.ndarray, " documents"], weights: Real[np.ndarray, " documents"]
) -> tuple[float, float]:
    """95 % interval of sum(totals) / sum(weights), for other documents of the same kind: a mean per token, or with weights of 1 a mean.

    Student's t, with documents as the units, since the tokens of one are not independent. Each residual is divided by one less its share of
    the weight (HC2, MacKinnon & White 1985), the variance is scaled to be unbiased where all documents scatter alike, and the degrees of freedom are
    Satterthwaite's (Bell & McCaffrey 2002): a few long documents count as the few that they are. With equal weights it is the
    textbook's interval, n - 1 degrees of freedom. NaN below two documents: one says nothing about others.
    """
    totals, weights = np.asarray(totals, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    if totals.size < 2:
        return math.nan, math.nan
    share = weights / weights.sum()
    with np.errstate(over="ignore", invalid="ignore"):  # a broken model's nll may be beyond every float: then NaN
        mean = totals.sum() / weights.sum()
        residuals = totals / weights - mean
        scale = share**2 / (1 - share)
        # The variance is y' G y, y the documents' means, G = (I - 1 share')' diag(scale) (I - 1 share').
        traces = _traces(share, scale)
        variance = float(scale @ residuals**2) * float(share @ share) / traces[0]
        reach = student_t95(traces[0] ** 2 / traces[1]) * math.sqrt(variance)
    return float(mean) - reach, float(mean) + reach


def lacking(row: Perplexity) -> str:
    """What there was too little of where a row has no interval, and of documents how many would do."""
    if row.estimate:
        return row.lacking
    needed = documents_needed(row.low, row.high, row.documents, times=row.OPEN)
    fewest = f"{row.FEWEST} are the fewest" * (row.documents < row.FEWEST)
    enough = f"about {needed} would do" if needed is not None and (needed > row.FEWEST or not fewest) else ""
    return "; ".join(filter(None, (row.lacking, ", ".join(filter(None, (fewest, enough))))))


def documents_needed(low: float, high: float, documents: int, *, times: float) -> int | None:
    """How many documents would bring the upper end of an interval of a perplexity to less than `times` the lower one, if others scatter as these do.

    Half the width of log perplexity is Student's quantile times a scatter over the root of the documents. None where there is no such interval.
    """
    if documents < 2 or not 0 < low < high < math.inf:
        return None
    scatter = math.log(high / low) / 2 * math.sqrt(documents) / student_t95(documents - 1)
    enough = documents
    while student_t95(enough - 1) * scatter / math.sqrt(enough) >= math.log(times) / 2:
        enough += max(1, enough // 50)
    return enough


def _traces(share: Float[np.ndarray, " documents"], scale: Float[np.ndarray, " documents"]) -> tuple[float, float]:
    """tr G and tr G² of `documents_interval`, without forming G."""
    total, shares, cross, scales = scale.sum(), share @ share, share @ scale, scale @ scale
    trace = total - 2 * cross + total * shares
    square = scales - 4 * (share @ scale**2) + 2 * total * (scale @ share**2)
    square += 2 * shares * scales + 2 * cross**2 - 4 * total * cross * shares + (total * shares) ** 2
    return float(trace), float(square)
