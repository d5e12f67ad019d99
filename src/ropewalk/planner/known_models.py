"""Models that are known by a short name, offline: the facts of their config.json.

in   "llama-7b", "7b", "llama-3-8b", "70b", …
out  a config's dictionary

LLaMA is the paper's (Touvron et al. 2023, arXiv 2302.13971, table 2; inner widths from the released configs). The others are of the config.json
of huggingface.co/meta-llama/Meta-Llama-3-8B, meta-llama/Meta-Llama-3-70B, Qwen/Qwen2.5-7B, Qwen/Qwen3-8B, mistralai/Mistral-7B-v0.3 and
HuggingFaceTB/SmolLM2-135M.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.guard import EMBEDDED
from ropewalk.errors import UserError


def _llama(layers: int, width: int, heads: int, inner: int, **rest: Any) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "intermediate_size": inner,
        "vocab_size": 32000,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
    } | rest


_LLAMA_3 = dict(num_key_value_heads=8, vocab_size=128256, max_position_embeddings=8192, rope_theta=500000.0)
CONFIGS = {
    "llama-7b": _llama(32, 4096, 32, 11008),
    "llama-13b": _llama(40, 5120, 40, 13824),
    "llama-33b": _llama(60, 6656, 52, 17920),
    "llama-65b": _llama(80, 8192, 64, 22016),
    "llama-3-8b": _llama(32, 4096, 32, 14336, **_LLAMA_3),
    "llama-3-70b": _llama(80, 8192, 64, 28672, **_LLAMA_3),
    "qwen2.5-7b": _llama(28, 3584, 28, 18944, num_key_value_heads=4)
    | dict(model_type="qwen2", vocab_size=152064, max_position_embeddings=131072, rope_theta=1000000.0),
    "qwen3-8b": _llama(36, 4096, 32, 12288, num_key_value_heads=8)
    | dict(model_type="qwen3", head_dim=128, vocab_size=151936, max_position_embeddings=40960, rope_theta=1000000.0),
    "mistral-7b-v0.3": _llama(32, 4096, 32, 14336, num_key_value_heads=8)
    | dict(
        model_type="mistral", vocab_size=32768, max_position_embeddings=32768, rope_theta=1000000.0, sliding_window=None
    ),
    "smollm2-135m": _llama(30, 576, 9, 1536, num_key_value_heads=3)
    | dict(vocab_size=49152, max_position_embeddings=8192, rope_theta=100000.0, tie_word_embeddings=True),
}


def known_model(model: Any) -> tuple[str, dict[str, Any]] | None:
    """The name and the config of a model that is known by that name, where no directory has it; hyphens are no matter, the paper's need no "llama-", and others
    no more of their parts than tell them from the rest.

    Raises:
        UserError: one word that names neither a directory nor a model that is known.
    """
    name = str(model).lower()
    if name == EMBEDDED or Path(str(model)).exists():
        return None
    by_bare_name = {_bare(known): known for known in CONFIGS}
    alike = [known for known in CONFIGS if f"-{name}-" in f"-{known}-"]
    known = by_bare_name.get(_bare(name)) or by_bare_name.get(f"llama{_bare(name)}")
    if known := known or (alike[0] if len(alike) == 1 else None):
        return known, CONFIGS[known]
    if re.fullmatch(r"[\w-]+", name):
        words = [EMBEDDED, *CONFIGS]
        near = difflib.get_close_matches(name, words)
        meant = f"did you mean {' or '.join(near)}? Else name" if near else "name one of them,"
        raise UserError(
            f"{model} is no directory here, and {', '.join(words)} are the models that are known by name; {meant} a directory, or a "
            "hub id such as owner/name"
        )
    return None


def _bare(name: str) -> str:
    return re.sub("[-_]", "", name)
