"""Which layers of a model rotate, which slide, and how far they reach: what a longer window can change, and what not.

in   a config's section of the language model
out  a `LayerLayout`: for each decoder layer whether it attends, whether it rotates, how many tokens it sees; in a sentence too

Pure JSON, no torch. tests/model/test_layout.py holds it against what the layers of transformers' own models do, and
`model.proof` does so again for the user's config whenever a model is extended.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ropewalk.checkpoint.class_defaults import class_defaults, text_type, with_defaults
from ropewalk.checkpoint.families import family_of
from ropewalk.checkpoint.family import FULL_LAYERS, SLIDING_LAYERS, Family
from ropewalk.errors import UserError
from ropewalk.rope.config_numbers import whole_number

#: The types of layer that see a part of the window, and the config keys of how much; the first that is there holds.
_REACH_KEYS = {
    SLIDING_LAYERS: ("sliding_window", "attention_window_size"),
    "hybrid_sliding": ("sliding_window",),
    "chunked_attention": ("attention_chunk_size",),
}
#: What can be done where no scaling helps.
TRAIN_AS_IT_IS = "train it at the longer window as it is (ropewalk train --method plain)"
#: The types without attention: what they know of a token comes through a state that no position enters.
_NO_ATTENTION = ("linear_attention", "conv", "mamba", "mamba2", "recurrent")


def keys_seen(tokens: int, reach: int | None = None) -> float:
    """Keys that a query sees on average in a causal sequence of so many tokens: half of them, or of a layer that slides nearly its reach."""
    seen = min(reach or tokens, tokens)
    return seen - seen * seen / (2 * tokens)


#: What a config says of attention that does more than slide, and which training and measuring leave to transformers and its masks: scores that are capped or
#: dropped, chunks, values of another width than keys.
_MORE = ("attn_logit_softcapping", "attention_dropout", "attention_chunk_size", "kv_lora_rank")


def slides_alone(text: Mapping[str, Any]) -> bool:
    """Whether layers that slide do no more than that, so that neither training nor measuring needs a mask for them (attention_ops/sliding.py). text: of a config."""
    return not any(text.get(key) for key in _MORE)


def is_masked(tokens: int, reach: int | None) -> bool:
    """Whether transformers gives a layer a mask of all pairs: one that slides, unless it sees all (masking_utils.py)."""
    return bool(reach) and reach <= tokens


def keys_computed(tokens: int, reach: int | None = None, *, alone: bool = False) -> float:
    """Keys by which a query is multiplied: PyTorch's fused kernels know a triangle, and skip nothing of what a mask leaves out.

    On a CPU 4096 tokens under a mask of 256 took 1.9 times the triangle's time, as without any mask (docs/log.md, 2026-11-29). alone: of a
    layer that does no more than slide, so that those that are seen are computed.
    """
    return tokens if is_masked(tokens, reach) and not alone else keys_seen(tokens, reach)


@dataclass(frozen=True)
class DecoderLayer:
    """One decoder layer.

    Attributes:
        kind: its type, as the config names it.
        attends: whether it has attention.
        rotates: whether its queries and keys are rotated.
        reach: tokens it sees, the present one among them; None if it sees all.
    """

    kind: str = FULL_LAYERS
    attends: bool = True
    rotates: bool = True
    reach: int | None = None


@dataclass(frozen=True)
class LayerLayout:
    """The decoder layers of a model, in order.

    Attributes:
        layers: one entry a layer.
        own_rope: the types of layer with an unscaled RoPE of their own.
        alone: whether layers do no more than attend to all they see, so that no mask is made for those that slide.
    """

    layers: tuple[DecoderLayer, ...]
    own_rope: tuple[str, ...] = ()
    alone: bool = False

    @property
    def attention(self) -> list[DecoderLayer]:
        """The layers that have attention."""
        return [layer for layer in self.layers if layer.attends]

    @property
    def is_plain(self) -> bool:
        """Whether every layer is causal attention over the whole window and no more, whatever that window is."""
        return self.in_blocks and not self.sliding

    @property
    def in_blocks(self) -> bool:
        """Whether every layer is causal attention to all it sees and no more, so that documents are told apart without a mask."""
        return self.alone and len(self.attention) == len(self.layers)

    @property
    def reach(self) -> int | None:
        """Tokens that the last token can know of through all layers together; None if all."""
        if any(layer.reach is None for layer in self.layers):
            return None
        return 1 + sum(layer.reach - 1 for layer in self.layers if layer.reach)

    @property
    def sliding(self) -> list[DecoderLayer]:
        """The layers that see a part of the window only."""
        return [layer for layer in self.layers if layer.reach is not None]

    @property
    def sliding_window(self) -> int | None:
        """Tokens that sliding layers see; the most, if they differ; None without such layers."""
        return max((layer.reach for layer in self.sliding if layer.reach), default=None)

    def keys_seen(self, tokens: int) -> float:
        """Of all layers together."""
        return sum(keys_seen(tokens, layer.reach) for layer in self.attention)

    def keys_computed(self, tokens: int) -> float:
        """Of all layers together."""
        return sum(keys_computed(tokens, layer.reach, alone=self.alone) for layer in self.attention)

    def slides(self, tokens: int) -> bool:
        """Whether any layer does in a sequence of so many tokens."""
        return any(is_masked(tokens, layer.reach) for layer in self.attention)

    def within(self, window: int) -> LayerLayout:
        """As it is in a window of so many tokens: a layer that sees as many sees all."""
        layers = (
            DecoderLayer(layer.kind, layer.attends, layer.rotates) if layer.reach and layer.reach >= window else layer
            for layer in self.layers
        )
        return LayerLayout(tuple(layers), self.own_rope, self.alone)

    def scaled(self, window: int) -> list[DecoderLayer]:
        """The layers that need another rotation in a window of so many tokens: they rotate and see all of it."""
        return [layer for layer in self.within(window).attention if layer.rotates and layer.reach is None]

    def __str__(self) -> str:
        """What rotates, what slides and how far, in one sentence."""
        clauses = (self._who_attends(), self._who_rotates(), self._who_slides())
        return "; ".join(clause for clause in clauses if clause)

    def _who_attends(self) -> str:
        total, attention = len(self.layers), len(self.attention)
        return f"{total} layers" if attention == total else f"{attention} of {total} layers have attention"

    def _who_rotates(self) -> str:
        rotating = sum(layer.rotates for layer in self.attention)
        others = len(self.attention) - rotating
        return f"{rotating} rotate, {others} have no positions" if others else "all rotate"

    def _who_slides(self) -> str:
        sliding = self.sliding
        if not sliding:
            return "all see the whole window"
        if len(sliding) == len(self.attention):
            return f"all see {self.sliding_window} tokens only" + (
                f", {self.reach} through all layers" * bool(self.reach)
            )
        rotating = [layer for layer in sliding if layer.rotates]
        if len(rotating) == sum(layer.rotates for layer in self.attention):
            return f"those that rotate see {self.sliding_window} tokens only"
        rope = ", with a RoPE of their own that is not scaled" if self.own_rope else ", with the same RoPE"
        return f"{len(sliding)} see {self.sliding_window} tokens only" + rope * bool(rotating)


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


def not_shared(model_type: str) -> str:
    """Why devices cannot share a window in which a model is not `LayerLayout.is_plain`: in blocks its attention would be another model's."""
    return (
        f"devices cannot share a window of this {model_type} model, whose attention slides within it, caps or drops scores, is latent or is not PyTorch's; "
        "use --cp 1, or another family"
    )


