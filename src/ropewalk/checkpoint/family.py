"""What a row of the table of families can say: how a family's layers differ, what its logits do, what it has instead of RoPE.

in   nothing
out  `Family`, with its `Layers` (how its weights are counted) and its `Pattern` (which layers see the whole window)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: In a model with several types of layer, the type that sees the whole window.
FULL_LAYERS = "full_attention"
SLIDING_LAYERS = "sliding_attention"


@dataclass(frozen=True)
class Layers:
    """The weights of a layer beside its matrix products, for a count that is exact.

    Attributes:
        gated: the MLP has a gate beside its up projection.
        norms, final_norm: vectors of the model's width in a layer's norms and in the last one (a LayerNorm with bias counts two).
        qkv_bias, out_bias, mlp_bias: whether the projections have one, or the config key that says so.
        qk_norm: vectors on queries and keys, per head ("head") or over the whole projection ("width").
        head_bias: whether the output head has a bias.
        expert_bias: whether router and experts have one each.
        sinks: a number for each query head beside its scores (gpt-oss).
    """

    gated: bool = True
    norms: int = 2
    final_norm: int = 1
    qkv_bias: bool | str = False
    out_bias: bool | str = False
    mlp_bias: bool | str = False
    qk_norm: str = ""
    head_bias: bool = False
    expert_bias: bool = False
    sinks: bool = False


@dataclass(frozen=True)
class Pattern:
    """Which layers see the whole window where a config names no layer types: those with index % every == at.

    Attributes:
        every, at: of the rule.
        key: the config key that names another `every`.
        others: type of the layers between.
        last: whether the last layer sees it in any case.
    """

    every: int
    at: int = -1
    key: str = ""
    others: str = SLIDING_LAYERS
    last: bool = False

    def layer_types(self, text: dict[str, Any], layers: int) -> list[str]:
        """The type of each of `layers` layers."""
        every = text.get(self.key) or self.every
        every = len(every) if isinstance(every, str) else int(every)  # "LLLG" of EXAONE 4 means 4
        at = self.at % every
        full = {layers - 1} if self.last else set()
        return [FULL_LAYERS if index % every == at or index in full else self.others for index in range(layers)]


@dataclass(frozen=True)
class Family:
    """One family.

    Attributes:
        pretrained_window: original window of its scaled models, where it is not window / factor but longer (Gemma 3 was pretrained at
            32768 tokens, scaled by 8, and reads 131072).
        theta_key, share_key: older keys of rope_theta and the rotated share, which are written too.
        rotated_key: key of the rotated coordinates themselves, which stands in place of their share.
        local_theta_key: older key of the rope_theta of sliding layers that have a RoPE of their own.
        full_scaling_key: in a family with a RoPE a layer type, whether `rope_scaling` means that of the full layers.
        full_head_key, full_head_dim: key of the head size in full layers, and its default, where it is another one.
        theta_stretch: a config key beside "dynamic" by whose d/(d-2)-th power rope_theta is multiplied, at every length (HunYuan).
        only_longrope: the config class takes no other scaling than "longrope".
        two_keys: transformers 4 takes its rope_scaling with `type` and `factor` and no other key.
        instead_of_rope: what the family has in its place; empty where it has RoPE.
        rope_if: a config key, the value with which there is a RoPE, and what there is with any other.
        refused: why no config can scale its RoPE, or why ropewalk cannot; the end of a sentence.
        pattern: the layers' types where a config names none.
        slides: "" where only layer types say it; "all": every layer has the config's sliding window; "asked": from layer
            `max_window_layers` on, and only with `use_sliding_window`.
        rotates: "" for every layer of attention; "sliding": those that slide; "mixed": those that slide if any does, else all;
            "listed": those with 1 in `no_rope_layers`, every `no_rope_layer_interval`-th not.
        logits_key, logits_divided: the config key of a factor on the logits; whether they are divided by it.
        head_width_key: the config key of a width that the head's input is scaled to: logits are multiplied by it over the width.
        older_names: keys that transformers 5 saves under another name and no other reader looks for there (transformers 4 would take its
            class's default): older → newer.
        own_attention: whether transformers' model computes its attention itself, and hands it to no function that could take its place.
        layers: as the planner counts them; None: counted like Llama's, and said so.
    """

    pretrained_window: int | None = None
    theta_key: str = ""
    share_key: str = ""
    rotated_key: str = ""
    local_theta_key: str = ""
    full_scaling_key: bool = False
    full_head_key: str = ""
    full_head_dim: int | None = None
    theta_stretch: str = ""
    only_longrope: bool = False
    two_keys: bool = False
    instead_of_rope: str = ""
    rope_if: tuple[str, Any, str] | None = None
    refused: str = ""
    pattern: Pattern | None = None
    slides: str = ""
    rotates: str = ""
    logits_key: str = ""
    logits_divided: bool = False
    head_width_key: str = ""
    older_names: Mapping[str, str] = field(default_factory=dict)
    own_attention: bool = False
    layers: Layers | None = None
