"""The one registration with transformers' attention interface: every name of ours that a config can carry, and what stands behind it.

in   a transformers model
out  the same model, attending through one of our functions; its own forward unchanged

transformers looks its attention function up by the name in a module's config, and gives it the module, queries, keys and values. What
else a function needs is found on the module, on its config, or comes through the model's keyword arguments; it is put there for one
forward pass or one `with` block and taken away again.

    BLOCKS          block_attention.py documents and devices; who attends to what comes as the keyword argument `attend`
                    sliding.py         layers that slide; their reach comes in the mask's place; measurements too
    LAST_POSITIONS  last_positions.py  the last layer alone; how many positions is on a copy of the module's config
    PREFIX          prefix.py          a shared prefix beside a prompt's own tokens; its keys and values are on each module
    CACHED_ROWS     cached_rows.py     texts that are read once and continued; the cache's layer is on each module
    OBSERVED        here               the model's own attention, with someone looking on; who, is on the model's config
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ropewalk.attention_ops import blocks, cached_rows, choosing, kernels, last_positions, prefix, sliding
from ropewalk.attention_ops.block_attention import attention
from ropewalk.attention_ops.blocks import Attend
from ropewalk.checkpoint.layers import is_masked, not_shared
from ropewalk.checkpoint.read_layers import layers_of, slides_alone
from ropewalk.errors import UserError

BLOCKS = blocks.NAME
LAST_POSITIONS = last_positions.NAME
PREFIX = prefix.NAME
CACHED_ROWS = cached_rows.NAME
OBSERVED = "ropewalk_observed"


def _attend_in_blocks(
    module: nn.Module,
    query: Float[Tensor, "batch heads tokens size"],
    key: Float[Tensor, "batch key_heads keys size"],
    value: Float[Tensor, "batch key_heads keys value_size"],
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    attend: Attend | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention over documents and devices, or within a reach. Without either it is transformers' own SDPA attention, masks and all."""
    reach, places = sliding.told_reach(attention_mask), None if attend is None else attend.blocks
    if attention_mask is None and places is None and choosing.wants_repeated(query, key):
        key, value = kernels.repeat(key, query), kernels.repeat(value, query)
    if attend is not None and reach is None:
        if attention_mask is not None and attention_mask.numel() > 1:
            raise UserError(
                "attention over documents or devices is causal and no more, and this model's config asks for a mask that says more; use --cp 1 without a "
                "document mask"
            )
        attention_mask, kwargs = None, kwargs | {"is_causal": True}
    if places is None and reach is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
        )
    if value.shape[-1] != key.shape[-1]:
        raise UserError(
            f"attention over documents or devices, or within a reach, has values as wide as keys, got {value.shape[-1]} and {key.shape[-1]} "
            "(latent attention); use --cp 1 without a document mask, or another family"
        )
    if dropout:
        raise UserError(
            f"attention over documents or devices, or within a reach, has no dropout, got {dropout}; set attention_dropout to 0 in the config"
        )
    if reach is not None:
        out = sliding.attend(query, key, value, reach, scaling, places)
    else:
        assert attend is not None and places is not None
        query, key, value = choosing.in_autocast(query, key, value)
        scale = scaling if scaling is not None else query.shape[-1] ** -0.5
        out, _ = attention(query, key, value, places, attend.group, attend.varied, scale)
    return out.transpose(1, 2).contiguous(), None


def _mask_in_blocks(**arguments: Any) -> Tensor | None:
    """transformers' mask, or in place of one that says no more than how far layers see the reach alone.

    A pass of fewer tokens than the reach, which goes on from a cache, keeps a mask of as few rows.

    arguments: as transformers gives it to `sdpa_mask`; where it has added to what a mask says (documents, prefixes), no mask may be skipped.
    """
    reach, padding = arguments.get("local_size"), arguments["attention_mask"]
    if reach is None or not is_masked(arguments["q_length"], reach) or not slides_alone(vars(arguments["config"])):
        return sdpa_mask(**arguments)
    # Of a cache of a fixed size keys follow that are none yet.
    at_the_end = arguments["q_offset"] + arguments["q_length"] == arguments["kv_offset"] + arguments["kv_length"]
    if not at_the_end or not arguments["allow_is_causal_skip"] or not (padding is None or bool(padding.all())):
        return sdpa_mask(**arguments)
    return sliding.in_place_of_mask(reach, arguments["device"])


def attend_in_blocks(model: Any) -> None:
    """Make a transformers model attend by block_attention.py from now on. Where no `attend` is given nothing changes.

    Raises:
        UserError: the family does not take its attention from transformers' interface.
    """
    inner: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
    inner.set_attn_implementation(BLOCKS)
    if inner.config._attn_implementation != BLOCKS:
        raise UserError(
            f"attention of {inner.config.model_type} models cannot be replaced; use one device a window and no document mask"
        )


