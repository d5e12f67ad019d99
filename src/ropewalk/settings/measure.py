"""What a model itself does: perplexity, passkey, retrieval, attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from ropewalk.errors import UserError
from ropewalk.settings.options import Batched, Data, MeasuringOptions, OptionalInts, OptionalMinutes, OptionalModel

Convention = Literal["ropewalk", "yarn", "longlora", "lm-eval", "huggingface"]
RetrievalFamily = Literal["keys", "values", "lookalikes", "chain"]


@dataclass(frozen=True, kw_only=True)
class PerplexitySettings(MeasuringOptions, Batched):
    """Perplexity over a sliding window (section 3.2), token-weighted, with a 95 % interval over documents."""

    data: Data
    """Files, directories or data-set ids; in Python also documents."""
    windows: OptionalInts = None
    """Tokens, one or more, each a row; the model's own if not given. Beyond it is extrapolation."""
    stride: int = 256
    """Tokens a window moves by (paper: 256)."""
    convention: Annotated[Convention, tyro.conf.arg(name="as")] = "ropewalk"
    """Whose definition; the others explain published figures. They have no interval and are not resumed."""
    budget: OptionalMinutes = None
    """Estimate from random windows within so many minutes a window."""
    tolerance: float = 0.005
    """With --budget, stop when half the interval is at most this share of the perplexity."""
    limit: int | None = None
    """Use the first so many documents that fill the largest window."""
    min_tokens: int | None = None
    """Leave out documents with fewer tokens; the largest window if not given."""
    max_tokens: int | None = None
    """Cut documents to their first so many tokens (paper, proof-pile: 32768)."""
    seed: int = 0
    """Of the bootstrap and of --budget's sample."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.budget is not None and not self.budget > 0:
            raise UserError(
                f"a budget is a number of minutes above 0, got {self.budget}; leave --budget out for the exact figure"
            )
        if self.budget is not None and self.convention != "ropewalk":
            raise UserError(
                f"a budget estimates ropewalk's own perplexity, not that of {self.convention}; leave out --budget or --as"
            )


@dataclass(frozen=True, kw_only=True)
class PasskeySettings(MeasuringOptions, Batched):
    """Passkey retrieval (section 3.3): success by depth, and k_max."""

    window: int | None = None
    """Tokens of every prompt; the model's own window if not given."""
    depths: int = 32
    """Distances of the key from the end, evenly spaced (paper: 32)."""
    trials: int = 10
    """Prompts a depth, each with a fresh key (paper: 10)."""
    seed: int = 0
    """Of the keys; the same keys for the same seed, depths and trials, whatever the model."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depths < 1 or self.trials < 1:
            raise UserError(
                f"passkey needs at least one depth and one trial, got {self.depths} and {self.trials}; the paper has 32 and 10"
            )


@dataclass(frozen=True, kw_only=True)
class RetrievalSettings(MeasuringOptions, Batched):
    """Retrieval harder than the passkey: several keys, several values, look-alikes, a chain (RULER's families)."""

    window: int | None = None
    """Tokens of every prompt; the model's own window if not given."""
    families: Sequence[RetrievalFamily] | None = None
    """Some of them; all if not given."""
    trials: int = 32
    """Prompts a family."""
    seed: int = 0
    """Of facts, prose and places; the same prompts for the same seed, trials, window and tokenizer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.families is not None and not self.families:
            raise UserError(
                "families is one or several of keys, values, lookalikes, chain, got none; leave it out for all"
            )
        if self.trials < 1:
            raise UserError(f"retrieval needs at least one trial, got {self.trials}; 32 tell 50 % from 70 %")


@dataclass(frozen=True, kw_only=True)
class AttentionSettings(MeasuringOptions):
    """Attention scores by distance on real documents, per layer and head, the paper's bounds on them, and adjacent tokens.

    A base model past its own window is measured three times: inside it, beyond it, and interpolated without training.
    """

    data: Data
    """Files, directories or data-set ids, in Python also documents; each is cut to its first --window tokens."""
    window: int | None = None
    """Tokens; the model's own if not given."""
    base: OptionalModel = None
    """The model before extension, measured too; its scores in its own window are what is in range."""
    documents: int = 1
    """The first so many that fill the window. Each has window squared over 2 scores a head."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.documents < 1:
            raise UserError(f"scores are measured on at least 1 document, got {self.documents}; ask for 1")
