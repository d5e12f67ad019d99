"""llama.cpp's names for pre-tokenizers: the pieces are the same, and where they would not be there is no name."""

from __future__ import annotations

import json

import pytest
from tokenizers import Regex, Tokenizer, pre_tokenizers

from ropewalk import testing
from ropewalk.checkpoint.hub import locate
from ropewalk.exports.pretokenizers import pre_tokenizer_name

TEXT = "I've told them: don't!  def f(x): return 'some 12345 text'\n\n\t# 3.14 naïve Übung\r\n  end "
#: As llama.cpp has them (src/llama-vocab.cpp), copied from there.
LLAMA_CPP = {
    "ufakzeka": [
        "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    ],
    "smollm": [
        "\\p{N}",
        "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)",
    ],
    "gpt-2": ["'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)"],
}


def hemp() -> dict:
    return json.loads((locate("hemp") / "tokenizer.json").read_text(encoding="utf-8"))


def with_steps(*steps) -> dict:
    tokenizer = Tokenizer.from_str(json.dumps(hemp()))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(list(steps))
    return json.loads(tokenizer.to_str())


BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)


@pytest.mark.parametrize(
    ("name", "tokenizer"),
    [
        ("ufakzeka", hemp()),
        ("gpt-2", with_steps(BYTES)),
        ("smollm", with_steps(pre_tokenizers.Digits(individual_digits=True), BYTES)),
    ],
)
def test_R11_the_named_pre_tokenizer_cuts_as_the_model_s_own(name, tokenizer):
    assert pre_tokenizer_name(tokenizer) == name
    cuts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in LLAMA_CPP[name]]
    theirs = pre_tokenizers.Sequence([*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    own = Tokenizer.from_str(json.dumps(tokenizer)).pre_tokenizer
    assert theirs.pre_tokenize_str(TEXT) == own.pre_tokenize_str(TEXT)


def test_published_patterns_have_the_names_that_the_converter_s_hashes_give_them():
    contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
    rest = "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}%s| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

    def published(digits: str, **model) -> dict:
        tokenizer = with_steps(pre_tokenizers.Split(Regex(contractions + rest % digits), "isolated"), bytes_only)
        return tokenizer | {"model": tokenizer["model"] | model}

    assert pre_tokenizer_name(published("")) == "qwen2"
    assert pre_tokenizer_name(published("{1,3}", ignore_merges=True)) == "llama-bpe"
    assert pre_tokenizer_name(published("{1,3}")) == "smaug-bpe"


def test_what_llama_cpp_has_no_name_for_gets_none():
    assert pre_tokenizer_name(with_steps(pre_tokenizers.Split(Regex("x+"), "isolated"), BYTES)) is None
    assert pre_tokenizer_name(with_steps(pre_tokenizers.Punctuation(), BYTES)) is None
    assert pre_tokenizer_name(hemp() | {"normalizer": {"type": "NFC"}}) is None
    assert pre_tokenizer_name(json.loads(testing.byte_tokenizer().backend_tokenizer.to_str())) is None
