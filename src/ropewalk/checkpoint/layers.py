"""Which layers of a model rotate, which slide, and how far they reach: what a longer window can change, and what not.

A `LayerLayout` says of each decoder layer whether it attends, whether it rotates and how many tokens it sees; in a sentence too. read_layers.py
reads one from a config.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from ropewalk.checkpoint.class_defaults import text_type, with_defaults
from ropewalk.checkpoint.family import FULL_LAYERS
from ropewalk.errors import UserError
from ropewalk.rope.config_numbers import whole_number

#: What can be done where no scaling helps.
TRAIN_AS_IT_IS = "train it at the longer window as it is (ropewalk train --method plain)"


def keys_seen(tokens: int, reach: int | None = None) -> float:
    """Keys that a query sees on average in a causal sequence of so many tokens: half of them, or of a layer that slides nearly its reach."""
    seen = min(reach or tokens, tokens)
    return seen - seen * seen / (2 * tokens)


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
