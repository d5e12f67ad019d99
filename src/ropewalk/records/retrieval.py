"""Rows of the passkey and of the harder retrieval set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypedDict

from ropewalk.records.paper import PASSKEY_THRESHOLD
from ropewalk.records.rows import Alone, Count, Share, Tokens, Whole, check_successes

#: Of a key.
KEY_DIGITS = 5
#: The share of digits that are right by chance.
CHANCE = 0.1
#: What a wrong digit may be, where more are right than by chance.
FIRST_DIGIT = "a wrong first digit is a guess of how the answer begins, not a lost key"
#: What is said once where shares of digits stand beside those of keys.
ABOUT_DIGITS = (
    "A key is found where all its five digits are right. Digits count singly, each asked after the true ones before it; 10\u202f% are right by chance. "
    f"Where many digits are right and few keys, keys were read and not named: {FIRST_DIGIT} (which digit was wrong is not on record)."
)


def k_max(rates: Sequence[tuple[int, float]]) -> int:
    """The largest k such that every k' <= k has a success rate of at least 20 %; 0 if there is none.

    Args:
        rates: (k, success rate), in any order.
    """
    reached = 0
    for k, rate in sorted(rates):
        if rate < PASSKEY_THRESHOLD:
            break
        reached = k
    return reached


@dataclass(frozen=True)
class Passkey:
    """One depth of the passkey test: of `trials` prompts of `window` tokens with the key `k` tokens before the end."""

    kind: ClassVar[str] = "passkey"
    window: Tokens
    k: Whole
    trials: Count
    successes: Whole
    #: Tokens of the keys that were right: digits, where the tokenizer gives each a token of its own.
    digits_right: Whole = 0
    #: Where the key really stands: k, but for what fits between the header and the question.
    placed: Whole = 0

    def __post_init__(self) -> None:
        check_successes(self.successes, self.trials)


@dataclass(frozen=True)
class PasskeySummary(Alone):
    """k_max: the largest k such that every k' <= k succeeds in at least 20 % of the trials (section 3.3); 0 if none."""

    kind: ClassVar[str] = "passkey_summary"
    window: Tokens
    k_max: Whole
    depths: Count
    trials: Count
    accuracy: Share
    seconds: float = 0.0
    #: 95 % interval of the accuracy over all prompts.
    low: Share = 0.0
    high: Share = 1.0
    #: 95 % interval of k_max, from what the trials of all depths leave open (evals/reach.py, reach_interval).
    k_low: Whole = 0
    k_high: Whole = 0
    #: Whether the prompt ended after the blank before the key or before it (a matter of the tokenizer); the key's tokens.
    after_blank: bool | None = None
    key_tokens: Whole = 0
    #: Where the key of k_max really stood, as in `Passkey`; 0 where that is not on record. Whether the window is beyond the model's own.
    placed: Whole = 0
    extrapolation: bool = False

    def __post_init__(self) -> None:
        if max(self.k_max, self.k_low, self.k_high) > self.window:
            raise ValueError(
                f"no k is beyond the window of {self.window}, got {self.k_max} ({self.k_low} to {self.k_high})"
            )

    @property
    def prompts(self) -> int:
        """How many were asked, at all depths."""
        return self.depths * self.trials

    @property
    def found(self) -> int:
        """Of so many prompts the key was found."""
        return round(self.accuracy * self.prompts)

    @property
    def reach(self) -> str:
        """k_max in words, with how far back a key really stood if header or question left no room for it at k_max."""
        moved = f" (a key stood at most {self.placed} back)" if 0 < self.placed < self.k_max else ""
        return f"{self.k_max} of {self.window} tokens{moved}"

    @property
    def says_nothing(self) -> bool:
        """Whether the trials leave every k_max open."""
        return (self.k_low, self.k_high) == (0, self.window)


class Trial(TypedDict):
    """One prompt of the retrieval set: tokens from the asked fact (the first of several) to the prompt's end; the verdict."""

    placed: Whole
    right: bool


@dataclass(frozen=True)
class Retrieval:
    """One family of the retrieval set (evals/retrieval/harder.py): prompts whose whole answer was right, with its 95 % interval.

    `extrapolation`: the window is beyond the model's own.
    """

    kind: ClassVar[str] = "retrieval"
    window: Tokens
    family: str
    trials: Count
    successes: Whole
    low: Share
    high: Share
    seconds: float = 0.0
    per_trial: list[Trial] = field(default_factory=list)
    extrapolation: bool = False

    def __post_init__(self) -> None:
        check_successes(self.successes, self.trials)
