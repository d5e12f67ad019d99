"""What each model family (a config's `model_type`) does that its config.json need not say: one row a family, in one table.

in   a model_type
out  its `Family` (family.py): how its layers differ, what its logits do; or what it has instead of RoPE

Facts of the families' own papers and code; what a config.json says always wins. tests/checkpoint/test_families.py holds them
against transformers, and docs/families.md shows what comes of them. Everything that knows families reads this table: read_rope
(RoPE), read_layers (which rotate, which slide), the planner (counts), the loss (logits), testing (tiny models).
"""

from __future__ import annotations

from typing import Any

from ropewalk.checkpoint.class_defaults import class_defaults, has_no_rope, with_defaults
from ropewalk.checkpoint.family import Family, Layers, Pattern
from ropewalk.errors import Unsupported

_LEARNED = (
    "a learned table of positions, which is interpolated in GPT-2, GPT-Neo, OPT, BERT, RoBERTa and their kin alone"
)
_SINUSOIDAL = "a fixed table of sines"
_RELATIVE = "a learned bias by relative position, whose last bucket holds all far distances, so that there is nothing to interpolate"
_ALIBI = "ALiBi, whose slopes could be scaled, but no config says it"
_NOTHING = "no positions at all"
_TABLE = "rotates by a table in its code, which no config can scale, and ropewalk never patches a model's code"
_OWN_THETA = "has a rope_theta of its own for each layer (layer_rope_theta), which no scaling here describes"
_TWO_ROPES = "rotates its compressed keys by a second RoPE, which no scaling here describes"
_MSCALES = "takes LongRoPE alone, with attention factors of its own (short_mscale, long_mscale), which no scaling here describes"

LLAMA_LAYERS = Layers(qkv_bias="attention_bias", out_bias="attention_bias", mlp_bias="mlp_bias")
_QWEN3_LAYERS = Layers(qkv_bias="attention_bias", out_bias="attention_bias", qk_norm="head")
_OLMO2_LAYERS = Layers(qkv_bias="attention_bias", out_bias="attention_bias", qk_norm="width")
_GEMMA_LAYERS = Layers(qkv_bias="attention_bias", out_bias="attention_bias")
_GEMMA2_LAYERS = Layers(norms=4, qkv_bias="attention_bias", out_bias="attention_bias")
_GEMMA3_LAYERS = Layers(norms=4, qkv_bias="attention_bias", out_bias="attention_bias", qk_norm="head")
_NEOX_LAYERS = Layers(
    gated=False, norms=4, final_norm=2, qkv_bias="attention_bias", out_bias="attention_bias", mlp_bias=True
)
_STARCODER_LAYERS = Layers(
    gated=False, norms=4, final_norm=2, qkv_bias="use_bias", out_bias="use_bias", mlp_bias="use_bias"
)
# One LayerNorm in a layer of Phi (with bias) and of Cohere (without), before attention and MLP both.
_PHI_LAYERS = Layers(gated=False, norms=2, final_norm=2, qkv_bias=True, out_bias=True, mlp_bias=True, head_bias=True)
_COHERE_LAYERS = Layers(norms=1, qkv_bias="attention_bias", out_bias="attention_bias")
_GRANITE = Family(logits_key="logits_scaling", logits_divided=True, layers=LLAMA_LAYERS)
_GRANITE_MOE = Family(logits_key="logits_scaling", logits_divided=True)
_QWEN2 = Family(slides="asked", layers=Layers(qkv_bias=True))
_QWEN3 = Family(slides="asked", layers=_QWEN3_LAYERS)
_LINEAR = Family(pattern=Pattern(4, key="full_attention_interval", others="linear_attention"))
_GEMMA4 = Family(pattern=Pattern(6, last=True), full_head_key="global_head_dim", full_head_dim=512)

