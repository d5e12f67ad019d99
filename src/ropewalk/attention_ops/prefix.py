"""A prefix that many prompts share: read once, its keys and values kept, and attended to beside each prompt's own tokens.

in   token ids of the prefix; then, per batch, how much of it the prompts share and how many tokens of their own they have
out  keyword arguments for a forward pass over those tokens alone

Where every layer is plain causal attention, each attends in two parts: to the prefix, whose keys exist once however many prompts there
are, and to the prompt's own tokens. The parts are put together by their log-sum-exp. Other models are given the prefix as a KV cache
that does not grow, with a copy for each prompt of the batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, LinearAttentionCacheLayerMixin

from ropewalk.attention_ops import choosing
from ropewalk.attention_ops.held import attending

NAME = "ropewalk_prefix"


@dataclasses.dataclass(frozen=True)
class LayerPrefix:
    """One layer's keys and values of a prefix, as its attention module holds them during a forward pass.

    Attributes:
        keys, values: (1, key heads, tokens of the prefix, head size).
        count: how many of the last positions are asked for; None: all. Others get zeros.
    """

    keys: Float[Tensor, "1 kv_heads past size"]
    values: Float[Tensor, "1 kv_heads past size"]
    count: int | None = None


class _PrefixCacheLayer(DynamicLayer):
    """One layer's keys and values of the prefix, handed out with a prompt's own but never grown."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.prefix = keys, values
        self.keys, self.values = keys, values  # by these the cache reports its length
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        batch = len(key_states)
        keys, values = (states.expand(batch, -1, -1, -1) for states in self.prefix)
        return torch.cat([keys, key_states], dim=2), torch.cat([values, value_states], dim=2)


def keeps_positions(model: Any) -> bool:
    """Whether keys and values of each token are all that a model keeps of what it read.

    Other layers (convolutions, state spaces, linear attention) keep one state of it all, which goes on and can be neither cut nor shared.
    """
    if not model._supports_default_dynamic_cache():
        return False
    layers = DynamicCache(config=model.config.get_text_config()).layers
    return not any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in layers)


@dataclasses.dataclass(frozen=True)
class SharedPrefix:
    """Keys and values of a prefix, layer by layer; none if there is no prefix.

    Attributes:
        layers: (1, key heads, tokens, head size) each.
    """

    layers: list[tuple[Tensor, Tensor]]

    @classmethod
    def read(cls, model: Any, ids: Int[Tensor, "1 length"]) -> SharedPrefix:
        """Run a model over the prefix; a length of 0 is no prefix."""
        if ids.shape[1] == 0:
            return cls([])
        # Without a config the cache keeps every token of every layer, of those with a sliding window too.
        cache = DynamicCache()
        # Uncompiled: a cache names each layer by its number, so every layer would be compiled for itself, up to PyTorch's limit, past
        # which the prompts' own passes are not compiled either.
        with torch.compiler.set_stance("force_eager"):
            model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        layers: list[Any] = cache.layers  # of one class here, of which there are several
        return cls([(layer.keys, layer.values) for layer in layers])

    @contextmanager
    def before(
        self, model: Any, length: int, tokens: int, count: int, *, in_two_parts: bool
    ) -> Iterator[dict[str, Any]]:
        """Keyword arguments for a forward pass over `tokens` tokens that go on after the first `length` of the prefix.

        Args:
            model: the one that read the prefix.
            length: tokens of the prefix; 0 for none of it.
            tokens: of each prompt after it.
            count: how many of the last ones are asked for; the last layer attends from them alone.
            in_two_parts: whether all layers are plain causal attention through PyTorch's kernels, see `transformers.attends_in_two_parts`.
        """
        layers = [(keys[:, :, :length], values[:, :, :length]) for keys, values in self.layers]
        if length == 0:
            yield {"use_cache": False}
        elif not in_two_parts:
            cache: list[Any] = [_PrefixCacheLayer(keys, values) for keys, values in layers]
            yield {"past_key_values": Cache(layers=cache), "use_cache": True}
        else:
            positions = torch.arange(length, length + tokens, device=layers[0][0].device)[None]
            last = len(layers) - 1
            with attending(
                model,
                NAME,
                lambda part: LayerPrefix(*layers[part.layer_idx], count=count if part.layer_idx == last else None),
            ):
                yield {"position_ids": positions, "use_cache": False}


@torch.compiler.disable  # which prefix it is changes with every call
def attend(
    module: nn.Module,
    query: Float[Tensor, "batch heads n size"],
    key: Float[Tensor, "batch kv_heads n size"],
    value: Float[Tensor, "batch kv_heads n size"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "batch n heads size"], None]:
    """What transformers calls under NAME: attention to prefix + own tokens as a mixture of attention to each.

    A softmax over two sets of keys is the two softmaxes, weighted by their shares of the sum of exponentials: exact. Every query
    sees the whole prefix, so the batch's queries can be laid in one row over keys that exist once, and no mask is needed.
    """
    prefix: LayerPrefix = getattr(module, NAME)
    tokens = query.shape[2]
    query = query[:, :, -(prefix.count or tokens) :]
    batch, heads, count, size = query.shape
    scale = size**-0.5 if scaling is None else scaling
    prompt_out, prompt_lse = choosing.attend(query, key, value, causal=True, scale=scale)
    folded = query.transpose(0, 1).reshape(1, heads, batch * count, size)
    prefix_out, prefix_lse = choosing.attend(folded, prefix.keys, prefix.values, causal=False, scale=scale)
    prefix_out = prefix_out.reshape(heads, batch, count, size).transpose(0, 1)
    prefix_lse = prefix_lse.reshape(heads, batch, count).transpose(0, 1)
    # In the model's dtype and not in float32 as in block_attention.py: here nothing is added up over more than two parts, and it is half the memory.
    share = torch.sigmoid(prefix_lse - prompt_lse).unsqueeze(-1).to(prompt_out.dtype)
    out = torch.lerp(prompt_out, prefix_out, share)
    if count < tokens:
        out = nn.functional.pad(out, (0, 0, tokens - count, 0))
    return out.transpose(1, 2).contiguous(), None
