"""Sound configs by the kind of thing they are: what `doctor` is tried on. Plain dictionaries, no torch.

They have the keys that published files have; sick_shelf.py has the sick ones.
"""

from __future__ import annotations

import copy
from typing import Any

Config = dict[str, Any]

_LLAMA = dict(
    architectures=["LlamaForCausalLM"],
    model_type="llama",
    hidden_size=4096,
    intermediate_size=11008,
    num_attention_heads=32,
    num_hidden_layers=32,
    num_key_value_heads=32,
    vocab_size=32000,
)


def llama_2() -> Config:
    return _LLAMA | dict(
        max_position_embeddings=4096, rope_theta=10000.0, rope_scaling=None, transformers_version="4.31.0"
    )


def llama_1_without_theta() -> Config:
    return _LLAMA | dict(max_sequence_length=2048, max_position_embeddings=2048, transformers_version="4.28.1")


def llama_31() -> Config:
    scaling = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)
    return _LLAMA | dict(
        intermediate_size=14336,
        num_key_value_heads=8,
        max_position_embeddings=131072,
        rope_theta=500000.0,
        rope_scaling=scaling | dict(rope_type="llama3"),
        vocab_size=128256,
        transformers_version="4.42.3",
    )


def vicuna_16k() -> Config:
    return _LLAMA | dict(
        max_sequence_length=16384,
        max_position_embeddings=4096,
        rope_scaling=dict(factor=4.0, type="linear"),
        transformers_version="4.31.0",
    )


def yarn_llama_2_64k() -> Config:
    scaling = dict(factor=16.0, original_max_position_embeddings=4096, type="yarn", finetuned=True)
    return _LLAMA | dict(max_position_embeddings=65536, rope_scaling=scaling, transformers_version="4.33.0")


def smollm2() -> Config:
    return _LLAMA | dict(
        hidden_size=576,
        intermediate_size=1536,
        num_attention_heads=9,
        num_hidden_layers=30,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        rope_theta=100000,
        rope_scaling=None,
        rope_interleaved=False,
        vocab_size=49152,
        transformers_version="4.40.1",
    )


def mistral(version: str = "0.3") -> Config:
    return dict(
        architectures=["MistralForCausalLM"],
        model_type="mistral",
        hidden_size=4096,
        intermediate_size=14336,
        num_attention_heads=32,
        num_hidden_layers=32,
        num_key_value_heads=8,
        max_position_embeddings=32768,
        rope_theta=10000.0 if version == "0.1" else 1000000.0,
        sliding_window=4096 if version == "0.1" else None,
        vocab_size=32768,
        transformers_version="4.42.0.dev0",
    )


def qwen25() -> Config:
    return dict(
        architectures=["Qwen2ForCausalLM"],
        model_type="qwen2",
        hidden_size=3584,
        intermediate_size=18944,
        num_attention_heads=28,
        num_hidden_layers=28,
        num_key_value_heads=4,
        max_position_embeddings=32768,
        max_window_layers=28,
        rope_theta=1000000.0,
        sliding_window=131072,
        use_sliding_window=False,
        vocab_size=152064,
        transformers_version="4.43.1",
    )


def qwen25_yarn() -> Config:
    """As the model card of Qwen2.5 asks for: max_position_embeddings stays where it was."""
    return qwen25() | dict(rope_scaling=dict(factor=4.0, original_max_position_embeddings=32768, type="yarn"))


def qwen3_moe() -> Config:
    return dict(
        architectures=["Qwen3MoeForCausalLM"],
        model_type="qwen3_moe",
        head_dim=128,
        hidden_size=2048,
        intermediate_size=6144,
        moe_intermediate_size=768,
        num_attention_heads=32,
        num_experts=128,
        num_experts_per_tok=8,
        num_hidden_layers=48,
        num_key_value_heads=4,
        max_position_embeddings=40960,
        rope_theta=1000000.0,
        rope_scaling=None,
        vocab_size=151936,
        transformers_version="4.51.0",
    )


def gemma_3_4b() -> Config:
    text = dict(
        hidden_size=2560,
        intermediate_size=10240,
        model_type="gemma3_text",
        num_hidden_layers=34,
        rope_scaling=dict(factor=8.0, rope_type="linear"),
        sliding_window=1024,
    )
    return dict(
        architectures=["Gemma3ForConditionalGeneration"],
        model_type="gemma3",
        text_config=text,
        transformers_version="4.50.0.dev0",
    )


def gemma_3_270m() -> Config:
    return dict(
        architectures=["Gemma3ForCausalLM"],
        model_type="gemma3_text",
        head_dim=256,
        hidden_size=640,
        intermediate_size=2048,
        layer_types=(["sliding_attention"] * 5 + ["full_attention"]) * 3,
        num_attention_heads=4,
        num_hidden_layers=18,
        num_key_value_heads=1,
        max_position_embeddings=32768,
        rope_local_base_freq=10000.0,
        rope_scaling=None,
        rope_theta=1000000.0,
        sliding_window=512,
        vocab_size=262144,
        transformers_version="4.55.0.dev0",
    )


