"""tokenizer_config.json in words that transformers 4 knows as well, which llama.cpp's converter and MLX run on.

in   its content, and the directory it lies in
out  the same tokenizer by names that both versions read; which files are a tokenizer's, and which of those lie elsewhere
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.links import outside

#: The files by any of which a tokenizer is there, and what may belong to it beside them.
TOKENIZER_FILES = ("tokenizer.json", "*.model", "vocab.json", "vocab.txt", "tekken.json", "*.tiktoken")
_PARTS = (*TOKENIZER_FILES, "merges.txt", "tokenizer_config.json")
#: Tokenizer classes that transformers 5 writes and 4.57.6 does not know.
ONLY_V5 = ("TokenizersBackend", "PythonBackend", "SentencePieceBackend", "MistralCommonBackend")
#: What transformers 5 adds of itself.
_V5_KEYS = ("backend", "is_local")


def has_tokenizer(directory: Path) -> bool:
    """Whether any tokenizer's file lies in a directory."""
    return any(path.is_file() for pattern in TOKENIZER_FILES for path in directory.glob(pattern))


def tokenizer_elsewhere(directory: Path) -> str:
    """That a tokenizer would be left behind by what is made of its model, as every link out of the directory is; empty where it would not."""
    for path in sorted(path for pattern in _PARTS for path in directory.glob(pattern)):
        if place := outside(path, directory):
            return (
                f"what a link fetches from elsewhere is neither carried along nor uploaded, and {path}, of the tokenizer, is a link out of the model's directory, "
                f"to {place}; if that is the model's own, put a copy in its place: cp --remove-destination {shlex.quote(place)} "
                f"{shlex.quote(str(path))}; else delete the link"
            )
    return ""


def for_both(content: dict[str, Any], directory: Path) -> dict[str, Any]:
    """The content with version 5's class, where a tokenizer.json holds the tokenizer itself, and its list of tokens under older names."""
    out = dict(content)
    if content.get("tokenizer_class") in ONLY_V5 and (directory / "tokenizer.json").is_file():
        out = {key: value for key, value in out.items() if key not in _V5_KEYS}
        out["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(more := out.get("extra_special_tokens"), list):  # an object in version 4
        del out["extra_special_tokens"]
        out["additional_special_tokens"] = [*(out.get("additional_special_tokens") or []), *more]
    return out
