"""Small things to try ropewalk with, offline and in seconds: tiny models of each family, a byte tokenizer, made-up text.

Public on purpose: a user's own tests need the same.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ropewalk.checkpoint.class_defaults import class_defaults
from ropewalk.checkpoint.family import FULL_LAYERS, SLIDING_LAYERS

#: A byte each, then `<s>` (beginning) and `</s>` (end).
BYTE_VOCABULARY = 258

_SHARED = dict(
    vocab_size=BYTE_VOCABULARY,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    bos_token_id=256,
    eos_token_id=257,
    pad_token_id=None,
)
#: What a tiny model has beside the settings that all share: published configs in small, by the model's name. The first seven, which
#: differ most, are those that every measurement is tested on.
_SETTINGS: dict[str, dict[str, Any]] = {
    "llama": dict(num_key_value_heads=4),
    "mistral": dict(num_key_value_heads=2, sliding_window=None, head_dim=16),
    "qwen2": dict(num_key_value_heads=2),
    "qwen3": dict(num_key_value_heads=2),
    "gemma3_text": dict(num_key_value_heads=2, sliding_window=16),
    "gpt_neox": dict(),
    "phi3": dict(num_key_value_heads=4),
    "llama-2-70b": dict(model_type="llama", num_key_value_heads=2, rms_norm_eps=1e-5),
    "llama-3": dict(model_type="llama", num_key_value_heads=2, rope_theta=500000.0),
    "llama-3.2": dict(model_type="llama", num_key_value_heads=2, rope_theta=500000.0, tie_word_embeddings=True),
    "mistral-v0.1": dict(model_type="mistral", num_key_value_heads=2, sliding_window=16, head_dim=16),
    "mixtral": dict(num_key_value_heads=2, sliding_window=None, rope_theta=1e6, num_local_experts=4, num_experts_per_tok=2),
    "qwen2.5": dict(model_type="qwen2", num_key_value_heads=2, rope_theta=1e6, use_sliding_window=False, sliding_window=64),
    "qwen2_moe": dict(num_key_value_heads=4, moe_intermediate_size=32, shared_expert_intermediate_size=32, num_experts=4,
                      num_experts_per_tok=2),
    "qwen3_moe": dict(num_key_value_heads=2, norm_topk_prob=True, moe_intermediate_size=32, num_experts=4, num_experts_per_tok=2, rope_theta=1e6),
    "qwen3_next": dict(num_key_value_heads=2, num_hidden_layers=4, rope_theta=1e7, partial_rotary_factor=0.25, head_dim=32,
                       linear_num_key_heads=2, linear_num_value_heads=2, linear_key_head_dim=8, linear_value_head_dim=8,
                       moe_intermediate_size=32, shared_expert_intermediate_size=32, num_experts=4, num_experts_per_tok=2),
    "qwen3_5_text": dict(num_key_value_heads=2, num_hidden_layers=4, rope_theta=1e7, partial_rotary_factor=0.25, head_dim=32,
                         linear_num_key_heads=2, linear_num_value_heads=2, linear_key_head_dim=8, linear_value_head_dim=8),
    "gemma": dict(num_key_value_heads=1),
    "gemma2": dict(num_key_value_heads=2, sliding_window=16),
    "gemma4_text": dict(num_key_value_heads=2, sliding_window=16, global_head_dim=32, hidden_size_per_layer_input=8,
                        vocab_size_per_layer_input=BYTE_VOCABULARY, num_kv_shared_layers=0,
                        layer_types=["sliding_attention", "full_attention"]),
    "phi": dict(),
    "phi-3-mini-4k": dict(model_type="phi3", num_key_value_heads=4, sliding_window=16),
    "phi-4": dict(model_type="phi3", num_key_value_heads=2, rope_theta=250000.0, sliding_window=None),
    "pythia": dict(model_type="gpt_neox", use_parallel_residual=True, rotary_pct=0.25, rotary_emb_base=10000),
    "olmo": dict(),
    "olmo2": dict(num_key_value_heads=2, rope_theta=500000.0),
    "olmo3": dict(num_key_value_heads=4, num_hidden_layers=4, sliding_window=16, rope_theta=500000.0),
    "olmoe": dict(num_key_value_heads=4, num_experts=4, num_experts_per_tok=2),
    "smollm3": dict(num_key_value_heads=2, num_hidden_layers=4, rope_theta=5000000.0, use_sliding_window=False),
    "cohere": dict(num_key_value_heads=4, rope_theta=75000000.0, logit_scale=0.25),
    "cohere2": dict(num_key_value_heads=2, num_hidden_layers=4, sliding_window=16, rope_theta=50000.0, logit_scale=0.25),
    "exaone4": dict(num_key_value_heads=2, num_hidden_layers=4, sliding_window=16, sliding_window_pattern=4, rope_theta=1e6),
    "exaone-4-1.2b": dict(model_type="exaone4", num_key_value_heads=2, sliding_window=None, rope_theta=1e6,
                          layer_types=["full_attention", "full_attention"]),
    "glm": dict(num_key_value_heads=2, head_dim=16, partial_rotary_factor=0.5, attention_bias=True),
    "glm4": dict(num_key_value_heads=2, head_dim=16, partial_rotary_factor=0.5),
    "granite": dict(num_key_value_heads=2, rope_theta=1e7, logits_scaling=8.0, attention_multiplier=0.0625,
                    embedding_multiplier=12.0, residual_multiplier=0.22, tie_word_embeddings=True),
    "granitemoe": dict(num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, logits_scaling=6.0,
                       attention_multiplier=0.0625),
    "helium": dict(num_key_value_heads=4, head_dim=16, rope_theta=100000.0),
    "nemotron": dict(num_key_value_heads=2, head_dim=16, partial_rotary_factor=0.5),
    "starcoder2": dict(num_key_value_heads=2, sliding_window=None),
    "starcoder2-7b": dict(model_type="starcoder2", num_key_value_heads=2, sliding_window=16, rope_theta=1e6),
    "stablelm": dict(num_key_value_heads=4, use_qkv_bias=True),
    "ernie4_5": dict(num_key_value_heads=2, head_dim=16, rope_theta=500000.0),
    "seed_oss": dict(num_key_value_heads=2, head_dim=16, rope_theta=1e7, attention_bias=True, attention_out_bias=False),
    "hunyuan_v1_dense": dict(num_key_value_heads=2, head_dim=16),
    "minicpm3": dict(num_key_value_heads=4, q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16),
    "deepseek_v2": dict(num_key_value_heads=4, q_lora_rank=None, kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=16,
                        v_head_dim=16, n_routed_experts=4, num_experts_per_tok=2, n_group=1, topk_group=1, moe_intermediate_size=32,
                        first_k_dense_replace=1, n_shared_experts=1),
    "deepseek_v3": dict(num_key_value_heads=4, q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=16,
                        v_head_dim=16, n_routed_experts=4, num_experts_per_tok=2, n_group=1, topk_group=1, moe_intermediate_size=32,
                        first_k_dense_replace=1, scoring_func="sigmoid"),
    "gpt_oss": dict(num_key_value_heads=2, head_dim=16, sliding_window=16, num_local_experts=4, num_experts_per_tok=2,
                    rope_parameters={"rope_type": "default", "rope_theta": 150000.0}),
    "llama4_text": dict(num_key_value_heads=2, num_hidden_layers=4, head_dim=16, intermediate_size_mlp=64, num_local_experts=4,
                        attention_chunk_size=16),
    "falcon-7b": dict(model_type="falcon", multi_query=True, parallel_attn=True, alibi=False),
    "falcon-rw": dict(model_type="falcon", multi_query=False, parallel_attn=False, alibi=True),
    "llama-3.1": dict(model_type="llama", num_key_value_heads=2, rope_parameters={
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16, "rope_theta": 500000.0}),
    "phi-3-mini-128k": dict(model_type="phi3", num_key_value_heads=4, sliding_window=4096, original_max_position_embeddings=16, rope_scaling={
        "type": "longrope", "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7],
        "long_factor": [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.0]}),
    "phi-4-mini": dict(model_type="phi3", num_key_value_heads=2, sliding_window=4096, partial_rotary_factor=0.75,
                       original_max_position_embeddings=16, rope_scaling={
        "type": "longrope", "short_factor": [1.0] * 6, "long_factor": [1.0, 1.2, 2.0, 2.5, 3.0, 4.0]}),
    "gpt-oss-20b": dict(model_type="gpt_oss", num_key_value_heads=2, head_dim=16, sliding_window=16, num_local_experts=4,
                        num_experts_per_tok=2, rope_parameters={
        "rope_type": "yarn", "factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
        "original_max_position_embeddings": 16, "rope_theta": 150000.0}),
    "deepseek-v2-lite": dict(model_type="deepseek_v2", num_key_value_heads=4, q_lora_rank=None, kv_lora_rank=16, qk_nope_head_dim=16,
                             qk_rope_head_dim=16, v_head_dim=16, n_routed_experts=4, num_experts_per_tok=2, n_group=1, topk_group=1,
                             moe_intermediate_size=32, first_k_dense_replace=1, n_shared_experts=1, rope_theta=10000.0, rope_scaling={
        "type": "yarn", "factor": 4.0, "beta_fast": 32, "beta_slow": 1, "mscale": 0.707, "mscale_all_dim": 0.707,
        "original_max_position_embeddings": 16}),
    "olmo-3-7b": dict(model_type="olmo3", num_key_value_heads=4, num_hidden_layers=4, sliding_window=16, rope_theta=500000.0, rope_scaling={
        "rope_type": "yarn", "factor": 4.0, "beta_fast": 32, "beta_slow": 1, "attention_factor": 1.2079,
        "original_max_position_embeddings": 16}),
    "ministral-3": dict(model_type="ministral3", num_key_value_heads=2, head_dim=16, rope_parameters={
        "rope_type": "yarn", "type": "yarn", "factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0,
        "llama_4_scaling_beta": 0.1, "original_max_position_embeddings": 16, "rope_theta": 1e6}),
    "mistral-small-3.1": dict(model_type="mistral3", text_config=dict(model_type="mistral", num_key_value_heads=2, head_dim=16,
                                                                   sliding_window=None, rope_theta=1e9)),
    "qwen3-vl": dict(model_type="qwen3_vl", text_config=dict(num_key_value_heads=2, head_dim=16, rope_scaling={
        "rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True, "rope_theta": 5e6})),
    "gemma-3-4b": dict(model_type="gemma3", text_config=dict(num_key_value_heads=2, head_dim=16, sliding_window=16,
                                                            layer_types=["sliding_attention", "full_attention"])),
}  # fmt: skip
FAMILIES = tuple(_SETTINGS)[:7]
#: Every tiny model there is.
PUBLISHED = tuple(_SETTINGS)
#: An image encoder of every kind, in small; each class takes the keys that it knows.
_VISION = dict(
    hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_heads=2, depth=1, head_dim=8, image_size=28,
    patch_size=14, out_hidden_size=64, num_position_embeddings=16, deepstack_visual_indexes=[0],
)  # fmt: skip


def tiny_config(family: str = "llama", window: int = 64, **overrides: Any) -> transformers.PreTrainedConfig:
    """The configuration of a small model (`testing.PUBLISHED`, by name) with a window in tokens; of two layers, or as its kind needs."""
    settings: dict[str, Any] = dict(_SETTINGS[family])
    model_type = settings.pop("model_type", family)
    if text := settings.pop("text_config", None):
        text = {**_SHARED, "max_position_embeddings": window, **text, **overrides}
        sections: dict[str, Any] = {"text_config": text, "vision_config": _vision(model_type)}
        return transformers.CONFIG_MAPPING[model_type](**sections | settings)
    defaults = class_defaults(model_type)
    if defaults.get("head_dim"):
        settings.setdefault("head_dim", 16)
    if (
        FULL_LAYERS in defaults["rope_parameters"]
        and "layer_types" not in settings
        and "num_hidden_layers" not in settings
    ):
        settings["layer_types"] = [SLIDING_LAYERS, FULL_LAYERS]
    settings = {**_SHARED, "max_position_embeddings": window, **settings}
    return transformers.CONFIG_MAPPING[model_type](**settings | overrides)


def _vision(model_type: str) -> dict[str, Any]:
    """The settings of `_VISION` that a family's image encoder has."""
    known = transformers.CONFIG_MAPPING[model_type]().vision_config.to_dict()
    return {key: value for key, value in _VISION.items() if key in known} | {"model_type": known["model_type"]}


