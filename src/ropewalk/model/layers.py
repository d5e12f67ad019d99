"""A model's decoder layers, which are sharded, recomputed and compiled one by one; and the size of its attention heads."""

from __future__ import annotations

from typing import Any

from torch import nn

from ropewalk.checkpoint.layers import LayerLayout
from ropewalk.checkpoint.read_layers import layers_of
from ropewalk.errors import UserError
from ropewalk.model.architecture import decoder_of


def decoder_layers(model: nn.Module, *, required: bool = True) -> list[nn.Module]:
    """The model's decoder layers, in order: the outermost list of modules of one class, or of decoder layers; the longest of several.

    Of a multimodal model, the language model's. Outermost, since a layer may have a list of its own: the experts of a mixture, of which there can be more than layers.

    Args:
        model: a transformers model, or a module around one.
        required: whether a model without such a list is refused; if not, there are no layers.

    Raises:
        UserError: there is none.
    """
    depths: list[tuple[int, int, list[nn.Module]]] = [
        (name.count("."), -len(module), list(module))
        for name, module in decoder_of(model).named_modules()
        if isinstance(module, nn.ModuleList) and _alike(module)
    ]
    if depths:
        return min(depths, key=lambda entry: entry[:2])[2]
    if not required:
        return []
    raise UserError(
        f"a model that is trained has a list of decoder layers of one kind, and {type(model).__name__} has none; use another family"
    )


def _alike(modules: nn.ModuleList) -> bool:
    """Whether modules are of one class, or of several classes of decoder layer (attention here, a state space there)."""
    classes = {type(module) for module in modules}
    return len(classes) == 1 or (len(classes) > 1 and all("DecoderLayer" in each.__name__ for each in classes))


def key_width(model: Any) -> int:
    """Numbers in the keys of one token in a layer, all heads together."""
    config = model.config.get_text_config()
    return (getattr(config, "num_key_value_heads", None) or config.num_attention_heads) * head_size(model)


def query_width(model: Any) -> int:
    """Numbers in the queries of one token in a layer, all heads together."""
    return model.config.get_text_config().num_attention_heads * head_size(model)


def layout_of(model: Any) -> LayerLayout:
    """Which of a transformers model's layers rotate, and which slide."""
    return layers_of(model.config)


def head_size(model: Any) -> int:
    """Coordinates of one attention head of a transformers model, rotated or not; of most layers, where they differ."""
    config = model.config.get_text_config()
    head_dim = config.to_dict().get("head_dim")  # where layers differ (Gemma 4), the attribute is refused
    return head_dim or config.hidden_size // config.num_attention_heads
