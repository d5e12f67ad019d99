"""Which layers of a model rotate, which slide and how far they reach, read from its config as a `LayerLayout`.

in   a config's section of the language model, in which a list of types stands, or a rule of the family (families.py)
out  a `LayerLayout` (layers.py)

Pure JSON, no torch. tests/model/test_published.py holds it against what the layers of transformers' own models do, and
`model.proof` does so again for the user's config whenever a model is extended.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from ropewalk.checkpoint.class_defaults import class_defaults, with_defaults
from ropewalk.checkpoint.families import family_of
from ropewalk.checkpoint.family import FULL_LAYERS, SLIDING_LAYERS, Family
from ropewalk.checkpoint.layers import DecoderLayer, LayerLayout
from ropewalk.errors import UserError
from ropewalk.rope.config_numbers import whole_number

#: The types of layer that see a part of the window, and the config keys of how much; the first that is there holds.
_REACH_KEYS = {
    SLIDING_LAYERS: ("sliding_window", "attention_window_size"),
    "hybrid_sliding": ("sliding_window",),
    "chunked_attention": ("attention_chunk_size",),
}
#: The types without attention: what they know of a token comes through a state that no position enters.
_NO_ATTENTION = ("linear_attention", "conv", "mamba", "mamba2", "recurrent")
#: What a config says of attention that does more than slide, and which training and measuring leave to transformers and its masks: scores that are capped or
#: dropped, chunks, values of another width than keys.
_MORE = ("attn_logit_softcapping", "attention_dropout", "attention_chunk_size", "kv_lora_rank")


def slides_alone(text: Mapping[str, Any]) -> bool:
    """Whether layers that slide do no more than that, so that neither training nor measuring needs a mask for them (attention_ops/sliding.py). text: of a config."""
    return not any(text.get(key) for key in _MORE)


def read_layers(text: dict[str, Any]) -> LayerLayout:
    """The layout that a config's section of the language model describes.

    Raises:
        UserError: no number of layers, or a list that does not fit it.
    """
    model_type = str(text.get("model_type", ""))
    family, text = family_of(model_type), with_defaults(text)
    kinds = _layer_types(text, family)
    ropes = {**class_defaults(model_type).get("rope_parameters", {}), **(text.get("rope_parameters") or {})}
    layers = (
        DecoderLayer(kind, True, rotates, _reach(text, kind, family))
        if kind not in _NO_ATTENTION
        else DecoderLayer(kind, False, False)
        for kind, rotates in zip(kinds, _rotates(text, kinds, family), strict=True)
    )
    own = (kind for kind, entry in ropes.items() if isinstance(entry, dict) and kind != FULL_LAYERS)
    sinks = family.layers is not None and family.layers.sinks
    return LayerLayout(tuple(layers), tuple(own), alone=slides_alone(text) and not (sinks or family.own_attention))


def layers_of(config: Any) -> LayerLayout:
    """The same of a transformers config."""
    text = config.get_text_config()
    # GPT-2's dictionary has the number under another name.
    return read_layers({**text.to_dict(), "num_hidden_layers": text.num_hidden_layers})


def _layer_types(text: dict[str, Any], family: Family) -> list[str]:
    """The type of each layer, as the config lists them, or by the family's rule."""
    count = whole_number(text, "num_hidden_layers")
    if listed := text.get("layer_types") or text.get("layers_block_type"):
        return _fitting(listed, count, "layer_types")
    if cycle := text.get("block_types"):
        kinds = {"attention": SLIDING_LAYERS}  # RecurrentGemma, whose attention always slides
        return [kinds.get(kind, kind) for kind in itertools.islice(itertools.cycle(cycle), count)]
    if full := text.get("attn_layer_indices") or text.get("full_attn_idxs"):
        return [FULL_LAYERS if index in full else "linear_attention" for index in range(count)]
    if family.pattern and family.rotates == "listed" and text.get("no_rope_layers"):
        return [family.pattern.others if rotates else FULL_LAYERS for rotates in text["no_rope_layers"]]
    if family.pattern and text.get("sliding_window", True) is not None:
        return family.pattern.layer_types(text, count)
    first = {"all": 0, "asked": int(text.get("max_window_layers") or 0)}.get(family.slides, count)
    return [FULL_LAYERS] * min(first, count) + [SLIDING_LAYERS] * (count - first)


def _fitting(listed: Any, count: int, key: str) -> list[Any]:
    if not isinstance(listed, list) or len(listed) != count:
        raise UserError(
            f"a config's {key} has an entry for each of its {count} layers, got {listed!r:.80}; mend its config.json"
        )
    return listed


def _rotates(text: dict[str, Any], kinds: list[str], family: Family) -> list[bool]:
    """Whether each layer rotates, if it has attention."""
    count, slides = len(kinds), [kind in _REACH_KEYS for kind in kinds]
    if family.rotates == "sliding" or (family.rotates == "mixed" and text.get("sliding_window")):
        return slides
    if by_layer := text.get("layer_rope_theta"):  # 0 stands for no rotation
        return [bool(rope_theta) for rope_theta in _fitting(by_layer, count, "layer_rope_theta")]
    if family.rotates == "listed":
        every = whole_number(text, "no_rope_layer_interval", count + 1)
        listed = text.get("no_rope_layers") or [(index + 1) % every for index in range(count)]
        return [bool(rotates) for rotates in _fitting(listed, count, "no_rope_layers")]
    return [True] * count


def _reach(text: dict[str, Any], kind: str, family: Family) -> int | None:
    """Tokens that a layer of a type sees; None for all."""
    if family.slides == "asked" and not text.get("use_sliding_window"):
        return None
    keys = _REACH_KEYS.get(kind, ())
    if keys and kind in (text.get("layer_types") or ()) and not any(text.get(key) for key in keys):
        raise UserError(
            f"layers of type {kind} see as many tokens as the config's {' or '.join(keys)} says, and it says none; put the number of the model's "
            "publisher there, or name them full_attention in layer_types if they see all"
        )
    return next((whole_number(text, key) for key in keys if text.get(key) is not None), None)
