"""How much each label counts in the gradient: by its document, and by what it gains from a long context (LongCE).

in   of each label a weight that the data give, and its loss in a short context
out  weights; to the gradient they are constants

**LongCE** (Fang et al. 2024, arXiv 2410.23771; finetune/finetune.py of PKU-ML/LongPPL) weighs a label by how much likelier the whole context
makes it than the short one does, p(whole) / p(short) = exp(nll(short) - nll(whole)), at most gamma (5 as published). The model that is
trained gives both, before each step. A label whose whole context is no longer than the short one counts once; the sum is divided by the number
of labels and not by their weights.

**Worked example.** Four labels with nll 1.0, 2.0, 0.5, 3.0 in the short context and 0.4, 1.9, 0.7, 0.6 in the whole one: the ratios are exp of
0.6, 0.1, -0.2, 2.4, the weights 1.82, 1.11, 0.82 and 5 (for 11.02), and what is minimised is
(1.82 · 0.4 + 1.11 · 1.9 + 0.82 · 0.7 + 5 · 0.6) / 4 = 1.60 instead of 0.90.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, no_type_check

import torch
from torch import Tensor

#: LongCE's gamma, as published.
PUBLISHED_MOST = 5.0


@dataclass(frozen=True)
class LabelWeights:
    """Of the labels of a batch. No tuple and no dictionary: what FSDP finds in those it rounds to the precision of the arithmetic.

    Attributes:
        given: by the data, float32 [batch, tokens]; None where every label counts once.
        short: the loss in the short context in nats, float32 [batch, tokens], NaN where the whole one is no longer; None without LongCE.
        most: LongCE's gamma.
    """

    given: Tensor | None = None
    short: Tensor | None = None
    most: float = math.inf

    def of_part(self, part: slice) -> OfPart:
        """Those of some of the labels, all rows end to end."""
        given, short = (None if each is None else each.flatten()[part] for each in (self.given, self.short))
        return OfPart(given, short, self.most)


class OfPart(NamedTuple):
    """`LabelWeights` of some labels, as a compiled function takes them."""

    given: Tensor | None
    short: Tensor | None
    most: float


@no_type_check  # for a type checker's wrapper would be compiled with it
def weights_of(nll: Tensor, part: OfPart) -> Tensor:
    """The weights of labels whose loss in the whole context is `nll`, [tokens]."""
    weights = torch.ones_like(nll)
    if part.short is not None:
        ratio = (part.short - nll).exp().clamp(max=part.most)
        weights = torch.where(part.short.isnan(), weights, ratio)
    return weights if part.given is None else weights * part.given


def taken_out(rows: dict[str, Any], most: float) -> dict[str, Any]:
    """What the loss module is called with: `weights` and `short` of the rows, if there are any, as `LabelWeights`."""
    given, short = rows.get("weights"), rows.get("short")
    if given is None and short is None:
        return rows
    rest = {name: value for name, value in rows.items() if name not in ("weights", "short")}
    return {**rest, "weigh": LabelWeights(given, short, most)}