def refuse_to_extend(layout: LayerLayout, window: int, model_type: str) -> None:
    """Refuse a longer window where no layer needs another rotation in it: those that rotate do not see so far.

    Raises:
        UserError: what the layers do, and what can be done.
    """
    if layout.scaled(window):
        return
    if not any(layer.rotates for layer in layout.layers):
        raise UserError(f"no layer of this {model_type} model rotates, so there is no RoPE to scale; {TRAIN_AS_IT_IS}")
    if all(layer.reach for layer in layout.within(window).attention):
        raise UserError(
            f"attention slides in every layer of this {model_type} model ({layout}), so no layer would see a longer window; add "
            f"--raise-sliding-window to let each see all {window} tokens, scaled from what it sees now, or {TRAIN_AS_IT_IS}"
        )
    raise UserError(
        f"in this {model_type} model only layers rotate that see a part of the window ({layout}): their distances do not grow with "
        f"it, so there is nothing to interpolate, and scaling would only blur them; {TRAIN_AS_IT_IS}"
    )


def with_raised_window(config_dict: dict[str, Any], layout: LayerLayout, window: int) -> dict[str, Any]:
    """A copy of a config.json in which every layer sees `window` tokens, read as a model of the window that layers saw before.

    No distance beyond that was ever between a query and a key, whatever max_position_embeddings says: it is the window of
    pretraining, from which a longer one is scaled.

    Raises:
        UserError: attention does not slide in every layer; the model was scaled while it did.
    """
    reach = layout.sliding_window
    if reach is None or len(layout.sliding) < len(layout.layers):
        raise UserError(
            f"--raise-sliding-window is for models whose attention slides in every layer, and here it does not ({layout}); leave it out"
        )
    raised = copy.deepcopy(config_dict)
    section = raised.get("text_config") if isinstance(raised.get("text_config"), dict) else raised
    text: dict[str, Any] = with_defaults({**section, "model_type": text_type(raised)})
    if reach < whole_number(text, "max_position_embeddings"):
        if "ropewalk" in raised or text.get("rope_scaling"):
            raise UserError(
                f"this model was scaled while its layers saw {reach} tokens each, so what its positions mean beyond them is not known; "
                "start from the model it was made from"
            )
        section["max_position_embeddings"] = reach
    # A reach of the window's own length sees all of it too, but transformers makes a mask of all pairs for it (`is_masked`).
    section["sliding_window"] = max(reach, window + 1)
    return raised
