"""tokenizer_config.json in words that transformers 4 knows as well, which llama.cpp's converter and MLX run on.

in   its content, and the directory it lies in
out  the same tokenizer by names that both versions read
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

#: Tokenizer classes that transformers 5 writes and 4.57.6 does not know.
ONLY_V5 = ("TokenizersBackend", "PythonBackend", "SentencePieceBackend", "MistralCommonBackend")
#: What transformers 5 adds of itself.
_V5_KEYS = ("backend", "is_local")


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