FAMILIES: dict[str, Family] = {
    "llama": Family(layers=LLAMA_LAYERS),
    "mistral": Family(slides="all", layers=Layers()),
    "mixtral": Family(slides="all", layers=Layers()),
    "ministral": Family(slides="all", layers=Layers()),
    "ministral3": Family(slides="all", layers=Layers()),
    "qwen2": _QWEN2,
    "qwen2_moe": Family(slides="asked"),
    "qwen3": _QWEN3,
    "qwen3_moe": Family(slides="asked", older_names={"num_experts": "num_local_experts"}, layers=_QWEN3_LAYERS),
    "qwen2_vl_text": Family(slides="asked", layers=Layers(qkv_bias=True)),
    "qwen2_5_vl_text": Family(slides="asked", layers=Layers(qkv_bias=True)),
    "qwen3_vl_text": Family(layers=_QWEN3_LAYERS),
    "qwen3_vl_moe_text": Family(older_names={"num_experts": "num_local_experts"}, layers=_QWEN3_LAYERS),
    "qwen3_next": _LINEAR,
    "qwen3_5_text": _LINEAR,
    "qwen3_5_moe_text": _LINEAR,
    "gemma": Family(layers=_GEMMA_LAYERS),
    "gemma2": Family(pattern=Pattern(2), layers=_GEMMA2_LAYERS),
    "vaultgemma": Family(pattern=Pattern(2), layers=Layers(qkv_bias="attention_bias", out_bias="attention_bias")),
    "gemma3_text": Family(
        pretrained_window=32768,
        local_theta_key="rope_local_base_freq",
        full_scaling_key=True,
        pattern=Pattern(6, key="sliding_window_pattern"),
        layers=_GEMMA3_LAYERS,
    ),
    "gemma3n_text": Family(local_theta_key="rope_local_base_freq", full_scaling_key=True, pattern=Pattern(5)),
    "gemma4_text": _GEMMA4,
    "gemma4_unified_text": _GEMMA4,
    "modernbert-decoder": Family(
        theta_key="global_rope_theta",
        local_theta_key="local_rope_theta",
        pattern=Pattern(3, 0, key="global_attn_every_n_layers"),
    ),
    "phi": Family(layers=_PHI_LAYERS),
    "phi3": Family(slides="all", only_longrope=True, layers=Layers()),
    "gpt_neox": Family(theta_key="rotary_emb_base", share_key="rotary_pct", layers=_NEOX_LAYERS),
    "gpt_neox_japanese": Family(theta_key="rotary_emb_base", share_key="rotary_pct", own_attention=True),
    "gpt_oss": Family(
        pattern=Pattern(2),
        layers=Layers(qkv_bias="attention_bias", out_bias="attention_bias", expert_bias=True, sinks=True),
    ),
    "olmo": Family(
        two_keys=True, layers=Layers(norms=0, final_norm=0, qkv_bias="attention_bias", out_bias="attention_bias")
    ),
    "olmo2": Family(two_keys=True, layers=_OLMO2_LAYERS),
    "olmo3": Family(local_theta_key="rope_theta", full_scaling_key=True, pattern=Pattern(4), layers=_OLMO2_LAYERS),
    "olmoe": Family(layers=_OLMO2_LAYERS),
    "smollm3": Family(rotates="listed", layers=LLAMA_LAYERS),
    "stablelm": Family(layers=Layers(norms=4, final_norm=2, qkv_bias="use_qkv_bias")),
    "starcoder2": Family(slides="all", layers=_STARCODER_LAYERS),
    "granite": _GRANITE,
    "granitemoe": _GRANITE_MOE,
    "granitemoeshared": _GRANITE_MOE,
    "granitemoehybrid": Family(
        rope_if=("position_embedding_type", "rope", _NOTHING), logits_key="logits_scaling", logits_divided=True
    ),
    "granite_swa": Family(refused=_OWN_THETA),
    "granitemoe_swa": Family(refused=_OWN_THETA),
    "cohere": Family(logits_key="logit_scale", layers=_COHERE_LAYERS),
    "cohere2": Family(
        logits_key="logit_scale",
        pattern=Pattern(4, key="sliding_window_pattern"),
        rotates="sliding",
        layers=_COHERE_LAYERS,
    ),
    "cohere2_moe": Family(
        logits_key="logit_scale", pattern=Pattern(4, key="sliding_window_pattern"), rotates="sliding"
    ),
    "cohere_compass_text": Family(
        logits_key="logit_scale", refused="may leave each type of layer without a RoPE, which no scaling here describes"
    ),
    "exaone4": Family(
        pattern=Pattern(4, key="sliding_window_pattern"),
        rotates="mixed",
        layers=Layers(qk_norm="head"),
    ),
    "exaone_moe": Family(pattern=Pattern(4, key="sliding_window_pattern"), rotates="mixed"),
    "kolibri1": Family(pattern=Pattern(5), rotates="mixed"),
    "afmoe": Family(pattern=Pattern(4, key="global_attn_every_n_layers"), rotates="sliding"),
    "flint": Family(rotates="sliding"),
    "llama4_text": Family(
        rotates="listed", pattern=Pattern(4, key="no_rope_layer_interval", others="chunked_attention")
    ),
    "cwm": Family(pattern=Pattern(4, 0, key="window_pattern"), layers=LLAMA_LAYERS),
    "glm": Family(layers=Layers(qkv_bias="attention_bias")),
    "glm4": Family(layers=Layers(norms=4, qkv_bias="attention_bias")),
    "helium": Family(layers=LLAMA_LAYERS),
    "nemotron": Family(
        layers=Layers(
            gated=False,
            norms=4,
            final_norm=2,
            qkv_bias="attention_bias",
            out_bias="attention_bias",
            mlp_bias="mlp_bias",
        )
    ),
    "ernie4_5": Family(layers=Layers(qkv_bias="use_bias", out_bias="use_bias", mlp_bias="use_bias")),
    "seed_oss": Family(layers=Layers(qkv_bias="attention_bias", out_bias="attention_out_bias", mlp_bias="mlp_bias")),
    "hunyuan_v1_dense": Family(
        theta_stretch="alpha", layers=Layers(qkv_bias="attention_bias", out_bias="attention_bias", qk_norm="head")
    ),
    "hunyuan_v1_moe": Family(theta_stretch="alpha"),
    "arcee": Family(
        layers=Layers(gated=False, qkv_bias="attention_bias", out_bias="attention_bias", mlp_bias="mlp_bias")
    ),
    "minicpm3": Family(head_width_key="dim_model_base"),
    "minimax_m2": Family(rotated_key="rotary_dim"),
    "hyperclovax": Family(logits_key="logits_scaling"),
    "falcon": Family(rope_if=("alibi", False, _ALIBI), own_attention=True),
    "zamba2": Family(rope_if=("use_mem_rope", True, _NOTHING)),
    "deepseek_v4": Family(refused=_TWO_ROPES),
    "moshi": Family(slides="all"),
    "recurrent_gemma": Family(
        refused="attends to a fixed number of tokens (attention_window_size) and knows farther ones through a state, which no scaling "
        "of RoPE makes longer"
    ),
    "phimoe": Family(refused=_MSCALES),
    "phi4_multimodal": Family(refused=_MSCALES),
    "dbrx": Family(
        refused="keeps its rope_theta in a section of its own (attn_config), where no reader looks for a scaling"
    ),
    "longcat_flash": Family(
        refused="has two attentions in each of its layers (num_layers), which are not told apart here"
    ),
    "blt": Family(refused="reads bytes through three transformers, of which the config names one RoPE each"),
    "gptj": Family(refused=_TABLE),
    "codegen": Family(refused=_TABLE),
    "roformer": Family(refused=_TABLE),
    "chatglm": Family(
        refused="stretches its rope_theta by rope_ratio in code of its own; the same models exist as transformers has them (glm and glm4, "
        "names that end in -hf)"
    ),
    **dict.fromkeys(
        "albert align_text_model altclip_text_model bart bert bert-generation big_bird bigbird_pegasus biogpt blenderbot blenderbot-small "
        "blip_text_model camembert canine chinese_clip_text_model clap_text_model clip_text_model convbert data2vec-text "
        "decision_transformer distilbert electra ernie flaubert fnet git gpt-sw3 gpt2 gpt_bigcode gpt_neo ibert imagegpt layoutlm layoutlmv3 "
        "led lilt longformer luke lxmert markuplm mbart megatron-bert mobilebert mpnet mra mvp nystromformer openai-gpt opt plbart "
        "prophetnet reformer rembert roberta roberta-prelayernorm roc_bert siglip_text_model splinter squeezebert tapas trocr visual_bert "
        "whisper xlm xlm-roberta xlm-roberta-xl xmod yoso".split(),
        Family(instead_of_rope=_LEARNED),
    ),
    **dict.fromkeys(
        "ctrl fsmt m2m_100 marian musicgen musicgen_melody nllb-moe pegasus pegasus_x xglm".split(),
        Family(instead_of_rope=_SINUSOIDAL),
    ),
    **dict.fromkeys("bloom mpt".split(), Family(instead_of_rope=_ALIBI)),
    **dict.fromkeys(
        "cpmant deberta deberta-v2 funnel inkling_text inkling2_text longt5 mt5 pop2piano switch_transformers t5 udop umt5 xlnet".split(),
        Family(instead_of_rope=_RELATIVE),
    ),
    **dict.fromkeys(
        "falcon_mamba jamba kimi_linear mamba mamba2 nemotron_h rwkv xlstm zamba".split(),
        Family(instead_of_rope=_NOTHING),
    ),
}
_UNKNOWN = Family()
#: Whose norms multiply by 1 + weight (transformers 5, the class of the norm in each modeling file), so that zeros are the identity.
_NORMS_ADD_ONE = frozenset(
    "gemma gemma2 gemma3 gemma3_text minimax_m3_vl_text muse_glimmer_text muse_spark_text nemotron qwen3_5 qwen3_5_text qwen3_5_moe "
    "qwen3_5_moe_text qwen3_next qwen4_exp_text recurrent_gemma step3p5 step3p7 t5gemma t5gemma2 vaultgemma".split()
)


