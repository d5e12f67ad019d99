"""How much the suite measures: the paper's sizes, or what two CPU cores do with a small model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
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

    documents: int | None = None
    strides_past: int | None = None
    strides: int = 8
    paper_stride: bool = True
    depths: int = 32
    trials: int = 10
    prompts: int = 100
    items: int | None = None
    summaries: int | None = None
    epochs: int = 10
    checkpoints: int = 5
    attention_window: int = 32768
    allowance: float | None = None

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
        strides=2,
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
