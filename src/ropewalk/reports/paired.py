"""Two perplexities over the same documents: their ratio, and how sure it is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ropewalk.records import format as number_format

_RESAMPLES, _FEWEST = 2000, 3  # below three documents a bootstrap over documents says nothing


@dataclass(frozen=True)
class Ratio:
    """after / before, with the paired bootstrap interval over documents (NaN where they cannot be paired).

    `same_text` is False where both scored a document of the same name with another number of tokens: another tokenizer, or
    another text. `same_documents` is False where one of them scored a document that the other did not. `sampled` is True where a figure
    was estimated from a sample of windows: the interval then says how far the exact ratio on these documents may lie.
    """

    value: float
    low: float = float("nan")
    high: float = float("nan")
    documents: int = 0
    same_text: bool = True
    same_documents: bool = True
    sampled: bool = False

    def __str__(self) -> str:
        over = "from samples of windows" if self.sampled else f"paired over {self.documents} documents"
        return f"{self.change}{self._bounds(f', {over}')}"

    @property
    def brief(self) -> str:
        """The same where it was said before what was paired."""
        return f"{self.change}{self._bounds('')}"

    @property
    def change(self) -> str:
        return number_format.percent(self.value - 1) if self.value < 3 else number_format.times(self.value)

    def _bounds(self, pairing: str) -> str:
        bounds = number_format.interval(self.low - 1, self.high - 1, number_format.percent)
        return f" (95\u202f% interval {bounds}{pairing})" if bounds and self.value < 3 else ""


def ratio(before: dict[str, Any], after: dict[str, Any], seed: int = 0) -> Ratio | None:
    """The ratio of two perplexity rows; None where either is not a positive number.

    Documents are resampled together: a hard book is hard for both models, and what they share says nothing about the
    difference.
    """
    first, second = before["perplexity"], after["perplexity"]
    if not (number_format.is_finite(first) and number_format.is_finite(second) and first > 0 and second > 0):
        return None
    if before.get("estimate") or after.get("estimate"):
        return _of_samples(before, after)
    one, other = _documents(before), _documents(after)
    shared = sorted(one.keys() & other.keys())
    if not shared:
        return Ratio(second / first, same_documents=not (one and other))
    if before["window"] == after["window"] and any(one[name][0] != other[name][0] for name in shared):
        return Ratio(second / first, same_text=False)
    if len(shared) != len(one) or len(shared) != len(other):
        return Ratio(second / first, same_documents=False)
    if len(shared) < _FEWEST:
        return Ratio(second / first)
    # nll of both models and tokens of both, [document, 4]
    table = np.array([[one[n][1], one[n][0], other[n][1], other[n][0]] for n in shared])
    drawn = np.random.default_rng(seed).integers(0, len(shared), size=(_RESAMPLES, len(shared)))
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # a broken model's nll may be beyond every float: then no interval
        sums = table[drawn].sum(axis=1)
        difference = sums[:, 2] / sums[:, 3] - sums[:, 0] / sums[:, 1]
        low, high = np.exp(np.quantile(difference, [0.025, 0.975]))
    return Ratio(second / first, float(low), float(high), len(shared))


def _of_samples(before: dict[str, Any], after: dict[str, Any]) -> Ratio:
    """Each estimate's own interval, put together as if they erred apart: windows that both drew make the ratio surer than that."""
    value = after["perplexity"] / before["perplexity"]
    if (before["documents"], before.get("data")) != (after["documents"], after.get("data")):
        return Ratio(value, same_documents=False)
    ends = [(row["low"], row["high"]) for row in (before, after) if row.get("estimate")]
    if not all(
        number_format.is_finite(low) and number_format.is_finite(high) and 0 < low <= high for low, high in ends
    ):
        return Ratio(value)
    reach = math.exp(math.hypot(*(math.log(high / low) / 2 for low, high in ends)))
    return Ratio(value, value / reach, value * reach, before["documents"], sampled=True)


def _documents(row: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """name → (tokens, nll) of the documents that have both."""
    found = {}
    for item in row["per_document"]:
        if (
            isinstance(item, dict)
            and number_format.is_finite(item.get("tokens"))
            and number_format.is_finite(item.get("nll"))
        ):
            if item["tokens"] > 0:
                found[str(item.get("name", ""))] = (item["tokens"], item["nll"])
    return dict(zip(_without_place(list(found)), found.values(), strict=True))


def _without_place(names: list[str]) -> list[str]:
    """Names without the directories that all of them have in common: the same files may lie elsewhere for another run."""
    parts = [name.split("/") for name in names]
    shared = 0
    while parts and all(len(part) > shared + 1 and part[shared] == parts[0][shared] for part in parts):
        shared += 1
    return ["/".join(part[shared:]) for part in parts]