def family_of(model_type: str) -> Family:
    """The row of a family; for one that is not in the table a row that takes everything from the config."""
    return FAMILIES.get(model_type, _UNKNOWN)


def norms_from(*sections: dict[str, Any]) -> int | None:
    """What a model's norms add to their weight before they multiply by it, 0 or 1; None where no section of its config names a family."""
    named = {str(part["model_type"]) for part in sections if part.get("model_type")}
    return int(bool(named & _NORMS_ADD_ONE)) if named else None


def is_language_model(model_type: str) -> bool:
    """Whether a model_type is one of a language model that this table or transformers' classes describe."""
    return model_type in FAMILIES or bool(class_defaults(model_type)) or has_no_rope(model_type)


def instead_of_rope(text: dict[str, Any], model_type: str) -> str:
    """What a model has in place of RoPE, by its family and the key that decides it; empty where it has RoPE."""
    family = family_of(model_type)
    if family.rope_if is None:
        return family.instead_of_rope
    key, value, otherwise = family.rope_if
    return "" if with_defaults({**text, "model_type": model_type}).get(key, value) == value else otherwise


def refuse_without_rope(text: dict[str, Any], model_type: str) -> None:
    """Refuse a model that has no RoPE, or one that no config can scale.

    Raises:
        Unsupported: by the family's name: what it has instead, or why not.
    """
    family, instead = family_of(model_type), instead_of_rope(text, model_type)
    if not (instead or family.refused) and has_no_rope(model_type):
        instead = "none (no rope_parameters)"
    if instead:
        raise Unsupported(
            f"ropewalk extends models that use rotary position embedding, but {'this ' * bool(family.rope_if)}{model_type} has {instead}; "
            "choose a RoPE model (Llama, Mistral, Qwen, Gemma, GPT-NeoX, Phi-3, …)"
        )
    if family.refused:
        raise Unsupported(f"{model_type} {family.refused}; choose a model of another family")
