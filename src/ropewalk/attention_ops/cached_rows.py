"""Keys and values of several texts, a row each, in memory that is set aside once: a text is read once and continued without copies.

in   token ids, which rows of the cache they go to, and how many tokens stand in these rows before them
out  keyword arguments for a forward pass that writes their keys and values there and attends to all of the row

transformers' caches either grow by a copy of themselves with each token (DynamicCache), or are attended to over their whole length through
a mask (StaticCache), which flash kernels do not take. Here all rows of a pass have equally many tokens, so that no mask is needed and the
kernels read what is there and no more. For models whose layers are all plain causal attention.
"""

from __future__ import annotations

import weakref
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from ropewalk.attention_ops import choosing
from ropewalk.attention_ops.held import attending, attention_modules
from ropewalk.attention_ops.last_positions import to_the_end

NAME = "ropewalk_cached_rows"


class CachedRows:
    """Keys and values of up to `rows` texts of up to `tokens` tokens. Memory is taken at the first pass.

    Attributes:
        prompts: the token ids whose keys and values each row is known to begin with.
    """

    def __init__(self, model: Any, rows: int, tokens: int) -> None:
        self.rows, self.tokens = rows, tokens
        self.prompts: list[Integer[np.ndarray, " n"]] = [np.empty(0, dtype=np.int64) for _ in range(rows)]
        self._model = model
        places = [part.layer_idx for part in attention_modules(model)]
        self._layers = {place: _Layer(self, is_last=place == max(places)) for place in places}
        # Of the pass that is under way: its rows, tokens before it, and how many of its last positions are asked for.
        self.taken, self.start, self.count = slice(0), 0, 1

    def attending(self) -> AbstractContextManager[None]:
        """While the block runs, the model attends by this cache; each pass is told where by `at`."""
        return attending(self._model, NAME, lambda part: self._layers[part.layer_idx])

    def at(self, rows: slice, start: int, tokens: int, count: int) -> dict[str, Any]:
        """Keyword arguments for the next pass.

        Args:
            rows: of the cache, which the pass writes.
            start: tokens that stand in each of them already and are attended to.
            tokens: of each row in this pass.
            count: how many of its last positions are asked for; the last layer attends from them alone.
        """
        self.taken, self.start, self.count = rows, start, count
        positions = torch.arange(start, start + tokens, device=next(self._model.parameters()).device)[None]
        return {"position_ids": positions, "use_cache": False, "logits_to_keep": count}

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Have the first `tokens` tokens of a row in another one too."""
        if source != target:
            self.prompts[target] = self.prompts[source][:tokens]
            for layer in self._layers.values():
                for states in layer.states:
                    states[target, :, :tokens] = states[source, :, :tokens]


class _Layer:
    """One layer's keys and values: [rows, key heads, tokens, size] each, once there are any."""

    def __init__(self, cache: CachedRows, *, is_last: bool) -> None:
        # No strong reference: a cycle would keep a task's memory until Python next looks for garbage, and the next task would find a full GPU.
        self.cache: CachedRows = weakref.proxy(cache)
        self.is_last = is_last
        self.states: tuple[Tensor, ...] = ()

    def write(self, *new: Tensor) -> list[Tensor]:
        """Keys and values of the pass's rows up to its last token, after its own were written."""
        rows, start = self.cache.taken, self.cache.start
        if not self.states:
            self.states = tuple(
                each.new_empty(self.cache.rows, each.shape[1], self.cache.tokens, each.shape[3]) for each in new
            )
        stop = start + new[0].shape[2]
        for states, each in zip(self.states, new, strict=True):
            states[rows, :, start:stop] = each
        return [states[rows, :, :stop] for states in self.states]


@torch.compiler.disable  # where a pass stands in the cache changes with every call
def attend(
    module: Any,
    query: Float[Tensor, "batch heads n size"],
    key: Float[Tensor, "batch kv_heads n size"],
    value: Float[Tensor, "batch kv_heads n size"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "batch n heads size"], None]:
    """What transformers calls under NAME: attention of a pass's tokens to all tokens of their rows, their own among them."""
    layer: _Layer = getattr(module, NAME)
    keys, values = layer.write(key, value)
    tokens = query.shape[2]
    count = min(layer.cache.count, tokens) if layer.is_last else tokens
    query = query[:, :, -count:]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if count == 1:
        out = _attend_from_one(query, keys, values, scale)
    elif count == keys.shape[2]:  # the kernel that PyTorch prefers for a triangle
        return sdpa_attention_forward(module, query, key, value, None, scaling=scale, is_causal=True)
    else:
        out = to_the_end(query, keys, values, scale)
    return nn.functional.pad(out.transpose(1, 2), (0, 0, 0, 0, tokens - count, 0)).contiguous(), None


def _attend_from_one(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    """From one token a row. Heads that share keys are laid beside each other as queries, since all of them see all keys; none is repeated."""
    folded = query.reshape(len(query), keys.shape[1], -1, query.shape[-1])
    out, _ = choosing.attend(folded, keys, values, causal=False, scale=scale)
    return out.reshape(*query.shape[:3], values.shape[-1])
