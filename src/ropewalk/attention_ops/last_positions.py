"""A model's last layer, computed for the last positions alone: the only ones whose logits are read.

in   the last decoder layer, the norms after it, and how many last positions are read
out  a context in which they work on those positions; keys and values are of all

The last layer's outputs at earlier positions are never used: no layer follows that could attend to them, and no logits are asked for
there. In a model of 4 layers that is a fifth of all work, in one of 32 a thirtieth.

It acts from outside, by hooks and by a config of the layer's own; no model's forward is replaced. A layer whose parts it does not
recognise is left as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention.bias import causal_lower_right
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from ropewalk.attention_ops import blocks, sliding

NAME = "ropewalk_last_positions"
#: How the norms of a layer begin that work before its keys and values are made, and after.
_NORMS_BEFORE, _NORMS_AFTER = "input", ("post", "pre_feedforward")


@contextmanager
def reading_last(layer: nn.Module, norms: Iterable[nn.Module], count: int) -> Iterator[None]:
    """While the block runs, a last layer and the norms after it work on the last `count` positions, and give zeros elsewhere.

    Args:
        layer: the model's last decoder layer.
        norms: what follows it, position by position.
        count: positions that are read.
    """
    parts = dict(layer.named_modules())
    with ExitStack() as undo:
        if _is_recognised(layer):
            for part in (*_positionwise(parts), *norms):
                _narrow(part, count, undo)
            if "self_attn" in parts:
                _attend_from_the_last(parts["self_attn"], count, undo)
        yield


def _is_recognised(layer: nn.Module) -> bool:
    """Whether the names of a layer's parts tell which of them work after its keys and values are made."""
    names = [name for name, _ in layer.named_children()]
    return "mlp" in names and all(name.startswith((_NORMS_BEFORE, *_NORMS_AFTER)) for name in names if "norm" in name)


def _positionwise(parts: dict[str, nn.Module]) -> list[nn.Module]:
    """Parts of a layer that treat every position by itself and that no key or value is made of."""
    names = ("mlp", "self_attn.q_proj", "self_attn.o_proj")
    later = [name for name in parts if "." not in name and "norm" in name and name.startswith(_NORMS_AFTER)]
    return [parts[name] for name in (*names, *later) if name in parts]


def _narrow(part: nn.Module, count: int, undo: ExitStack) -> None:
    """Feed a part the last `count` positions alone, and put zeros where the others were."""
    lengths: list[int] = []

    def narrow(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        lengths.append(inputs[0].shape[1])
        # A mixture of experts views its input as one list of tokens, which a part of every sequence is not in memory.
        return tuple(value[:, -count:].contiguous() if isinstance(value, Tensor) else value for value in inputs)

    def widen(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        states, *rest = output if isinstance(output, tuple) else (output,)  # a mixture may give its routing too
        states = nn.functional.pad(states, (0, 0, lengths.pop() - states.shape[1], 0))
        return (states, *rest) if isinstance(output, tuple) else states

    undo.callback(part.register_forward_pre_hook(narrow).remove)
    undo.callback(part.register_forward_hook(widen).remove)


def _attend_from_the_last(attention: Any, count: int, undo: ExitStack) -> None:
    """Restrict the queries of an attention that is transformers' `sdpa`, or ours within a reach, to the last `count` positions, by a copy of its config."""
    original_config: Any = getattr(attention, "config", None)
    if getattr(original_config, "_attn_implementation", None) not in ("sdpa", blocks.NAME):
        return
    attention.config = copy.copy(original_config)
    attention.config._attn_implementation = NAME
    attention.config.ropewalk_read_last = count
    undo.callback(setattr, attention, "config", original_config)


def attend(
    module: Any,
    query: Float[Tensor, "batch heads n size"],
    key: Float[Tensor, "batch kv_heads keys size"],
    value: Float[Tensor, "batch kv_heads keys value_size"],
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "batch n heads value_size"], None]:
    """What transformers calls under NAME: attention of the last positions to all; zeros for the others."""
    tokens = query.shape[2]
    count = min(module.config.ropewalk_read_last, tokens)
    query = query[:, :, -count:]
    if attention_mask is None:  # transformers' way to say "causal"
        out = to_the_end(query, key, value, kwargs.get("scaling"))
        out = out.transpose(1, 2)
    elif (reach := sliding.told_reach(attention_mask)) is not None:
        out = sliding.attend(query, key, value, reach, kwargs.get("scaling")).transpose(1, 2)
    else:
        out, _ = sdpa_attention_forward(module, query, key, value, attention_mask[..., -count:, :], **kwargs)
    return nn.functional.pad(out, (0, 0, 0, 0, tokens - count, 0)), None


def to_the_end(
    query: Float[Tensor, "batch heads count size"],
    key: Float[Tensor, "batch kv_heads keys size"],
    value: Float[Tensor, "batch kv_heads keys value_size"],
    scale: float | None,
) -> Float[Tensor, "batch heads count value_size"]:
    """Causal attention of the last `count` positions: the last sees all keys, the one before it all but one, and so on."""
    groups, (count, keys) = query.shape[1] // key.shape[1], (query.shape[2], key.shape[2])
    key, value = (states.repeat_interleave(groups, dim=1) if groups > 1 else states for states in (key, value))
    if query.is_cuda:  # no mask is held, and the fused kernels know it
        causal: Tensor = causal_lower_right(count, keys)
    else:
        causal = torch.ones(count, keys, dtype=torch.bool, device=query.device).tril(keys - count)
    return nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=causal, scale=scale)
