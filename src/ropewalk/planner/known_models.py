"""Models that are known by a short name, offline: the facts of their config.json.

in   "llama-7b", "7b", "llama3.1-8b", "qwen3:4b", "tinyllama", …
out  a config's dictionary

LLaMA is the paper's (Touvron et al. 2023, arXiv 2302.13971, table 2; inner widths from the released configs). The others are of the config.json
that their makers publish of the base models (meta-llama, Qwen, mistralai, google, microsoft, HuggingFaceTB, TinyLlama on huggingface.co); of
Gemma 3 from 4b on the language model alone. tests/planner/test_known_models.py holds their weights against the makers' files.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.guard import EMBEDDED
from ropewalk.errors import UserError


def _llama(layers: int, width: int, heads: int, inner: int, kv_heads: int | None = None, **rest: Any) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads or heads,
        "intermediate_size": inner,
        "vocab_size": 32000,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
    } | rest


def _llama_3_1(factor: float) -> dict[str, Any]:
    """What Llama 3.1 and later have; they were made longer from 8192 tokens by Llama 3's method."""
    scaling = dict(low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)
    return _LLAMA_3 | dict(
        max_position_embeddings=131072, rope_scaling=dict(rope_type="llama3", factor=factor, **scaling)
    )


def _gemma_3(layers: int, width: int, heads: int, inner: int, kv_heads: int, **rest: Any) -> dict[str, Any]:
    longer = dict(rope_type="linear", factor=8.0)
    facts: dict[str, Any] = dict(model_type="gemma3_text", head_dim=256, vocab_size=262208, sliding_window=1024)
    facts |= dict(max_position_embeddings=131072, rope_theta=1e6, rope_local_base_freq=10000.0, rope_scaling=longer)
    return _llama(layers, width, heads, inner, kv_heads, **_TIED) | facts | rest


_TIED: dict[str, Any] = dict(tie_word_embeddings=True)
_LLAMA_2: dict[str, Any] = dict(max_position_embeddings=4096)
_LLAMA_3: dict[str, Any] = dict(vocab_size=128256, max_position_embeddings=8192, rope_theta=500000.0)
#: Of the larger Qwen2.5; the small ones have the smaller vocabulary, the smallest and 3b a quarter of the window.
_QWEN_2: dict[str, Any] = dict(model_type="qwen2", vocab_size=152064, max_position_embeddings=131072, rope_theta=1e6)
_QWEN_2_SMALL: dict[str, Any] = _QWEN_2 | _TIED | dict(vocab_size=151936)
_QWEN_3: dict[str, Any] = dict(
    model_type="qwen3", head_dim=128, vocab_size=151936, max_position_embeddings=40960, rope_theta=1e6, kv_heads=8
)
_SMOLLM_2: dict[str, Any] = dict(vocab_size=49152, max_position_embeddings=8192, rope_theta=100000.0, **_TIED)
_MISTRAL: dict[str, Any] = dict(model_type="mistral", rope_theta=1e6, sliding_window=None)
_OF_32K: dict[str, Any] = dict(max_position_embeddings=32768)
CONFIGS = {
    "llama-7b": _llama(32, 4096, 32, 11008),
    "llama-13b": _llama(40, 5120, 40, 13824),
    "llama-33b": _llama(60, 6656, 52, 17920),
    "llama-65b": _llama(80, 8192, 64, 22016),
    "llama-2-7b": _llama(32, 4096, 32, 11008, **_LLAMA_2),
    "llama-2-13b": _llama(40, 5120, 40, 13824, **_LLAMA_2),
    "llama-2-70b": _llama(80, 8192, 64, 28672, 8, **_LLAMA_2),
    "llama-3-8b": _llama(32, 4096, 32, 14336, 8, **_LLAMA_3),
    "llama-3-70b": _llama(80, 8192, 64, 28672, 8, **_LLAMA_3),
    "llama-3.1-8b": _llama(32, 4096, 32, 14336, 8, **_llama_3_1(8.0)),
    "llama-3.1-70b": _llama(80, 8192, 64, 28672, 8, **_llama_3_1(8.0)),
    "llama-3.1-405b": _llama(126, 16384, 128, 53248, 8, **_llama_3_1(8.0)),
    "llama-3.2-1b": _llama(16, 2048, 32, 8192, 8, **_llama_3_1(32.0) | _TIED),
    "llama-3.2-3b": _llama(28, 3072, 24, 8192, 8, **_llama_3_1(32.0) | _TIED),
    "llama-3.3-70b": _llama(80, 8192, 64, 28672, 8, **_llama_3_1(8.0)),
    "qwen2.5-0.5b": _llama(24, 896, 14, 4864, 2, **_QWEN_2_SMALL | _OF_32K),
    "qwen2.5-1.5b": _llama(28, 1536, 12, 8960, 2, **_QWEN_2_SMALL),
    "qwen2.5-3b": _llama(36, 2048, 16, 11008, 2, **_QWEN_2_SMALL | _OF_32K),
    "qwen2.5-7b": _llama(28, 3584, 28, 18944, 4, **_QWEN_2),
    "qwen2.5-14b": _llama(48, 5120, 40, 13824, 8, **_QWEN_2),
    "qwen2.5-32b": _llama(64, 5120, 40, 27648, 8, **_QWEN_2),
    "qwen2.5-72b": _llama(80, 8192, 64, 29568, 8, **_QWEN_2),
    "qwen3-0.6b": _llama(28, 1024, 16, 3072, **_QWEN_3 | _TIED),
    "qwen3-1.7b": _llama(28, 2048, 16, 6144, **_QWEN_3 | _TIED),
    "qwen3-4b": _llama(36, 2560, 32, 9728, **_QWEN_3 | _TIED),
    "qwen3-8b": _llama(36, 4096, 32, 12288, **_QWEN_3),
    "qwen3-14b": _llama(40, 5120, 40, 17408, **_QWEN_3),
    "qwen3-32b": _llama(64, 5120, 64, 25600, **_QWEN_3),
    "mistral-7b-v0.3": _llama(32, 4096, 32, 14336, 8, vocab_size=32768, **_MISTRAL | _OF_32K),
    "mistral-nemo-12b": _llama(
        40, 5120, 32, 14336, 8, head_dim=128, vocab_size=131072, max_position_embeddings=131072, **_MISTRAL
    ),
    "gemma-3-270m": _gemma_3(18, 640, 4, 2048, 1, vocab_size=262144, sliding_window=512, rope_scaling=None, **_OF_32K),
    "gemma-3-1b": _gemma_3(26, 1152, 4, 6912, 1, vocab_size=262144, sliding_window=512, rope_scaling=None, **_OF_32K),
    "gemma-3-4b": _gemma_3(34, 2560, 8, 10240, 4),
    "gemma-3-12b": _gemma_3(48, 3840, 16, 15360, 8),
    "gemma-3-27b": _gemma_3(62, 5376, 32, 21504, 16, head_dim=128),
    "phi-3-mini-4k": _llama(32, 3072, 32, 8192, model_type="phi3", vocab_size=32064, sliding_window=2047, **_LLAMA_2),
    "phi-4": _llama(
        40,
        5120,
        40,
        17920,
        10,
        model_type="phi3",
        vocab_size=100352,
        max_position_embeddings=16384,
        rope_theta=250000.0,
    ),
    "smollm2-135m": _llama(30, 576, 9, 1536, 3, **_SMOLLM_2),
    "smollm2-360m": _llama(32, 960, 15, 2560, 5, **_SMOLLM_2),
    "smollm2-1.7b": _llama(24, 2048, 32, 8192, 32, **_SMOLLM_2 | dict(rope_theta=130000.0)),
    "tinyllama-1.1b": _llama(22, 2048, 32, 5632, 4),
}


