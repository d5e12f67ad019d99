"""How much the suite measures: the paper's sizes, or what two CPU cores do with a small model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ropewalk.settings.command import Settings
from ropewalk.settings.values import Count, CountOrNone, Prompts, Range, Tokens


@dataclass(frozen=True)
class Size(Settings):
    """How much of everything is measured.

    Attributes:
        documents: of the perplexity; all of them where None.
        strides_past: how far past the largest window a document is scored, in strides; to its end where None.
        strides: a window slides by the smallest window over this, or by the paper's 256 if `paper_stride` and that is less.
        depths, trials: of the passkey test (section 3.3: 32 and 10).
        prompts: a family of the retrieval test.
        items: of each benchmark.
        summaries, epochs: documents summarised; passes over the pairs that are trained on.
        checkpoints: how many checkpoints of the model's training are measured, the last ones left out first.
        attention_window: the longest window whose scores are looked at, tokens.
        allowance: FLOPs of forward passes a stage may take; documents, trials and prompts are cut down to it, though not
            below what still says something. None: no bound.
    """

    documents: Count | None = None
    strides_past: Count | None = None
    strides: Count = 8
    paper_stride: bool = True
    depths: Prompts = 32
    trials: Prompts = 10
    prompts: Prompts = 100
    items: Count | None = None
    summaries: Count | None = None
    epochs: Count = 10
    checkpoints: CountOrNone = 5
    attention_window: Tokens = 32768
    allowance: Annotated[float, Range(0, 10**30)] | None = None

    def affordable(self, most: int, cost: float, *, least: int) -> int:
        """How many things of `cost` FLOPs each the allowance pays for: between `least` and `most`."""
        if self.allowance is None:
            return most
        return min(most, max(least, int(self.allowance / max(cost, 1.0))))


#: The paper's sizes, for a GPU; and what CPU cores can do with a small model: 1e13 FLOPs are minutes on one core.
SIZES = {
    "full": Size(),
    "small": Size(
        documents=6,
        strides_past=4,
        strides=4,
        paper_stride=False,
        depths=8,
        trials=5,
        prompts=8,
        items=40,
        summaries=3,
        epochs=1,
        checkpoints=2,
        attention_window=2048,
        allowance=1e13,
    ),
}