def phi_3_128k() -> Config:
    short, long = [1.05] * 20 + [1.1 + 0.05 * pair for pair in range(28)], [1.0 + 1.2 * pair for pair in range(48)]
    return dict(
        architectures=["Phi3ForCausalLM"],
        model_type="phi3",
        hidden_size=3072,
        intermediate_size=8192,
        num_attention_heads=32,
        num_hidden_layers=32,
        num_key_value_heads=32,
        max_position_embeddings=131072,
        original_max_position_embeddings=4096,
        rope_theta=10000.0,
        rope_scaling=dict(long_factor=long, short_factor=short, type="longrope"),
        sliding_window=262144,
        vocab_size=32064,
        pad_token_id=32000,
        transformers_version="4.40.2",
    )


def gpt_oss() -> Config:
    scaling = dict(beta_fast=32.0, beta_slow=1.0, factor=32.0, original_max_position_embeddings=4096)
    return dict(
        architectures=["GptOssForCausalLM"],
        model_type="gpt_oss",
        head_dim=64,
        hidden_size=2880,
        initial_context_length=4096,
        intermediate_size=2880,
        layer_types=["sliding_attention", "full_attention"] * 12,
        num_attention_heads=64,
        num_hidden_layers=24,
        num_key_value_heads=8,
        max_position_embeddings=131072,
        rope_theta=150000,
        rope_scaling=scaling | dict(rope_type="yarn", truncate=False),
        sliding_window=128,
        vocab_size=201088,
        transformers_version="4.55.0.dev0",
    )


def pythia() -> Config:
    return dict(
        architectures=["GPTNeoXForCausalLM"],
        model_type="gpt_neox",
        hidden_size=768,
        intermediate_size=3072,
        num_attention_heads=12,
        num_hidden_layers=12,
        max_position_embeddings=2048,
        rotary_emb_base=10000,
        rotary_pct=0.25,
        vocab_size=50304,
        use_parallel_residual=True,
        transformers_version="4.24.0",
    )


def smollm3() -> Config:
    return dict(
        architectures=["SmolLM3ForCausalLM"],
        model_type="smollm3",
        hidden_size=2048,
        intermediate_size=11008,
        num_attention_heads=16,
        num_hidden_layers=36,
        num_key_value_heads=4,
        max_position_embeddings=65536,
        no_rope_layer_interval=4,
        no_rope_layers=[1, 1, 1, 0] * 9,
        pad_token_id=128004,
        rope_theta=5000000.0,
        rope_scaling=None,
        use_sliding_window=False,
        vocab_size=128256,
        transformers_version="4.54.0.dev0",
    )


def llama_dynamic() -> Config:
    return llama_2() | dict(rope_scaling=dict(factor=4.0, type="dynamic"))


def mistral_sliding() -> Config:
    """Mistral-7B-v0.1, whose attention slides in every layer."""
    return mistral("0.1")


def deepseek_r1_0528() -> Config:
    scaling = dict(beta_fast=32, beta_slow=1, factor=40, mscale=1.0, mscale_all_dim=1.0, type="yarn")
    return dict(
        architectures=["DeepseekV3ForCausalLM"],
        model_type="deepseek_v3",
        hidden_size=7168,
        intermediate_size=18432,
        kv_lora_rank=512,
        q_lora_rank=1536,
        num_attention_heads=128,
        num_hidden_layers=61,
        num_key_value_heads=128,
        qk_nope_head_dim=128,
        qk_rope_head_dim=64,
        v_head_dim=128,
        max_position_embeddings=163840,
        rope_theta=10000,
        rope_scaling=scaling | dict(original_max_position_embeddings=4096),
        vocab_size=129280,
        transformers_version="4.46.3",
    )


def qwen3_vl() -> Config:
    """A language model inside a multimodal config, with positions for images (mrope)."""
    text = dict(
        model_type="qwen3_vl_text",
        head_dim=128,
        hidden_size=2560,
        intermediate_size=9728,
        num_attention_heads=32,
        num_hidden_layers=36,
        num_key_value_heads=8,
        max_position_embeddings=262144,
        rope_theta=5000000,
        rope_scaling=dict(mrope_interleaved=True, mrope_section=[24, 20, 20], rope_type="default"),
        vocab_size=151936,
    )
    return dict(
        architectures=["Qwen3VLForConditionalGeneration"],
        model_type="qwen3_vl",
        text_config=text,
        transformers_version="4.57.0.dev0",
    )


def nemotron_mini() -> Config:
    return dict(
        architectures=["NemotronForCausalLM"],
        model_type="nemotron",
        head_dim=128,
        hidden_size=3072,
        intermediate_size=9216,
        num_attention_heads=24,
        num_hidden_layers=32,
        num_key_value_heads=8,
        max_position_embeddings=4096,
        partial_rotary_factor=0.5,
        rope_theta=10000,
        vocab_size=256000,
        transformers_version="4.32.0.dev0",
    )