def known_model(model: Any) -> tuple[str, dict[str, Any]] | None:
    """The name and the config of a model that is known by that name, where no directory has it: hyphens are no matter, the paper's need no "llama-", and others
    no more of their parts than tell them from the rest.

    Raises:
        UserError: one word that names neither a directory nor one model that is known.
    """
    name = str(model).lower()
    if name == EMBEDDED or Path(str(model)).exists() or not re.fullmatch(r"\w[\w.:-]*", name):
        return None
    alike = _meant(name)
    if len(alike) == 1:
        return alike[0], CONFIGS[alike[0]]
    if alike:
        raise UserError(
            f"{model} is no directory here, and may be any of {', '.join(alike)}, which are known by name; type one of them, or a directory"
        )
    words = [EMBEDDED, *CONFIGS]
    near = difflib.get_close_matches(name, words)
    meant = f"; did you mean {' or '.join(near)}? Else" if near else ";"
    raise UserError(
        f"{model} is no directory here and none of the models that are known by name{meant} name a directory, a hub id such as owner/name, or one of "
        f"{', '.join(words)}"
    )


def _meant(name: str) -> list[str]:
    """The models that a name may mean: the one that it is of the paper's, or spells, else all that it is a part of."""
    parts = _parts(name)
    if f"llama-{name}" in CONFIGS:
        return [f"llama-{name}"]
    exact = [known for known in CONFIGS if _parts(known) == parts]
    return exact or [known for known in CONFIGS if _is_part(parts, _parts(known))]


def _parts(name: str) -> list[str]:
    """Words and numbers of a name, the latter with their unit."""
    return re.findall(r"[a-z]+|\d+(?:\.\d+)?[a-z]*", name)


def _is_part(parts: list[str], whole: list[str]) -> bool:
    """Whether parts follow each other in the whole."""
    return any(whole[start : start + len(parts)] == parts for start in range(len(whole)) if parts)
