"""Small models of every family whose positions are a learned table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file

from ropewalk import testing
from ropewalk.checkpoint.position_table import TABLES

WINDOW, LONGER = 16, 64
CAUSAL = [family for family, facts in TABLES.items() if facts.causal]
_SMALL: dict[str, Any] = dict(
    vocab_size=258, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
)
_OLD: dict[str, Any] = dict(n_embd=32, n_layer=2, n_head=2, bos_token_id=256, eos_token_id=257)
_SETTINGS: dict[str, dict[str, Any]] = {
    "gpt2": _OLD,
    "gpt_bigcode": _OLD,
    "gpt_neo": dict(
        hidden_size=32, num_layers=2, num_heads=2, attention_types=[[["global", "local"], 1]], window_size=8
    ),
    "opt": _SMALL | dict(ffn_dim=64, word_embed_proj_dim=32),
    "distilbert": dict(vocab_size=258, dim=32, n_layers=2, n_heads=2, hidden_dim=64),
    "albert": _SMALL | dict(embedding_size=32),
    "electra": _SMALL | dict(embedding_size=32),
    "rembert": _SMALL | dict(input_embedding_size=32),
}


def model_of(family: str, window: int = WINDOW) -> Any:
    facts = TABLES[family]
    settings = dict(pad_token_id=1) | _SMALL | _SETTINGS.get(family, _SMALL) | dict(vocab_size=258)
    settings |= dict(bos_token_id=256, eos_token_id=257)  # some families have their own vocabulary's by default
    padding = 2 if facts.first == "pad" else 0
    settings[facts.length_key] = window + padding
    config = transformers.CONFIG_MAPPING[family](**settings)
    kind = transformers.AutoModelForCausalLM if facts.causal else transformers.AutoModel
    torch.manual_seed(0)
    return kind.from_config(config).eval()


def directory_of(path: Path, family: str = "gpt2", window: int = WINDOW) -> Path:
    model_of(family, window).save_pretrained(path)
    testing.byte_tokenizer(window).save_pretrained(path)
    return path


def table_in(directory: Path, family: str) -> tuple[str, torch.Tensor]:
    tensors = load_file(directory / "model.safetensors")
    return next((name, rows) for name, rows in tensors.items() if name.endswith(TABLES[family].tensor))
