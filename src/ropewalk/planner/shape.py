"""The shape of a model from its config.json: how many weights, where they are, and what a token costs.

in   the dictionary of a config.json
out  a `Shape`: layers, widths, heads, experts; weights by part; floating-point operations a token

Pure arithmetic, no torch. A weight count is exact for the families with a `Layers` in families.py (tests/planner/test_shape.py holds
it against transformers). Keys that a config.json leaves out are those of transformers' config class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ropewalk.checkpoint.architecture import hurdles
from ropewalk.checkpoint.class_defaults import text_type, with_defaults
from ropewalk.checkpoint.families import LLAMA_LAYERS, family_of
from ropewalk.checkpoint.family import Layers
from ropewalk.checkpoint.layers import LayerLayout, is_masked, keys_computed, keys_seen, not_shared
from ropewalk.checkpoint.read_layers import read_layers
from ropewalk.checkpoint.rope_config import RopeConfig, text_section
from ropewalk.errors import UserError
from ropewalk.rope.config_numbers import whole_number

#: Config keys of layers that this module cannot count (latent attention, state spaces, embeddings by layer).
_UNCOUNTED = (
    "hidden_size_per_layer_input",
    "kv_lora_rank",
    "ssm_cfg",
    "mamba_d_state",
    "layers_block_type",
    "linear_num_value_heads",
    "attn_layer_period",
)


@dataclass(frozen=True)
class Shape:
    """A decoder, as far as memory and time care.

    Attributes:
        name, family: as the user named it; the config's `model_type`.
        window: tokens it reads now.
        layers, width, heads, kv_heads, head_dim: of the residual stream and the attention.
        inner: width of the MLP (of one expert). gated: whether it has a gate.
        vocabulary, tied: rows of the embedding; whether the output head shares them.
        experts, active: MLPs a layer has, and how many of them a token goes through.
        sliding, sliding_window: layers whose attention sees that many tokens only.
        small: weights of norms and biases in all layers; last: those after the last layer.
        stored: weights in the checkpoint's files, where those were at hand.
        assumed: the family is none that is known by name, and was counted as Llama's.
        layout: which layers rotate and slide.
        rope: what its config says of RoPE, where the shape is of a model by its name (named.py).
        turned_apart: why chips cannot share a window that is rotated by its length (`rotated_apart`); empty where they can.
        hurdles: what of its architecture makes a longer window harder to reach (checkpoint/architecture.py).
    """

    name: str
    family: str
    window: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    vocabulary: int
    gated: bool = True
    tied: bool = False
    experts: int = 1
    active: int = 1
    sliding: int = 0
    sliding_window: int = 0
    small: int = 0
    last: int = 0
    stored: int | None = None
    assumed: bool = False
    layout: LayerLayout | None = None
    turned_apart: str = ""
    hurdles: tuple[str, ...] = ()
    rope: RopeConfig | None = field(default=None, compare=False)

    @property
    def known_rope(self) -> RopeConfig:
        """`rope`, of a model by its name."""
        if self.rope is None:
            raise AssertionError("a shape that was read off a config alone says nothing of RoPE: see named.py")
        return self.rope

    @property
    def query_width(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        return self.kv_heads * self.head_dim

    @property
    def products(self) -> dict[str, int]:
        """Weights of one layer's matrix products that one token goes through, by name."""
        d, q, kv = self.width, self.query_width, self.kv_width
        inner = self.active * self.inner
        weights = {
            "q": d * q,
            "k": d * kv,
            "v": d * kv,
            "o": q * d,
            "gate": d * inner,
            "up": d * inner,
            "down": inner * d,
        }
        if not self.gated:
            del weights["gate"]
        if self.experts > 1:
            weights["router"] = d * self.experts
        return weights

    @property
    def layer_weights(self) -> int:
        """Weights of one layer, all experts, without norms and biases."""
        idle = (self.experts - self.active) * (3 if self.gated else 2) * self.width * self.inner
        return sum(self.products.values()) + idle

    @property
    def embedding(self) -> int:
        return self.vocabulary * self.width

    @property
    def parameters(self) -> int:
        """Weights, counted once where tied; from the files where they were at hand."""
        return self.stored if self.stored is not None else self.counted

    @property
    def counted(self) -> int:
        """Weights by this module's arithmetic, whatever the files hold."""
        tables = self.embedding * (1 if self.tied else 2)
        return self.layers * self.layer_weights + self.small + tables + self.last

    @property
    def active_weights(self) -> int:
        """Weights that one token is multiplied by: all but the embedding, which is looked up, and idle experts."""
        return self.layers * sum(self.products.values()) + self.small + self.last + self.embedding

    @property
    def slides_alone(self) -> bool:
        """Whether layers that slide do no more than that, so that training and measuring make no mask for them."""
        return self.layout is not None and self.layout.alone

    def unshared(self, tokens: int) -> str:
        """Why chips cannot share a sequence of `tokens` in training; empty where they can."""
        plain = self.layout is None or self.layout.within(tokens).is_plain
        return self.turned_apart or ("" if plain else not_shared(self.family))

    def slides(self, tokens: int) -> bool:
        """Whether layers do in a sequence of `tokens`."""
        return bool(self.sliding) and is_masked(tokens, self.sliding_window)

    def is_masked(self, tokens: int) -> bool:
        """Whether they are given a mask of all pairs."""
        return self.slides(tokens) and not self.slides_alone

    def attention_flops(self, tokens: int) -> float:
        """Of all layers' two attention products, forward, a token, at a sequence of `tokens`: of keys that are seen."""
        return self._attention(keys_seen(tokens), keys_seen(tokens, self.sliding_window))

    def attention_work(self, tokens: int, *, masked: bool = False) -> float:
        """The same of all keys that are computed, which is what takes time. masked: whether there is a mask wherever layers slide."""
        alone = self.slides_alone and not masked
        return self._attention(keys_computed(tokens), keys_computed(tokens, self.sliding_window, alone=alone))

    def _attention(self, full: float, sliding: float) -> float:
        return 4.0 * self.query_width * ((self.layers - self.sliding) * full + self.sliding * sliding)

    def flops(self, tokens: int, frozen: int = 0) -> float:
        """Of a training step, a token, by `needed_flops`. frozen: weights that it is multiplied by and that are not trained."""
        return needed_flops(self.active_weights, frozen, self.attention_flops(tokens))

    @property
    def frozen_beside_adapters(self) -> int:
        """Weights that a token is multiplied by and that adapters leave as they are: all but norms, and a head that is the embedding (training/lora.py)."""
        return self.layers * sum(self.products.values()) + self.embedding * (not self.tied)


