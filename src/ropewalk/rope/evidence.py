"""What was measured of a method, in a sentence, for whoever is about to choose it.

in   evidence.json, which `make results` writes from the lab's records
out  a sentence
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

from ropewalk.sentences import share

#: 2^20 training tokens.
_MILLION = 2**20


@functools.cache
def _measured() -> dict[str, Any]:
    return json.loads(resources.files("ropewalk.rope").joinpath("evidence.json").read_text(encoding="utf-8"))


def evidence(method: str) -> str:
    """What a method did to the one real model that it was measured on; empty for a method that was not."""
    measured = _measured()
    budgets = sorted((int(tokens), figures) for tokens, figures in measured["methods"].get(method, {}).items())
    if not budgets:
        return ""
    window, factor = measured["window"], measured["factor"]
    by_budget = "; ".join(
        f"{_budget(tokens)} {figures['damage']:+.2f} nats in the old window, {passkeys(figures)} of passkeys in the new one"
        for tokens, figures in budgets
    )
    return (
        f"measured on {measured['model']}, {window} to {window * factor} tokens: {by_budget} (docs/results.md has the other methods; one seed where "
        "no more are said, and for a larger model an extrapolation)"
    )


@dataclass(frozen=True)
class Trained:
    """The longest training of a method on record: in `tokens` of `window` each, with what share of passkeys `found` in the end."""

    model: str
    tokens: int
    original_window: int
    window: int
    found: str

    def __str__(self) -> str:
        return f"{self.model}, {self.original_window} to {self.window} tokens, after {self.tokens / _MILLION:g}M training tokens: {self.found} of passkeys"


def most_trained(method: str) -> Trained:
    """The most training tokens that a method was measured after, on the one real model of the record."""
    measured = _measured()
    tokens, figures = max((int(tokens), figures) for tokens, figures in measured["methods"][method].items())
    window = measured["window"]
    return Trained(measured["model"], tokens, window, window * measured["factor"], passkeys(figures))


def passkeys(figures: dict[str, float]) -> str:
    """The share of keys found: the mean over seeds, and the least and the largest seed where they differ."""
    mean, least, most = (share(figures[name]) for name in ("passkeys", "least", "most"))
    seeds = int(figures["seeds"])
    if seeds == 1:
        return mean
    return f"{mean} ({seeds} seeds)" if least == most else f"{mean} ({seeds} seeds, by seed from {least} to {most})"


def choice(asked: str, method: str) -> str:
    """The method that a command took, and whether it was asked for by name.

    Args:
        asked: the word of `--method`. method: what it came to.
    """
    if asked == method or method == "linear":
        return method
    rule = "of those that find most of the passkeys it loses least in the old window; " if method == "yarn" else ""
    return f"{method}, which {asked} takes here ({rule}the paper's Position Interpolation is --method linear)"


def _budget(tokens: int) -> str:
    return f"after {tokens / _MILLION:g}M training tokens" if tokens else "untrained"
