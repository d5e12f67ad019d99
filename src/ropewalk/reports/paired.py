"""Two perplexities over the same documents: their ratio, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ropewalk.evals.intervals import documents_interval, over_seeds
from ropewalk.records import Perplexity
from ropewalk.records import format as number_format
from ropewalk.records.variant import Variant
from ropewalk.reports.same_tokens import documents, has_texts, lengths
from ropewalk.reports.seeds import spread
from ropewalk.sentences import counted

#: A figure with the ends of its 95 % interval.
Bounded = tuple[float, float, float]


@dataclass(frozen=True)
class Ratio:
    """after / before, with the paired interval over documents, Student's (NaN below three `documents`, or where they cannot be paired).

    Documents are the same by the hash of their text; by their name in records that have none. `same_documents` is False where one of them scored a document that the other did not. `sampled` is True where a figure
    was estimated from a sample of windows: the interval then says how far the exact ratio on these documents may lie. `of_seeds` are the values of several seeds
    whose mean it is (`over`), of as many as `seeds`.
    """

    value: float
    low: float = float("nan")
    high: float = float("nan")
    documents: int = 0
    same_documents: bool = True
    sampled: bool = False
    of_seeds: tuple[float, ...] = ()
    seeds: int = 1

    def __str__(self) -> str:
        over = "from samples of windows" if self.sampled else f"paired over {counted(self.documents, 'document')}"
        return f"{self.change}{self._bounds(f', {over}')}"

    @property
    def brief(self) -> str:
        """The same where it was said before what was paired."""
        return f"{self.change}{self._bounds('')}"

    @property
    def nats(self) -> Bounded:
        """As a difference of losses a token, with the ends of its interval."""
        low, high = (
            math.log(end) if number_format.is_finite(end) and end > 0 else math.nan for end in (self.low, self.high)
        )
        return math.log(self.value), low, high

    @property
    def too_few(self) -> bool:
        """Whether it was paired over too few documents for an interval."""
        return 0 < self.documents < Perplexity.FEWEST and not self.sampled

    @property
    def change(self) -> str:
        return _change(self.value)

    def _bounds(self, pairing: str) -> str:
        write = number_format.times if _is_multiple(self.value) else lambda end: number_format.percent(end - 1)
        bounds = number_format.interval(self.low, self.high, write)
        known = f"95\u202f% interval {bounds}{pairing}" if bounds else ""
        if self.too_few:
            known = f"{'one document' if self.documents == 1 else f'{self.documents} documents'}: no interval"
        parts = filter(None, [known, spread(self.of_seeds, _change, self.seeds) if self.of_seeds else ""])
        brackets = "; ".join(parts)
        return f" ({brackets})" if brackets else ""


def _is_multiple(value: float) -> bool:
    """Whether a ratio is told as a multiple, its interval too, and not in percent."""
    return value >= 3


def _change(value: float) -> str:
    return number_format.times(value) if _is_multiple(value) else number_format.percent(value - 1)


def over(ratios: Sequence[Ratio | None]) -> Ratio | None:
    """The mean of the ratios of several seeds of one training, as losses, with its interval for other documents and other seeds; of one seed its own. A seed may have none."""
    known = [each for each in ratios if each is not None]
    if len(ratios) < 2 or not known:
        return known[0] if known else None
    value, low, high = map(math.exp, over_seeds([each.nats for each in known]))
    return Ratio(
        value,
        low,
        high,
        documents=min(each.documents for each in known),
        same_documents=all(each.same_documents for each in known),
        sampled=any(each.sampled for each in known),
        of_seeds=tuple(each.value for each in known),
        seeds=len(ratios),
    )


def ratio(before: Perplexity, after: Perplexity) -> Ratio | None:
    """The ratio of two perplexity rows; None where either is not a positive number, or both scored a document with another number of tokens: it was cut at another place, or by another tokenizer.

    The interval is of each document's own difference: a hard book is hard for both models, and what they share says nothing
    about the difference.
    """
    if not (number_format.is_finite(before.perplexity) and number_format.is_finite(after.perplexity)):
        return None
    if before.estimate or after.estimate:
        return _of_samples(before, after)
    value = after.perplexity / before.perplexity
    by_text = has_texts(before) and has_texts(after)
    first, second = documents(before, by_text=by_text), documents(after, by_text=by_text)
    shared = sorted(first.keys() & second.keys())
    if not shared:
        return Ratio(value, same_documents=not (first and second))
    if any(lengths(before, first[key][0]).isdisjoint(lengths(after, second[key][0])) for key in shared):
        return None
    if len(shared) != len(first) or len(shared) != len(second):
        return Ratio(value, same_documents=False)
    if len(shared) < Perplexity.FEWEST:
        return Ratio(value, documents=len(shared))
    low, high = _interval(*(np.array([table[key] for key in shared]) for table in (first, second)))
    return Ratio(value, low, high, len(shared))


def loss_difference(before: Perplexity, after: Perplexity) -> Bounded | None:
    """after minus before, nats a token; None where the two did not read the same documents."""
    change = ratio(before, after)
    return change.nats if change and change.same_documents else None


def between(
    mine: Sequence[Variant], theirs: Sequence[Variant], difference: Callable[[Variant, Variant], Bounded | None]
) -> Bounded | None:
    """The difference of two methods over their seeds: seed by seed over those of `common_seeds`, else of every two; None without a seed, or where two have no difference."""
    by_seed = common_seeds(mine, theirs)
    partners = {other.recipe.seed: [other] for other in theirs}
    ones = [one for one in mine if one.recipe.seed in by_seed] if by_seed else mine
    grid = [[difference(one, other) for other in (partners[one.recipe.seed] if by_seed else theirs)] for one in ones]
    return over_seeds(grid) if mine and theirs and not any(None in line for line in grid) else None


def common_seeds(mine: Sequence[Variant], theirs: Sequence[Variant]) -> list[int]:
    """The seeds that both have, where two methods are paired by them: two at least, or the only one of both. Of one alone among several nothing would tell how seeds scatter."""
    first, second = ([variant.recipe.seed for variant in each] for each in (mine, theirs))
    once = len({*first}) == len(first) and len({*second}) == len(second)
    common = sorted(seed for seed in first if seed is not None and seed in second) if once else []
    return common if len(common) > 1 or len(first) == len(second) == 1 else []


def alone(mine: Sequence[Variant], theirs: Sequence[Variant]) -> str:
    """What is said of a difference that is not of all seeds of both: which ones it is of."""
    common = common_seeds(mine, theirs)
    return only(common) if common and len(common) < max(len(mine), len(theirs)) else ""


def only(seeds: Sequence[int | None]) -> str:
    """That a figure is of these seeds and no others, in words."""
    return f"of seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))} alone"


def asked_apart(before: Bounded, after: Bounded) -> Bounded:
    """after minus before, of two figures that share no item on record: MOVER (Zou & Donner 2008), which is never too sure where they do."""
    (value, low, high), (other, other_low, other_high) = before, after
    difference = other - value
    return (
        difference,
        difference - math.hypot(other - other_low, high - value),
        difference + math.hypot(other_high - other, value - low),
    )


def told(figure: Bounded) -> str:
    """A difference in nats, in words."""
    bounds = number_format.interval(*figure[1:], number_format.signed)
    return number_format.signed(figure[0]) + (f" (95\u202f% interval {bounds})" if bounds else "")


def _interval(before: Float[np.ndarray, "documents 2"], after: Float[np.ndarray, "documents 2"]) -> tuple[float, float]:
    """The 95 % interval of exp of the difference of token-weighted mean nll; a column of tokens and one of nll."""
    # A broken model's nll may be beyond every float: then there is no interval.
    with np.errstate(over="ignore", invalid="ignore"):
        (share, nll), (other_share, other_nll) = (table.T / table[:, 0].sum() for table in (before, after))
        weight, mean, other_mean = (share + other_share) / 2, nll.sum(), other_nll.sum()
        # What a document adds to the difference, the small difference of its two shares of the tokens included.
        added = other_nll - other_mean * (other_share - weight) - (nll - mean * (share - weight))
        low, high = np.exp(documents_interval(added, weight))
    return float(low), float(high)


def _of_samples(before: Perplexity, after: Perplexity) -> Ratio:
    """Each estimate's own interval, put together as if they erred apart: windows that both drew make the ratio surer than that."""
    value = after.perplexity / before.perplexity
    by_text = before.texts and after.texts
    if (
        by_text
        and before.texts != after.texts
        or (before.documents, before.data) != (after.documents, after.data)
        and not by_text
    ):
        return Ratio(value, same_documents=False)
    ends = [(row.low, row.high) for row in (before, after) if row.estimate]
    if not all(
        number_format.is_finite(low) and number_format.is_finite(high) and 0 < low <= high for low, high in ends
    ):
        return Ratio(value)
    reach = math.exp(math.hypot(*(math.log(high / low) / 2 for low, high in ends)))
    return Ratio(value, value / reach, value * reach, before.documents, sampled=True)
