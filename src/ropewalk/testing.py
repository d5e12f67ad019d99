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

from ropewalk.checkpoint.families import FULL_LAYERS, SLIDING_LAYERS, class_defaults

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
#: What a tiny model of a family has beside the settings that all share and the facts of families.py.
_SETTINGS: dict[str, dict[str, Any]] = {
    "llama": dict(num_key_value_heads=4),
    "mistral": dict(num_key_value_heads=2, sliding_window=None, head_dim=16),
    "qwen2": dict(num_key_value_heads=2),
    "qwen3": dict(num_key_value_heads=2),
    "gemma3_text": dict(num_key_value_heads=2, sliding_window=16),
    "gpt_neox": dict(),
    "phi3": dict(num_key_value_heads=4),
}
FAMILIES = tuple(_SETTINGS)


def tiny_config(family: str = "llama", window: int = 64, **overrides: Any) -> transformers.PreTrainedConfig:
    """The configuration of a two-layer model of a family (`testing.FAMILIES`) with a window in tokens."""
    defaults = class_defaults(family)
    settings: dict[str, Any] = {**_SHARED, "max_position_embeddings": window, **_SETTINGS[family]}
    if "head_dim" in defaults:
        settings["head_dim"] = 16
    if FULL_LAYERS in defaults["rope_parameters"]:
        settings["layer_types"] = [SLIDING_LAYERS, FULL_LAYERS]
    return transformers.CONFIG_MAPPING[family](**settings | overrides)


def tiny(family: str = "llama", window: int = 64, seed: int = 0, **overrides: Any) -> transformers.PreTrainedModel:
    """A random float32 model of a family, in evaluation mode; the same weights for the same seed."""
    config = tiny_config(family, window, **overrides)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config)
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