def tiny(family: str = "llama", window: int = 64, seed: int = 0, **overrides: Any) -> transformers.PreTrainedModel:
    """A random float32 model of a family, in evaluation mode; the same weights for the same seed."""
    config = tiny_config(family, window, **overrides)
    of_text = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    auto: Any = transformers.AutoModelForCausalLM if of_text else transformers.AutoModelForImageTextToText
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = auto.from_config(config)
    return model.eval()


def byte_tokenizer(window: int = 64) -> transformers.PreTrainedTokenizerFast:
    """One token a UTF-8 byte, `<s>` before every text. No vocabulary to download, every text encodes and decodes."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate(letters)}
    vocabulary |= {"<s>": 256, "</s>": 257}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 256)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", model_max_length=window
    )


def tiny_directory(path: str | Path, family: str = "llama", window: int = 64, seed: int = 0, **overrides: Any) -> Path:
    """Write a tiny model and its tokenizer as a checkpoint directory, as `save_pretrained` leaves it."""
    model = tiny(family, window, seed, **overrides)
    model.save_pretrained(path)
    byte_tokenizer(window).save_pretrained(path)
    return Path(path)


_WORDS = (
    "rope strand yarn hemp walk lane tar spin twist lay strong long short old new dock ship sail mast wind sea harbour "
    "morning evening the a of and in to is was with from over under slowly again never always two three seven"
).split()


def prose(words: int, seed: int = 0) -> str:
    """Made-up sentences: `words` words, the same ones for the same seed."""
    choose = random.Random(seed)
    sentences: list[str] = []
    while words > 0:
        length = min(words, choose.randint(4, 12))
        sentences.append(" ".join(choose.choices(_WORDS, k=length)).capitalize() + ".")
        words -= length
    return " ".join(sentences)
