r"""llama.cpp's name for what a tokenizer.json does before it merges: the patterns by which it cuts text into pieces.

in   the dictionary of a tokenizer.json with byte-level BPE
out  the `tokenizer.ggml.pre` that llama.cpp cuts by in the same way; None where it has none

Patterns are compared letter by letter after one spelling of each is chosen, so a name is never a guess. The table is that of
`llm_tokenizer_bpe` in llama.cpp's src/llama-vocab.cpp (October 2026), where a piece that no pattern matches stays whole, so that
the closing `|\s+` of GPT-2's own pattern is left out there.
"""

from __future__ import annotations

from typing import Any

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_DIGIT = r"\p{N}"

#: (patterns in turn, whether a piece that is a token itself is taken without merging) → name.
_NAMES: dict[tuple[tuple[str, ...], bool], str] = {
    ((_GPT2,), False): "gpt-2",
    ((_DIGIT, _GPT2), False): "smollm",
    ((_CONTRACTIONS + _WORDS + _DIGIT + "{1,3}|" + _REST,), True): "llama-bpe",
    ((_CONTRACTIONS + _WORDS + _DIGIT + "{1,3}|" + _REST,), False): "smaug-bpe",
    ((_CONTRACTIONS + _WORDS + _DIGIT + "|" + _REST,), False): "qwen2",
    ((_WORDS + _DIGIT + "|" + _REST,), False): "ufakzeka",
}
#: Spellings that mean the same, each under the one that the table uses.
_SAME = {_GPT2 + r"|\s+": _GPT2, r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|": _CONTRACTIONS}


def pre_tokenizer_name(tokenizer: dict[str, Any]) -> str | None:
    """llama.cpp's name, or None.

    Args:
        tokenizer: the dictionary of a tokenizer.json.
    """
    patterns = _patterns(tokenizer.get("pre_tokenizer"))
    if tokenizer.get("normalizer") is not None or patterns is None:
        return None
    return _NAMES.get((patterns, bool(tokenizer.get("model", {}).get("ignore_merges"))))


def _patterns(step: dict[str, Any] | None) -> tuple[str, ...] | None:
    """The patterns of a pre-tokenizer, in turn; None if it does anything else."""
    match step:
        case {"type": "Sequence", "pretokenizers": steps}:
            parts = [_patterns(each) for each in steps]
            return None if None in parts else tuple(pattern for part in parts for pattern in part or ())
        case {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}:
            return (_one_spelling(pattern),)
        case {"type": "Digits", "individual_digits": True}:
            return (_DIGIT,)
        case {"type": "ByteLevel", "add_prefix_space": False}:
            return (_GPT2,) if step.get("use_regex", True) else ()
    return None


def _one_spelling(pattern: str) -> str:
    for other, chosen in _SAME.items():
        pattern = pattern.replace(other, chosen)
    return pattern
