"""How much the suite measures: the paper's sizes, or what two CPU cores do with a small model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Size:
    """How much of everything is measured.

    Attributes:
        documents, tokens_each: of the perplexity; all of them, whole, where None.
        strides: a window slides by the smallest window over this, or by the paper's 256 if `paper_stride` and that is less.
        depths, trials: of the passkey test (section 3.3: 32 and 10).
        prompts: a family of the retrieval test.
        items: of each benchmark.
        summaries, epochs: documents summarised; passes over the pairs that are trained on.
        checkpoints: how many checkpoints of the model's training are measured, the last ones left out first.
        attention_window: the longest window whose scores are looked at, tokens.
    """

    documents: int | None = None
    tokens_each: int | None = None
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


#: The paper's sizes, for a GPU; and what two CPU cores do with a small model in about a quarter of an hour.
SIZES = {
    "full": Size(),
    "small": Size(
        documents=4,
        tokens_each=4096,
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
    ),
}
SizeName = Literal["auto", "small", "full"]