def written_by_v5() -> Config:
    """A plain model with LLaMA's own rope_theta, saved by transformers 5: every reader takes 10000, named or not."""
    config = llama_2()
    del config["rope_theta"], config["rope_scaling"]
    return config | dict(rope_parameters=dict(rope_theta=10000.0, rope_type="default"), transformers_version="5.23.0")


def extended(base: Config | None = None, *, factor: float = 4.0, rope_type: str = "linear", **scaling: Any) -> Config:
    """What `ropewalk extend` writes: every spelling, the new window, and the block. Written out by hand."""
    config = copy.deepcopy(base or llama_2())
    original = config["max_position_embeddings"]
    window, rope_theta = int(original * factor), config.get("rope_theta", config.get("rotary_emb_base"))
    entry = dict(rope_type=rope_type, factor=factor) | scaling
    method = dict(method=rope_type, factor=factor) | {k: v for k, v in scaling.items() if k != ORIGINAL}
    step = {"method": rope_type, "factor": factor, "from": original, "to": window, "ropewalk": "0.1.0"}
    return config | dict(
        max_position_embeddings=window,
        rope_theta=rope_theta,
        rope_scaling=entry | dict(type=rope_type),
        rope_parameters=entry | dict(rope_theta=rope_theta),
        ropewalk=dict(
            original_window=original,
            window=window,
            scaling=method,
            rope_theta=rope_theta,
            steps=0,
            history=[step],
        ),
    )


ORIGINAL = "original_max_position_embeddings"


def extended_yarn(base: Config | None = None) -> Config:
    """YaRN as `extend` writes it: the ramp's ends and the original window stand in the keys."""
    original = (base or llama_2())["max_position_embeddings"]
    ramp = dict(beta_fast=32.0, beta_slow=1.0, truncate=True)
    return extended(base, rope_type="yarn", **ramp, original_max_position_embeddings=original)


def extended_nemotron() -> Config:
    """transformers 4 leaves this family's scaling out, whatever the keys say."""
    return extended(nemotron_mini())


def extended_modernbert_decoder() -> Config:
    """As `extend` writes it: the global layers alone are scaled, which transformers 4 has no key for."""
    full, sliding = (
        dict(rope_theta=160000.0, rope_type="linear", factor=4.0),
        dict(rope_type="default", rope_theta=10000.0),
    )
    block = extended(llama_2() | dict(rope_theta=160000.0))["ropewalk"]
    return dict(
        model_type="modernbert-decoder",
        global_rope_theta=160000.0,
        local_rope_theta=10000.0,
        rope_theta=160000.0,
        rope_parameters=dict(full_attention=full, sliding_attention=sliding),
        hidden_size=768,
        num_attention_heads=12,
        num_hidden_layers=6,
        local_attention=128,
        max_position_embeddings=16384,
        ropewalk=block,
        transformers_version="5.23.0",
    )


def gpt_j() -> Config:
    return dict(
        model_type="gptj", n_embd=4096, n_head=16, n_layer=28, n_positions=2048, rotary_dim=64, vocab_size=50400
    )


def distilbert() -> Config:
    return dict(model_type="distilbert", dim=768, hidden_dim=3072, n_heads=12, n_layers=6, max_position_embeddings=512)


def falcon_alibi() -> Config:
    return dict(model_type="falcon", alibi=True, hidden_size=4096, num_attention_heads=64, num_hidden_layers=36)


def internvl_chat() -> Config:
    """Its language model stands in a section of its own, read by code of its own."""
    return dict(
        model_type="internvl_chat", auto_map=dict(AutoConfig="c.C"), llm_config=llama_2(), transformers_version="5.1"
    )


def qwen25_vl_flat() -> Config:
    """As Qwen2.5-VL is published: the language model's keys at the top level, beside `vision_config`."""
    scaling = dict(type="mrope", mrope_section=[16, 24, 24])
    return qwen25() | dict(
        model_type="qwen2_5_vl", rope_scaling=scaling, vision_config=dict(depth=32, hidden_size=1280)
    )


SOUND = {
    build.__name__: build
    for build in (
        llama_2, llama_1_without_theta, llama_31, vicuna_16k, yarn_llama_2_64k, smollm2, mistral, qwen25, qwen25_yarn,
        qwen3_moe, gemma_3_4b, gemma_3_270m, phi_3_128k, gpt_oss, pythia, smollm3, llama_dynamic, mistral_sliding, deepseek_r1_0528, qwen3_vl, nemotron_mini, written_by_v5, extended, extended_yarn,
    )
}  # fmt: skip
#: Sound too: models without a RoPE to scale, or whose keys stand elsewhere. No program but transformers 5 was asked of these (ask.py).
ALSO_SOUND = {
    build.__name__: build
    for build in (
        extended_nemotron,
        extended_modernbert_decoder,
        gpt_j,
        distilbert,
        falcon_alibi,
        internvl_chat,
        qwen25_vl_flat,
    )
}
