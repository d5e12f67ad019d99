"""Two perplexities over the same documents: their ratio, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

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

    Documents are the same by the hash of their text; by their name in records that have none. `same_documents` is False where one of them scored a document that the other did not: it is then of those alone that both did. `sampled` is True where a figure
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
        over = self.of_shared or f"paired over {counted(self.documents, 'document')}"
        if self.sampled:
            over = "from samples of windows"
        return f"{self.change}{self._bounds(f', {over}')}"

    @property
    def brief(self) -> str:
        """The same where it was said before what was paired."""
        return f"{self.change}{self._bounds(f', {self.of_shared}' if self.of_shared else '')}"

    @property
    def of_shared(self) -> str:
        """Of which documents it is, where that is not all that were read."""
        return "" if self.same_documents else f"over the {self._count} that both read"

    @property
    def _count(self) -> str:
        return "one document" if self.documents == 1 else f"{self.documents} documents"

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
    def is_rise(self) -> bool:
        """Whether the later one is surely higher; without an interval, whether it is higher."""
        return (self.low if number_format.is_finite(self.low) else self.value) > 1

    @property
    def change(self) -> str:
        return _change(self.value)

    def _bounds(self, pairing: str) -> str:
        write = number_format.times if _is_multiple(self.value) else lambda end: number_format.percent(end - 1)
        bounds = number_format.interval(self.low, self.high, write)
        known = f"95\u202f% interval {bounds}{pairing}" if bounds else ""
        if self.too_few:
            known = f"{self.of_shared or self._count}: no interval"
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
    """The ratio of two perplexity rows, over the documents that both read; None where that is no document, where either is not a positive number, or both scored a document with another number of tokens: it was cut at another place, or by another tokenizer.

    The interval is of each document's own difference: a hard book is hard for both models, and what they share says nothing
    about the difference.
    """
    if not (number_format.is_finite(before.perplexity) and number_format.is_finite(after.perplexity)):
        return None
    if before.estimate or after.estimate:
        return _of_samples(before, after)
    if (pair := both_read(before, after)) is None:
        return None
    first, second = _documents(before, after)
    shared = sorted(first.keys() & second.keys())
    if any(lengths(before, first[key][0]).isdisjoint(lengths(after, second[key][0])) for key in shared):
        return None
    known = Ratio(
        pair[1].perplexity / pair[0].perplexity, documents=len(shared), same_documents=has_same_documents(before, after)
    )
    if len(shared) < Perplexity.FEWEST:
        return known
    low, high = _interval(*(np.array([table[key] for key in shared]) for table in (first, second)))
    return replace(known, low=low, high=high)


def has_same_documents(before: Perplexity, after: Perplexity) -> bool:
    """Whether both scored the same documents, as far as that is on record."""
    if before.estimate or after.estimate:
        by_text = before.texts and after.texts
        same = (before.documents, before.data) == (after.documents, after.data)
        return before.texts == after.texts if by_text else same
    pair = both_read(before, after)
    return pair is not None and pair[0] is before and pair[1] is after


def both_read(before: Perplexity, after: Perplexity) -> tuple[Perplexity, Perplexity] | None:
    """Two rows as of the documents alone that both scored, then without intervals; as they are where these are all, or are not on record; None where there is none."""
    if not (number_format.is_finite(before.perplexity) and number_format.is_finite(after.perplexity)):
        return before, after
    first, second = _documents(before, after)
    if not (first and second) or first.keys() == second.keys():
        return before, after
    shared = first.keys() & second.keys()
    if not shared:
        return None
    return _of(before, [first[key] for key in shared]), _of(after, [second[key] for key in shared])


def _of(row: Perplexity, scored: Sequence[tuple[int, float]]) -> Perplexity:
    """A row of some of its documents: the tokens and the nll of each."""
    tokens = sum(count for count, _ in scored)
    value, unknown = math.exp(sum(nll for _, nll in scored) / tokens), math.nan
    return replace(row, perplexity=value, low=unknown, high=unknown, documents=len(scored), tokens=tokens)


def _documents(before: Perplexity, after: Perplexity) -> list[dict[str, tuple[int, float]]]:
    by_text = has_texts(before) and has_texts(after)
    return [documents(row, by_text=by_text) for row in (before, after)]


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


def _of_samples(before: Perplexity, after: Perplexity) -> Ratio | None:
    """Each estimate's own interval, put together as if they erred apart: windows that both drew make the ratio surer than that. None of other texts: what share of each figure is of those that both read is not on record."""
    if not has_same_documents(before, after):
        return None
    value = after.perplexity / before.perplexity
    ends = [(row.low, row.high) for row in (before, after) if row.estimate]
    if not all(
        number_format.is_finite(low) and number_format.is_finite(high) and 0 < low <= high for low, high in ends
    ):
        return Ratio(value)
    reach = math.exp(math.hypot(*(math.log(high / low) / 2 for low, high in ends)))
    return Ratio(value, value / reach, value * reach, before.documents, sampled=True)
