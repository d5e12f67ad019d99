"""What each model family (a config's `model_type`) does that its config.json need not say: one row a family, in one table.

in   a model_type
out  its `Family`: defaults of RoPE, layers, logits; or what it has instead of RoPE

Facts of the families' own papers and code, for keys that a config.json may leave out; what a config.json says always wins.
tests/checkpoint/test_families.py holds them against the config classes of transformers. Everything that knows families reads
this table: rope_config (RoPE), the planner (layers), the loss (logits), testing (tiny models).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layers:
    """The weights of a layer beside its matrix products, for a count that is exact.

    Attributes:
        gated: the MLP has a gate beside its up projection.
        norms, final_norm: vectors of the model's width in a layer's norms and in the last one (a LayerNorm with bias counts two).
        qkv_bias, out_bias, mlp_bias: whether the projections have one, or the config key that says so.
        bias_default: what such a key means where a config leaves it out.
        qk_norm: vectors on queries and keys, per head ("head") or over the whole projection ("width").
        head_bias: whether the output head has a bias.
        kv_heads: key and value heads where a config names none; as many as query heads if None.
    """

    gated: bool = True
    norms: int = 2
    final_norm: int = 1
    qkv_bias: bool | str = False
    out_bias: bool | str = False
    mlp_bias: bool | str = False
    bias_default: bool = False
    qk_norm: str = ""
    head_bias: bool = False
    kv_heads: int | None = None


@dataclass(frozen=True)
class Family:
    """One family.

    Attributes:
        rope_theta: where a config names none; None: a config has to name it.
        rotated_share: share of a head's coordinates that is rotated, where a config names none.
        head_dim: size of a head where a config names none; width / heads if None.
        window: max_position_embeddings where a config names none.
        pretrained_window: original window of its scaled models, where it is not window / factor but longer (Gemma 3 was pretrained at
            32768 tokens, scaled by 8, and reads 131072).
        theta_key, share_key: older keys of rope_theta and the rotated share, which are written too.
        unscaled_layers: type of the layers that have an unscaled RoPE of their own (a sliding window, which no scaling makes longer).
        unscaled_theta: rope_theta of those layers where a config names none.
        only_longrope: the config class takes no other scaling than "longrope".
        instead_of_rope: what the family has in its place; empty where it has RoPE.
        fixed_rope: its RoPE is a table in its code, which no config can scale.
        tied: whether embedding and output head share their weights, where a config does not say.
        full_every: every n-th layer sees the whole window, the others `sliding_window` tokens, where a config names no layer types.
        sliding_if_asked: a sliding window holds from layer `max_window_layers` on, and only with `use_sliding_window`.
        logits_key, logits_divided: the config key of a factor on the logits; whether they are divided by it.
        layers: as the planner counts them; None: counted like Llama's, and said so.
    """

    rope_theta: float | None = None
    rotated_share: float = 1.0
    head_dim: int | None = None
    window: int | None = None
    pretrained_window: int | None = None
    theta_key: str = ""
    share_key: str = ""
    unscaled_layers: str = ""
    unscaled_theta: float = 10000.0
    only_longrope: bool = False
    instead_of_rope: str = ""
    fixed_rope: bool = False
    tied: bool = False
    full_every: int = 0
    sliding_if_asked: bool = False
    logits_key: str = ""
    logits_divided: bool = False
    layers: Layers | None = None


#: In a model with several types of layer, the type that sees the whole window.
FULL_LAYERS = "full_attention"
_LEARNED = "learned positions"

LLAMA_LAYERS = Layers(qkv_bias="attention_bias", out_bias="attention_bias", mlp_bias="mlp_bias")
_QWEN3_LAYERS = Layers(qkv_bias="attention_bias", out_bias="attention_bias", qk_norm="head")
_NEOX_LAYERS = Layers(
    gated=False,
    norms=4,
    final_norm=2,
    qkv_bias="attention_bias",
    out_bias="attention_bias",
    mlp_bias=True,
    bias_default=True,
)
_STARCODER_LAYERS = Layers(
    gated=False, norms=4, final_norm=2, qkv_bias="use_bias", out_bias="use_bias", mlp_bias="use_bias", bias_default=True
)
# One LayerNorm with bias in a layer of Phi, before attention and MLP both.
_PHI_LAYERS = Layers(gated=False, norms=2, final_norm=2, qkv_bias=True, out_bias=True, mlp_bias=True, head_bias=True)
_GRANITE_MOE = Family(logits_key="logits_scaling", logits_divided=True)

FAMILIES: dict[str, Family] = {
    "llama": Family(10000.0, layers=LLAMA_LAYERS),
    "mistral": Family(10000.0, layers=Layers(kv_heads=8)),
    "mixtral": Family(1000000.0, layers=Layers(kv_heads=8)),
    "qwen2": Family(10000.0, sliding_if_asked=True, layers=Layers(qkv_bias=True)),
    "qwen3": Family(10000.0, head_dim=128, sliding_if_asked=True, layers=_QWEN3_LAYERS),
    "qwen3_moe": Family(sliding_if_asked=True, layers=_QWEN3_LAYERS),
    "gemma": Family(10000.0, head_dim=256, tied=True, layers=Layers()),
    "gemma2": Family(10000.0, head_dim=256, tied=True, full_every=2, layers=Layers(norms=4)),
    "gemma3_text": Family(
        1000000.0,
        head_dim=256,
        window=131072,
        pretrained_window=32768,
        unscaled_layers="sliding_attention",
        tied=True,
        full_every=6,
        layers=Layers(norms=4, qk_norm="head"),
    ),
    "phi": Family(10000.0, rotated_share=0.5, layers=_PHI_LAYERS),
    "phi3": Family(10000.0, only_longrope=True, layers=Layers()),
    "gpt_neox": Family(
        10000.0, rotated_share=0.25, theta_key="rotary_emb_base", share_key="rotary_pct", layers=_NEOX_LAYERS
    ),
    "olmo": Family(10000.0, layers=Layers(norms=0, final_norm=0)),
    "olmo2": Family(10000.0, layers=Layers(qk_norm="width")),
    "stablelm": Family(10000.0, rotated_share=0.25, layers=Layers(norms=4, final_norm=2, qkv_bias="use_qkv_bias")),
    "starcoder2": Family(10000.0, tied=True, layers=_STARCODER_LAYERS),
    "granite": Family(10000.0, logits_key="logits_scaling", logits_divided=True, layers=LLAMA_LAYERS),
    "granitemoe": _GRANITE_MOE,
    "granitemoeshared": _GRANITE_MOE,
    "granitemoehybrid": _GRANITE_MOE,
    "cohere": Family(logits_key="logit_scale"),
    "cohere2": Family(logits_key="logit_scale"),
    "cohere2_moe": Family(logits_key="logit_scale"),
    "cohere_compass_text": Family(logits_key="logit_scale"),
    "hyperclovax": Family(logits_key="logits_scaling"),
    "gpt2": Family(instead_of_rope=_LEARNED),
    "opt": Family(instead_of_rope=_LEARNED),
    "gpt_neo": Family(instead_of_rope=_LEARNED),
    "gpt_bigcode": Family(instead_of_rope=_LEARNED),
    "bert": Family(instead_of_rope=_LEARNED),
    "mpt": Family(instead_of_rope="ALiBi"),
    "bloom": Family(instead_of_rope="ALiBi"),
    "t5": Family(instead_of_rope="relative position buckets"),
    "mamba": Family(instead_of_rope="no positions at all"),
    "mamba2": Family(instead_of_rope="no positions at all"),
    "gptj": Family(fixed_rope=True),
    "codegen": Family(fixed_rope=True),
}
_UNKNOWN = Family()


def family_of(model_type: str) -> Family:
    """The row of a family; for one that is not in the table a row that takes everything from the config."""
    return FAMILIES.get(model_type, _UNKNOWN)
