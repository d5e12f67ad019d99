"""What each reader makes of a checkpoint's config.json: a row a reader, from the raw keys and from nothing else.

in   the dictionary of a config.json, and of a tokenizer_config.json
out  the window the reader would serve, the inv_freq it would compute, the sentence why it could not

These rules do not go through `read_rope`: what ropewalk believes of a config and what a reader does with it are two things, and
`doctor` and `export` hold them against each other. Each row says where in which version it was read. vLLM, SGLang, lm-eval and
peft load the config with transformers 5; llama.cpp's converter pins 4.57.6 and reads the raw file where that fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ropewalk.readers import objections, spectra
from ropewalk.readers.reader import POSITIONS, Reader, model_type_of
from ropewalk.readers.spectra import SPECTRA, Keys, Spectrum


def _only_as_gguf(text: dict[str, Any], keys: Keys) -> str | None:
    known = model_type_of(text) in _OLLAMA
    return None if known else f"does not convert {model_type_of(text) or 'unnamed'} models itself; give it a GGUF file"


#: Families of mlx-lm whose attention makes nn.RoPE from rope_theta alone (models/*.py without initialize_rope or scale=).
_BARE_IN_MLX = frozenset(
    "gpt_neox phi phimoe stablelm gemma gemma2 gemma3n cohere cohere2 glm glm4 glm4_moe helium mixtral olmo qwen qwen2_moe "
    "qwen3_moe starcoder2 lfm2 lfm2_moe llama4_text minimax recurrent_gemma dbrx openelm ernie4_5 ernie4_5_moe granitemoehybrid "
    "olmo_hybrid nanochat solar_open mimo_v2_flash".split()
)
_MLX_THETAS: dict[str, float | None] = {
    "qwen2": 1e6, "mixtral": 1e6, "starcoder2": 1e5, "cohere": 8e6, "cohere2": 5e4, "gpt_oss": 15e4, "qwen2_moe": 1e6,
    "seed_oss": 1e4, **dict.fromkeys("granite olmo3 stablelm glm4 helium qwen3 qwen3_moe ernie4_5 gpt_neox".split()),
}  # fmt: skip
_MLX = {
    **{name: SPECTRA[name] for name in ("default", "mrope", "dynamic", "linear", "llama3", "proportional")},
    "yarn": spectra.mlx_yarn,
    "longrope": spectra.long_longrope,
}
_HUNYUAN = ("hunyuan_v1_dense", "hunyuan_v1_moe")
_WITH_ALPHA = dict.fromkeys(_HUNYUAN, {**SPECTRA, "dynamic": spectra.stretched})
_SU = {"longrope": spectra.long_longrope, "su": spectra.long_longrope}
#: Families of mlx-lm with a rotation of their own code. DeepSeek 2 takes any scaling for YaRN and MiniCPM 3 any for LongRoPE.
_MLX_OWN: dict[str, Mapping[str, Spectrum]] = {
    "phi3": {"default": spectra.unscaled, "linear": spectra.linear, **_SU},
    "nemotron": {"default": spectra.unscaled, "linear": spectra.linear},
    "deepseek_v2": {"yarn": spectra.mlx_yarn},
    "minicpm3": _SU,
    "hunyuan_v1_dense": {"default": spectra.unscaled, "dynamic": spectra.stretched},
}
#: What Ollama's own converters (convert/convert_*.go) take out of rope_scaling, by family; all others need a GGUF file.
_OLLAMA_QWEN: dict[str, Spectrum] = {
    "default": spectra.unscaled,
    "mrope": spectra.unscaled,
    "yarn": spectra.yarn_of_the_new_window,
}
_OLLAMA: dict[str, Mapping[str, Spectrum]] = {
    # convert_llama.go takes these two and passes over any other; the others stop at a word that they do not know.
    "llama": dict.fromkeys(SPECTRA, spectra.unscaled) | {"linear": spectra.linear, "llama3": spectra.llama3},
    "qwen2": _OLLAMA_QWEN,
    "qwen3": _OLLAMA_QWEN,
    "qwen3_moe": _OLLAMA_QWEN,
    "phi3": {"default": spectra.unscaled, "longrope": spectra.longrope, "su": spectra.longrope},
}
_FROM_LLAMA = frozenset("llama mistral mixtral granite smollm3 arcee apertus exaone exaone4 nanbeige afmoe".split())

_ROWS = (
    Reader(
        "transformers 4",
        "4.57.6",
        "modeling_rope_utils.py, models/*/configuration_*.py; the window is what generation and the tokenizer's user go by",
        blocks=("rope_scaling",),
        blocks_of={"modernbert-decoder": ("rope_scaling", "rope_parameters")},  # to see what it leaves out
        inside=False,
        legacy_type=True,
        computes={name: spectrum for name, spectrum in SPECTRA.items() if name != "proportional"},
        computes_of=_WITH_ALPHA,
        # ModernBERT's decoder has one rope_scaling for its global and its local layers, so that none can be written there.
        unscaled=frozenset({"nemotron", "modernbert-decoder"}),
        objections=(objections.younger_family, objections.su_elsewhere, objections.lost_key, objections.scores_without_mscale, objections.three_keys_of_phi3, objections.two_keys, objections.longrope_without_factor, objections.factors_for_each_pair),
    ),
    Reader(
        "transformers 5",
        "5.23.0",
        "modeling_rope_utils.py: RotaryEmbeddingConfigMixin.convert_rope_params_to_dict, standardize_rope_params",
        computes_of=_WITH_ALPHA,
        objections=(objections.no_whole_length, objections.earlier_longrope, objections.factors_for_each_pair),
    ),
    Reader(
        "vllm",
        "0.32.0",
        "config/model.py: _get_and_verify_max_len; transformers_utils/model_arch_config_convertor.py: derive_max_model_len_and_key; "
        "transformers_utils/config.py: patch_legacy_rope_type; model_executor/layers/rotary_embedding",
        lengths=(POSITIONS, "n_positions", "max_seq_len", "seq_length", "model_max_length", "max_target_positions",
                 "max_sequence_length", "max_seq_length", "seq_len"),
        least=True,
        decisive="model_max_length",
        multiplies=True,
        unless=frozenset({"su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling"}),
        nested_too=True,
        computes={**SPECTRA, "dynamic": spectra.stretched, "proportional": spectra.proportional_alone},
        # models/deepseek_v2.py and gpt_oss.py take any scaling for YaRN.
        computes_of=dict.fromkeys(("deepseek_v2", "deepseek_v3", "gpt_oss"), {"default": spectra.unscaled, "yarn": spectra.yarn}),
        attends=spectra.attention_factor_in_vllm,
        # Elsewhere it computes NaN of pairs that stand still (run in 0.32).
        only_in={"proportional": frozenset({"gemma4_text"})},
        longrope_at_original=True,
        objections=(objections.no_whole_length, objections.factors_for_each_pair, objections.two_types, objections.whole_factor,
                    objections.queries_by_position),
    ),
    Reader(
        "sglang",
        "0.5.23",
        "srt/utils/hf_transformers/common.py: get_context_length; srt/layers/rotary_embedding/factory.py: get_rope; "
        "srt/models/gemma3_causal.py: Gemma3Attention, which scales no layer",
        lengths=("max_sequence_length", "seq_length", "max_seq_len", "model_max_length", POSITIONS),
        multiplies=True,
        unless=frozenset({"su", "longrope", "llama3", "yarn"}),
        computes={**SPECTRA, "dynamic": spectra.static_ntk, "proportional": spectra.proportional_alone},
        attends=spectra.own_attention_factor,
        unscaled=frozenset({"gemma3_text"}),
        objections=(objections.no_whole_length, objections.factors_for_each_pair, objections.whole_factor),
    ),
    Reader(
        "llama.cpp",
        "convert_hf_to_gguf 0.1.1, xllamacpp 2026.10",
        "conversion/base.py: TextModel.__init__, set_gguf_parameters; conversion/gptneox.py, which writes no RoPE key; "
        "conversion/llama.py: generate_extra_tensors",
        blocks=("rope_parameters", "rope_scaling"),
        lengths=(POSITIONS, "n_ctx", "n_positions", "max_length", "max_sequence_length", "model_max_length"),
        computes={name: SPECTRA[name] for name in ("default", "mrope", "linear", "llama3", "longrope", "su", "proportional")}
        | {"yarn": spectra.rounded_yarn},
        computes_of=dict.fromkeys(_HUNYUAN, {"linear": spectra.linear, "yarn": spectra.rounded_yarn, "dynamic": spectra.stretched}),
        only_in={"llama3": _FROM_LLAMA, "longrope": frozenset({"phi3", "phimoe"}), "su": frozenset({"phi3", "phimoe"}),
                 "proportional": frozenset({"gemma4_text"})},
        unscaled=frozenset({"gpt_neox"}),
        without_theta=True,
        refuses_others=False,
        objections=(objections.no_whole_length, objections.factors_for_each_pair, objections.layers_by_heart, objections.scores_by_heart, objections.router_by_heart, objections.unnamed_sigmoid, objections.deepseeks_scores, objections.queries_by_heart),
    ),
    Reader(
        "mlx",
        "mlx-lm 0.32.2",
        "models/rope_utils.py: initialize_rope; models/*.py: ModelArgs, Attention. It sets no limit of its own",
        blocks=("rope_scaling",),
        blocks_of=dict.fromkeys(("qwen3", "gemma4_text", "ministral3"), ("rope_scaling", "rope_parameters")),
        inside=False,
        legacy_type=True,
        computes=_MLX,
        computes_of=_MLX_OWN,
        attends=spectra.own_attention_factor,
        unscaled=_BARE_IN_MLX,
        thetas=_MLX_THETAS,
        objections=(objections.lost_key, objections.factors_for_each_pair, objections.layers_by_heart),
    ),
    Reader(
        "ollama",
        "main of August 2026",
        "convert/convert_llama.go, convert_qwen2.go, convert_qwen3.go, convert_phi3.go; num_ctx is lowered to context_length",
        blocks=("rope_scaling",),
        inside=False,
        legacy_type=True,
        computes_of=_OLLAMA,
        objections=(_only_as_gguf,),
    ),
    Reader(
        "peft",
        "0.21.2",
        "the base of an adapter is loaded by transformers; peft keeps nothing of RoPE",
        objections=(objections.no_whole_length, objections.earlier_longrope, objections.factors_for_each_pair),
    ),
    Reader(
        "lm-eval",
        "0.4.13",
        "models/utils.py: resolve_max_length; longer inputs lose their left end",
        lengths=("n_positions", POSITIONS, "n_ctx"),
        tokenizer_length=True,
        objections=(objections.no_whole_length, objections.earlier_longrope, objections.factors_for_each_pair),
    ),
)  # fmt: skip

#: Every reader, by the name that tables and `export --for` have for it.
READERS: dict[str, Reader] = {reader.name: reader for reader in _ROWS}


def readers_called(names: Iterable[str]) -> dict[str, Reader]:
    """The rows of readers as an option names them, `transformers` for both of its versions; all rows where none is named."""
    wanted = tuple(names)
    return {
        name: reader for name, reader in READERS.items() if not wanted or name in wanted or name.split()[0] in wanted
    }
