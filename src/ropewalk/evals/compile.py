"""Making forward passes cheaper without changing what they say: nothing computed that nobody reads, kernels fused.

in   a transformers model, and how many last positions are read
out  a context in which its passes are faster

All act from outside, by hooks, by a layer's config and by torch.compile; no model's forward is replaced. On anything they do
not recognise they do nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
import torch._dynamo
from jaxtyping import Float
from torch import nn
from torch.nn.attention.bias import causal_lower_right
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ropewalk.attention_ops import kernels
from ropewalk.model.layers import head_size

#: Compiling takes tens of seconds once; it is worth that from about this much work on, in floating-point operations.
WORTH_COMPILING = 1e17


def decoder_layers(model: Any) -> list[nn.Module]:
    """The decoder's layers, first to last; empty if they are not where transformers' families keep them."""
    body = getattr(model, "base_model", model)
    layers = getattr(body, "layers", None)
    return list(layers) if isinstance(layers, nn.ModuleList) else []


@contextmanager
def reading_last(model: Any, kept: int) -> Iterator[None]:
    """While the block runs, the last layer works on the last `kept` positions alone; its keys and values are of all.

    What it would say at earlier positions goes nowhere: no layer follows that could attend to them, and no logits are
    asked for there. In a model of 4 layers that is a fifth of all work, in one of 32 a thirtieth.
    """
    layers = decoder_layers(model)
    if not layers:
        yield
        return
    parts = dict(layers[-1].named_modules())
    with ExitStack() as undone:
        for part in (*_each_by_itself(parts), *_norms(model.base_model)):
            _narrow(part, kept, undone)
        if "self_attn" in parts:
            _attend_from_the_last(parts["self_attn"], kept, undone)
        yield


def _each_by_itself(parts: dict[str, nn.Module]) -> list[nn.Module]:
    """Parts of a layer that treat every position by itself and that no key or value is made of."""
    names = ("mlp", "self_attn.q_proj", "self_attn.o_proj")
    later = [name for name in parts if "." not in name and "norm" in name and "input" not in name]
    return [parts[name] for name in (*names, *later) if name in parts]


def _norms(module: nn.Module) -> list[nn.Module]:
    """A module's own norms, not those within its parts."""
    return [part for name, part in module.named_children() if "norm" in name]


def _narrow(part: nn.Module, kept: int, undone: ExitStack) -> None:
    """Feed a part the last `kept` positions alone, and put zeros where the others were."""
    lengths: list[int] = []

    def narrow(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        lengths.append(inputs[0].shape[1])
        return (inputs[0][:, -kept:], *inputs[1:])

    def widen(module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        return nn.functional.pad(output, (0, 0, lengths.pop() - output.shape[1], 0))

    undone.callback(part.register_forward_pre_hook(narrow).remove)
    undone.callback(part.register_forward_hook(widen).remove)


_FROM_THE_LAST = "ropewalk_from_the_last"
#: How many positions the pass in progress reads; an attention function is given its module and no more.
_reading: list[int] = []


def _attend_from_the_last(part: Any, kept: int, undone: ExitStack) -> None:
    """Have an attention that is transformers' `sdpa` ask from the last `kept` positions alone, by a config of its own."""
    usual: Any = getattr(part, "config", None)
    if getattr(usual, "_attn_implementation", None) != "sdpa":
        return
    _reading.append(kept)
    undone.callback(_reading.pop)
    part.config = copy.copy(usual)
    part.config._attn_implementation = _FROM_THE_LAST
    undone.callback(setattr, part, "config", usual)


def _from_the_last(
    module: nn.Module,
    query: Float[torch.Tensor, "batch heads n size"],
    key: Float[torch.Tensor, "batch kv_heads n size"],
    value: Float[torch.Tensor, "batch kv_heads n size"],
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    own, keys = query.shape[2], key.shape[2]
    kept = min(_reading[-1], own)
    query = query[:, :, -kept:]
    if attention_mask is None:  # transformers' way to say "causal"
        groups = query.shape[1] // key.shape[1]
        key, value = (states.repeat_interleave(groups, dim=1) if groups > 1 else states for states in (key, value))
        if query.is_cuda:  # no mask is held, and the fused kernels know it
            causal: torch.Tensor = causal_lower_right(kept, keys)
        else:
            causal = torch.ones(kept, keys, dtype=torch.bool, device=query.device).tril(keys - kept)
        out = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=causal, scale=kwargs.get("scaling")
        )
        out = out.transpose(1, 2)
    else:
        out, _ = ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, attention_mask[..., -kept:, :], **kwargs)
    return nn.functional.pad(out, (0, 0, 0, 0, own - kept, 0)), None


AttentionInterface.register(_FROM_THE_LAST, _from_the_last)


#: The one shape (batch, tokens) that layers are compiled for at the moment.
_compiled_for: list[tuple[int, int]] = []


@contextmanager
def faster(model: Any, *, passes: int, window: int, shape: tuple[int, int] | None = None) -> Iterator[None]:
    """Compile while the block runs, and attend by the fastest kernel, if there is a GPU and enough work; else nothing.

    Args:
        model: a transformers model.
        passes, window: how many passes over so many tokens there will be.
        shape: (batch, tokens) of most passes, where they are alike: whole layers are then compiled for it.
    """
    on_gpu = next(model.parameters()).device.type == "cuda"
    if not on_gpu or work(model, passes, window) < WORTH_COMPILING:
        yield
        return
    attending = kernels.fastest(next(model.parameters()).device, head_size(model))
    with attending, compiled(model, dynamic=shape is None):
        if shape is None:
            yield
            return
        _compiled_for.append(shape)
        try:
            yield
        finally:
            _compiled_for.pop()


def shaped(shape: tuple[int, ...]) -> AbstractContextManager[None]:
    """Around a pass: uncompiled if layers are compiled for another shape, which would compile them all over again."""
    if _compiled_for and _compiled_for[-1] != tuple(shape):
        return torch.compiler.set_stance("force_eager")
    return nullcontext()


@contextmanager
def compiled(model: Any, *, dynamic: bool, backend: str = "inductor") -> Iterator[None]:
    """While the block runs, layers are compiled, all by one function; the last is not, since hooks may narrow it.

    What cannot be compiled runs as it is.

    Args:
        model: a transformers model.
        dynamic: for passes of many shapes; else for those of one.
        backend: of torch.compile.
    """
    layers = decoder_layers(model)[:-1]
    for layer in layers:
        layer.compile(dynamic=dynamic, backend=backend)
    try:
        with torch._dynamo.config.patch(suppress_errors=True):
            yield
    finally:
        for layer in layers:
            layer._compiled_call_impl = None


def work(model: Any, passes: int, window: int) -> float:
    """Floating-point operations of so many passes over a window: 2 a weight and token, and causal attention."""
    config = model.config.get_text_config()
    weights = sum(weight.numel() for weight in model.parameters())
    attention = 2 * config.num_hidden_layers * config.hidden_size * window
    return float(passes) * window * (2 * weights + attention)
