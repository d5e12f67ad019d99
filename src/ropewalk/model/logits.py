"""What a family does to its logits between head and softmax."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ropewalk.checkpoint.families import family_of
from ropewalk.errors import UserError


@dataclass(frozen=True)
class LogitsTransform:
    """What a family does to the head's output before the softmax: `cap * tanh(scale * logits / cap)`.

    scale: 1 for most; Cohere and Granite scale. cap: infinity for most; Gemma 2 caps at 30.
    """

    scale: float = 1.0
    cap: float = math.inf

    @property
    def plain(self) -> bool:
        """Whether the logits stay as they are."""
        return self.scale == 1.0 and math.isinf(self.cap)

    def __call__(self, logits: Tensor) -> Tensor:
        if self.scale != 1.0:
            logits = logits * self.scale
        if not math.isinf(self.cap):
            logits = self.cap * torch.tanh(logits / self.cap)
        return logits

    def slope(self, logits: Tensor) -> Tensor | float:
        """The derivative of the transformation with respect to its input, computed from its output `logits`."""
        if math.isinf(self.cap):
            return self.scale
        return self.scale * (1 - (logits / self.cap).square())


# Configuration keys that speak of logits and change nothing here. Any other, if no row of families.py names it, is refused by name.
_HARMLESS = {"output_router_logits", "router_logits", "attn_logit_softcapping", "logits_to_keep", "attention_logit_cap"}


def logits_transform(model: Any) -> LogitsTransform:
    """The family's transformation of its logits, read from the configuration; refused by name where it is not known."""
    config = model.config.get_text_config()
    family = family_of(config.model_type)
    scale, cap = 1.0, math.inf
    for key, value in config.to_dict().items():
        speaks_of_logits = "logit" in key or key == "lm_head_multiplier"
        if not speaks_of_logits or key in _HARMLESS or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if key == "final_logit_softcapping":
            cap = float(value)
        elif key == family.logits_key:
            scale = 1 / float(value) if family.logits_divided else float(value)
        elif value not in (0, 1):
            raise UserError(
                f"the loss of a {config.model_type} model cannot be computed in chunks: its configuration sets {key} = {value}, "
                f"whose effect on the logits is not known here; use a family without it"
            )
    if family.head_width_key:
        scale *= getattr(config, family.head_width_key) / config.hidden_size
    return LogitsTransform(scale, cap)
