"""Where a model's decoder layers are: what is sharded, checkpointed and compiled one at a time."""

from __future__ import annotations

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
