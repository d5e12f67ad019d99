"""What readers are asked, and what they are held against.

A job is a dictionary: `path` (what was exported for the reader), `ids` (a prompt), `positions` (of tokens in it, past the original
window, whose log-probabilities are wanted), `new` (how many tokens to add greedily), `text` and `text_ids` (what its tokenizer
ought to make of a text), `window`, `vocabulary`, `letter` (a token that is one ASCII
character). A result: `logprobs`, `tokens`, their log-probabilities as `chosen` (after a
long prompt), `window`, `text` (whether the ids were those), or `error`.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.rope_config import RopeConfig
from ropewalk.model.verify import rotary_tables
from ropewalk.rope.scaling import Plain

ORIGINAL, WINDOW, NEW = 64, 256, 8
POSITIONS = (70, 100, 150, 200, 239)
TEXT = "def walk(rope, tokens=12345):\n    # don't turn 'some' of them\n    return [naïve for Übung in rope]\n"


@dataclass(frozen=True)
class Reference:
    """What a reader ought to find in a model, by the original's weights turned by hand.

    Attributes:
        ids: the prompt.
        logprobs, unscaled: of its tokens at `POSITIONS`, with the closed form of rope/, and as the original turns.
        tokens: the greedy ones.
        gap: the smallest difference of a greedy token's log-probability from that of the next best.
    """

    ids: list[int]
    logprobs: list[float]
    unscaled: list[float]
    tokens: list[int]
    gap: float

    @property
    def control(self) -> float:
        """By how much an unscaled reader would be off."""
        return max(abs(a - b) for a, b in zip(self.logprobs, self.unscaled, strict=True))


def reference(weights: Path, extended: Path) -> Reference:
    """A model's weights in transformers 5, float32, turned by the closed form of the extended checkpoint's `ropewalk` block.

    transformers reads no key of the extended config for it, so one that is wrong or lost shows.
    """
    rope = Checkpoint.open(extended).rope
    model = transformers.AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32).eval()
    chooser = random.Random(0)
    ids = [0, *(chooser.randrange(2, 2000) for _ in range(POSITIONS[-1]))]
    turn(model, replace(rope, scaling=Plain()))
    unscaled = logprobs_of(model, ids)
    turn(model, rope)
    tokens, gap = greedy(model, ids)
    return Reference(ids, logprobs_of(model, ids), unscaled, tokens, gap)


def turn(model: Any, rope: RopeConfig) -> None:
    """Set every inv_freq, and the attention factor of the layers that are scaled, from the closed form at the end of the window.

    An original that is scaled already would choose its own table again for every input; and DeepSeek's code multiplies scores by the
    square of YaRN's temperature for `mscale_all_dim` (modeling_deepseek.py: softmax_scale).
    """
    speeds = rope.inv_freq()
    entry, _ = rope.scaling.config_entry(rope.rope)
    temperature = 0.1 * entry.get("mscale_all_dim", 0) * math.log(entry.get("factor", 1)) + 1
    for module in model.modules():
        if hasattr(module, "qk_head_dim"):
            module.scaling = module.qk_head_dim**-0.5 * temperature**2
    for module, name, layer_type, table in rotary_tables(model):
        module.rope_type = (
            "default" if isinstance(module.rope_type, str) else dict.fromkeys(module.rope_type, "default")
        )
        setattr(module, name, torch.tensor(speeds[layer_type], dtype=torch.float32, device=table.device))
        setattr(module, name.removesuffix("inv_freq") + "attention_scaling", rope.attention_factor(layer_type))


def logprobs_of(model: Any, ids: list[int]) -> list[float]:
    """Log-probabilities of the tokens at `POSITIONS`."""
    with torch.no_grad():
        logprobs = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return [float(logprobs[at - 1, ids[at]]) for at in POSITIONS]


def greedy(model: Any, ids: list[int]) -> tuple[list[int], float]:
    """`NEW` greedy tokens, and how near the nearest of them was to another."""
    new, gaps = list(ids), []
    for _ in range(NEW):
        with torch.no_grad():
            best = model(torch.tensor([new]), use_cache=False).logits[0, -1].log_softmax(-1).topk(2)
        gaps.append(float(best.values[0] - best.values[1]))
        new.append(int(best.indices[0]))
    return new[len(ids) :], min(gaps)
