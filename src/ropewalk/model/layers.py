"""Where a model's decoder layers are, what is sharded, checkpointed and compiled one at a time; and how wide its heads are."""

from __future__ import annotations

from typing import Any

from torch import nn

from ropewalk.errors import UserError


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """The model's decoder layers, in order: the longest list of modules of one class.

    Raises:
        UserError: there is none.
    """
    lists = [
        list(module)
        for module in model.modules()
        if isinstance(module, nn.ModuleList) and len({type(layer) for layer in module}) == 1
    ]
    if not lists:
        raise UserError(
            f"a model that is trained has a list of decoder layers of one kind, and {type(model).__name__} has none; use another family"
        )
    return max(lists, key=len)


def head_size(model: nn.Module) -> int:
    """Coordinates of one attention head of a transformers model."""
    config: Any = model.config.get_text_config()
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
