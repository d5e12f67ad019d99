"""What each reader makes of a checkpoint's config.json: a row a reader, from the raw keys and from nothing else.

in   the dictionary of a config.json, and of a tokenizer_config.json
out  the window the reader would serve, the inv_freq it would compute, the sentence why it could not

These rules do not go through `read_rope`: what ropewalk believes of a config and what a reader does with it are two things, and
`doctor` and `export` hold them against each other. Each row says where in which version it was read. vLLM, SGLang, lm-eval and
peft load the config with transformers 5; llama.cpp's converter pins 4.57.6 and reads the raw file where that fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ropewalk.checkpoint.class_defaults import class_defaults
from ropewalk.checkpoint.families import family_of
from ropewalk.readers import spectra
from ropewalk.readers.reader import ORIGINAL, POSITIONS, Reader, model_type_of
from ropewalk.readers.spectra import SPECTRA, Keys, Spectrum


def _no_whole_length(text: dict[str, Any], keys: Keys) -> str | None:
    length = text.get(POSITIONS)
    wrong = length is not None and (isinstance(length, bool) or not isinstance(length, int))
    return f"takes {POSITIONS} as a whole number only, not {length!r}" if wrong else None


#: A legacy `type` and its `rope_type` that mean one scaling.
SAME_TYPES = (["su", "longrope"], ["mrope", "default"])


def two_types(text: dict[str, Any], keys: Keys) -> str | None:
    """`type` and `rope_type` name two scalings."""
    old, new = keys.entry.get("type"), keys.entry.get("rope_type")
    differ = bool(old and new) and old != new and [old, new] not in SAME_TYPES
    return f"finds type {old!r} beside rope_type {new!r}" if differ else None


def whole_factor(text: dict[str, Any], keys: Keys) -> str | None:
    """A linear factor without a decimal point, over which vLLM and SGLang iterate."""
    factor = keys.entry.get("factor")
    whole = keys.rope_type == "linear" and isinstance(factor, int)
    return f"takes a linear factor as a float only: {factor}.0 in place of {factor}" if whole else None


def _three_keys_of_phi3(text: dict[str, Any], keys: Keys) -> str | None:
    wrong = model_type_of(text) == "phi3" and keys.entry and set(keys.entry) != {"type", "short_factor", "long_factor"}
    return "takes Phi-3's rope_scaling with type, short_factor and long_factor, and no other key" if wrong else None


def _factors_for_each_pair(text: dict[str, Any], keys: Keys) -> str | None:
    lists = [keys.entry[name] for name in ("short_factor", "long_factor") if isinstance(keys.entry.get(name), list)]
    wrong = next((len(each) for each in lists if len(each) != keys.rotated // 2), None)
    return f"wants a longrope factor for each of {keys.rotated // 2} pairs, not {wrong}" if wrong is not None else None


def _longrope_without_factor(text: dict[str, Any], keys: Keys) -> str | None:
    answers = (keys.entry.get("factor"), keys.entry.get("attention_factor"), text.get(ORIGINAL))
    if keys.rope_type not in ("longrope", "su") or any(answers):
        return None
    return f"wants the factor of a longrope scaling, or {ORIGINAL} beside {POSITIONS}"


def _layers_by_heart(text: dict[str, Any], keys: Keys) -> str | None:
    pattern, kinds = family_of(model_type_of(text)).pattern, text.get("layer_types")
    if pattern is None or model_type_of(text) not in _BY_HEART or not kinds:
        return None
    if kinds == replace(pattern, key="").layer_types(text, len(kinds)):
        return None
    return (
        f"takes every {pattern.every}th layer of {model_type_of(text)} models for a full one, whatever layer_types says"
    )


def _scores_by_heart(text: dict[str, Any], keys: Keys) -> str | None:
    """llama.cpp divides Gemma's scores by the root of the head's size, or of width / heads in the largest model, known by its layers."""
    named, layers = text.get("query_pre_attn_scalar"), _LARGEST_GEMMA.get(model_type_of(text))
    if named is None or layers is None:
        return None
    whole = {**class_defaults(model_type_of(text)), **text}
    largest = whole["num_hidden_layers"] == layers
    known = whole["hidden_size"] / whole["num_attention_heads"] if largest else whole["head_dim"]
    return (
        None
        if named == known
        else f"divides scores by the root of {known:g}, whatever query_pre_attn_scalar {named!r} says"
    )


def _younger_family(text: dict[str, Any], keys: Keys) -> str | None:
    return f"knows no {model_type_of(text)} models" if model_type_of(text) in _AFTER_4 else None


def _only_as_gguf(text: dict[str, Any], keys: Keys) -> str | None:
    known = model_type_of(text) in _OLLAMA
    return None if known else f"does not convert {model_type_of(text) or 'unnamed'} models itself; give it a GGUF file"


#: Families whose pattern of layers no key of a GGUF file, or of mlx-lm's, says.
_BY_HEART = frozenset("gemma2 gemma3_text olmo3 gpt_oss cohere2".split())
_LARGEST_GEMMA = {"gemma2": 46, "gemma3_text": 62}
#: Language models that came after transformers 4.57.6.
_AFTER_4 = frozenset(
    "gemma4_text gemma4_unified_text ministral3 mistral4 qwen3_5_text qwen3_5_moe_text olmo_hybrid granite_swa granitemoe_swa "
    "cohere2_moe cohere_compass_text deepseek_v32 deepseek_v4 exaone_moe glm4_moe_lite glm_moe_dsa hyperclovax internlm3 "
    "iquestcoder kimi_linear laguna lfm2_moe lfm3 mellum mimo_v2_flash minicpm3 minimax_m2 nanochat nemotron_h solar_open "
    "step3p5 youtu zaya hy_v3 afmoe cwm jais2".split()
)
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
    "llama": {"default": spectra.unscaled, "linear": spectra.linear, "llama3": spectra.llama3},
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
        inside=False,
        legacy_type=True,
        computes={name: spectrum for name, spectrum in SPECTRA.items() if name != "proportional"},
        computes_of=_WITH_ALPHA,
        unscaled=frozenset({"nemotron"}),
        objections=(_younger_family, _three_keys_of_phi3, _longrope_without_factor, _factors_for_each_pair),
    ),
    Reader(
        "transformers 5",
        "5.23.0",
        "modeling_rope_utils.py: RotaryEmbeddingConfigMixin.convert_rope_params_to_dict, standardize_rope_params",
        computes_of=_WITH_ALPHA,
        objections=(_no_whole_length, _factors_for_each_pair),
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
        computes={**SPECTRA, "dynamic": spectra.stretched},
        # Elsewhere it computes NaN of pairs that stand still (run in 0.32).
        only_in={"proportional": frozenset({"gemma4_text"})},
        longrope_at_original=True,
        objections=(_no_whole_length, _factors_for_each_pair, two_types, whole_factor),
    ),
    Reader(
        "sglang",
        "0.5.23",
        "srt/utils/hf_transformers/common.py: get_context_length; srt/layers/rotary_embedding/factory.py: get_rope; "
        "srt/models/gemma3_causal.py: Gemma3Attention, which scales no layer",
        lengths=("max_sequence_length", "seq_length", "max_seq_len", "model_max_length", POSITIONS),
        multiplies=True,
        unless=frozenset({"su", "longrope", "llama3", "yarn"}),
        computes={**SPECTRA, "dynamic": spectra.static_ntk},
        attends=spectra.own_attention_factor,
        unscaled=frozenset({"gemma3_text"}),
        objections=(_no_whole_length, _factors_for_each_pair, whole_factor),
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
        objections=(_no_whole_length, _factors_for_each_pair, _layers_by_heart, _scores_by_heart),
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
        objections=(_factors_for_each_pair, _layers_by_heart),
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
        objections=(_no_whole_length, _factors_for_each_pair),
    ),
    Reader(
        "lm-eval",
        "0.4.13",
        "models/utils.py: resolve_max_length; longer inputs lose their left end",
        lengths=("n_positions", POSITIONS, "n_ctx"),
        tokenizer_length=True,
        objections=(_no_whole_length, _factors_for_each_pair),
    ),
)  # fmt: skip

#: Every reader, by the name that tables and `export --for` have for it.
READERS: dict[str, Reader] = {reader.name: reader for reader in _ROWS}