def attend_as_measured(model: Any) -> None:
    """Make a transformers model attend as measurements have it: by PyTorch, and within a reach where that is all that layers do.

    One that attends by anything else keeps that.
    """
    layout, usual = layers_of(model.config), model.config._attn_implementation
    within = bool(layout.sliding) and layout.alone and is_replaceable(model)
    if usual in ("sdpa", BLOCKS) and usual != (name := BLOCKS if within else "sdpa"):
        model.set_attn_implementation(name)


@contextlib.contextmanager
def as_usual(model: Any) -> Iterator[None]:
    """While the block runs, a model in training attends as measurements have it: with a cache, too."""
    in_training = model.config._attn_implementation
    attend_as_measured(model)
    try:
        yield
    finally:
        if model.config._attn_implementation != in_training:
            model.set_attn_implementation(in_training)


def is_replaceable(model: Any) -> bool:
    """Whether the model's attention is PyTorch's, handed over by transformers: Gemma 2 caps scores, gpt-oss has sinks, Falcon its own."""
    inner: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
    return bool(inner._supports_sdpa and inner._can_set_attn_implementation())


def is_plain_causal(model: Any, window: int | None = None) -> bool:
    """Whether every layer is causal attention over the whole window and no more, with values as wide as keys. window: tokens; any number if not given.

    Attention in blocks or in two parts would make another model of any other family.
    """
    layout = layers_of(model.config)
    return is_replaceable(model) and (layout.within(window) if window else layout).is_plain


def attends_in_blocks(model: Any) -> bool:
    """Whether every layer is causal attention, over the whole window or within a reach, and no more, so that blocks can tell documents apart."""
    return is_replaceable(model) and layers_of(model.config).in_blocks


def refuse_other_than_plain_causal(model: Any, window: int | None) -> None:
    """Refuse a family whose attention is more than causal attention over the whole window.

    Raises:
        UserError: by the family's name.
    """
    if not is_plain_causal(model, window):
        raise UserError(not_shared(model.config.get_text_config().model_type))


def attends_in_two_parts(model: Any) -> bool:
    """Whether plain causal attention by PyTorch is all that this model's layers do, so that prefix.py can do it in two parts."""
    config, device = model.config.get_text_config(), next(model.parameters()).device
    return config._attn_implementation == "sdpa" and device.type in ("cpu", "cuda") and is_plain_causal(model)


# ---- the model's own attention, with someone looking on ------------------------------------------------------------------


@dataclass(frozen=True)
class _Observer:
    """look: is given the attention module, queries, keys and keyword arguments. usual: the name of the model's own attention."""

    look: Callable[..., None]
    usual: str


@contextlib.contextmanager
def observed(model: Any, look: Callable[..., None]) -> Iterator[None]:
    """While the block runs, `look(module, query, key, **options)` is called before each layer attends; results stay the same.

    Raises:
        UserError: the model's attention does not go through transformers' interface.
    """
    if not model._can_set_attn_implementation():
        raise UserError(
            f"scores are read where transformers hands queries and keys to its attention function, but {type(model).__name__} "
            "does not do so; choose a model that transformers itself implements"
        )
    config, usual = model.config.get_text_config(), str(model.config._attn_implementation)
    config.ropewalk_observer = _Observer(look, usual)
    model.set_attn_implementation(OBSERVED)
    try:
        yield
    finally:
        model.set_attn_implementation(usual)
        del config.ropewalk_observer


def _attend_observed(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> Any:
    observer: _Observer = module.config.ropewalk_observer
    observer.look(module, query, key, **options)
    return _attention_function(module, observer.usual)(module, query, key, value, attention_mask, **options)


def _attention_function(module: nn.Module, name: str) -> Callable[..., Any]:
    """The attention function of a name; "eager" is each family's own, and in no table."""
    eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    return eager if name == "eager" and eager is not None else ALL_ATTENTION_FUNCTIONS[name]


def _usual_mask(*args: Any, config: Any, **kwargs: Any) -> Any:
    usual = config.get_text_config().ropewalk_observer.usual
    return ALL_MASK_ATTENTION_FUNCTIONS[usual](*args, config=config, **kwargs)


for _name, _function, _mask in (
    (BLOCKS, _attend_in_blocks, _mask_in_blocks),
    (LAST_POSITIONS, last_positions.attend, sdpa_mask),
    (OBSERVED, _attend_observed, _usual_mask),
    # These know who sees whom. Without a mask function transformers makes none, and asks a GPU for none of the positions.
    (PREFIX, prefix.attend, None),
    (CACHED_ROWS, cached_rows.attend, None),
):
    AttentionInterface.register(_name, _function)
    if _mask is not None:
        AttentionMaskInterface.register(_name, _mask)