def needed_flops(weights: float, frozen: float, attention: float) -> float:
    """Operations of a training step that a token needs, which MFU is of: 3 x (2 x weights + attention's forward), nothing recomputed, for the backward pass is
    twice the forward; of weights that are frozen 2 x, since nobody needs their gradient.
    """
    return 3.0 * (2.0 * weights + attention) - 2.0 * frozen


def read_shape(
    config: Mapping[str, Any],
    *,
    name: str,
    stored: int | None = None,
    window: int | None = None,
    original_window: int | None = None,
) -> Shape:
    """The shape that a config.json describes.

    Args:
        config: its dictionary.
        name: as the user named the model.
        stored: weights in the checkpoint's files, if they are at hand.
        window: tokens the model reads now, as `read_rope` has it; max_position_embeddings if not given.
        original_window: tokens of pretraining; the window if not given.

    Raises:
        UserError: a key is missing, or the layers are of a kind that no count here describes; the key is named.
    """
    section = text_section(dict(config))
    kind = text_type(dict(config))
    text = with_defaults({**section, "model_type": kind})
    layout = read_layers(text)
    _refuse_uncounted(text, kind, layout)
    family = family_of(kind)
    layer_facts = family.layers or LLAMA_LAYERS
    width, heads = _whole(text, "hidden_size", kind), _whole(text, "num_attention_heads", kind)
    experts = int(text.get("num_local_experts") or text.get("num_experts") or 1)
    # In a multimodal config transformers goes by the whole model's word, which stands beside the section.
    tied = config.get("tie_word_embeddings", text.get("tie_word_embeddings"))
    window = window or _whole(text, "max_position_embeddings", kind)
    shape = Shape(
        name=name,
        family=kind,
        window=window,
        layers=len(layout.layers),
        width=width,
        heads=heads,
        kv_heads=int(text.get("num_key_value_heads") or heads),
        head_dim=int(text.get("head_dim") or width // heads),
        inner=_inner(text, kind),
        vocabulary=_whole(text, "vocab_size", kind),
        gated=layer_facts.gated,
        tied=bool(tied),
        experts=experts,
        active=_whole(text, "num_experts_per_tok", kind) if experts > 1 else 1,
        sliding=len(layout.sliding),
        sliding_window=layout.sliding_window or 0,
        stored=stored,
        assumed=family.layers is None,
        layout=layout,
        hurdles=hurdles(config, layout, original_window or window),
    )
    return _with_small(shape, layer_facts, text)


def _refuse_uncounted(text: Mapping[str, Any], kind: str, layout: LayerLayout) -> None:
    others = [layer.kind for layer in layout.layers if not layer.attends][:1]
    for key in (*_UNCOUNTED, *others):
        if text.get(key) or key in others:
            raise UserError(
                f"the planner counts layers of attention and an MLP, but the config of this {kind or 'unnamed'} model has {key}; "
                "plan a model of another family"
            )


def _whole(text: Mapping[str, Any], key: str, kind: str) -> int:
    if text.get(key) is None:
        raise UserError(
            f"a plan needs {key}, and the config.json of this {kind or 'unnamed'} model has no such key; add it, or plan from the "
            "original checkpoint"
        )
    return whole_number(text, key)


def _inner(text: Mapping[str, Any], kind: str) -> int:
    return _whole(text, "moe_intermediate_size" if "moe_intermediate_size" in text else "intermediate_size", kind)


def _with_small(shape: Shape, facts: Layers, text: Mapping[str, Any]) -> Shape:
    """Add what norms and biases weigh: little, but then the count is exact."""

    def has(flag: bool | str) -> bool:
        return bool(text.get(flag)) if isinstance(flag, str) else flag

    layer = facts.norms * shape.width
    if has(facts.qkv_bias):
        layer += shape.query_width + 2 * shape.kv_width
    layer += shape.width if has(facts.out_bias) else 0
    layer += shape.inner * (2 if shape.gated else 1) + shape.width if has(facts.mlp_bias) else 0
    layer += {"head": 2 * shape.head_dim, "width": shape.query_width + shape.kv_width, "": 0}[facts.qk_norm]
    layer += shape.heads if facts.sinks else 0
    layer += shape.experts * (1 + 2 * shape.inner + shape.width) if facts.expert_bias else 0
    last = facts.final_norm * shape.width + (shape.vocabulary if facts.head_bias else 0)
    return replace(shape, small=layer * shape.layers, last=last)
