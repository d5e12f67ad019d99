"""The four architectural choices that hurt extension, of models whose choices are published."""

import pytest

from ropewalk.checkpoint.architecture import hurdles, in_words
from ropewalk.checkpoint.read_layers import read_layers

#: Config keys in small, the window of pretraining, and which of the four (their first words) the model cards and papers name.
PUBLISHED = {
    "llama-2-7b": (dict(model_type="llama", num_attention_heads=32, num_key_value_heads=32), 4096, ["a short"]),
    "llama-3-8b": (dict(model_type="llama", num_attention_heads=32, num_key_value_heads=8), 8192, ["grouped"]),
    "qwen3-8b": (dict(model_type="qwen3", num_attention_heads=32, num_key_value_heads=8), 32768, ["QK-norm", "grouped"]),
    "olmo2-7b": (dict(model_type="olmo2", num_attention_heads=32, num_key_value_heads=32), 4096, ["QK-norm", "a short"]),
    "olmo3-7b": (
        dict(model_type="olmo3", num_attention_heads=32, num_key_value_heads=32, sliding_window=4096, num_hidden_layers=4,
             layer_types=["sliding_attention"] * 3 + ["full_attention"]),
        8192,
        ["QK-norm", "sliding"],
    ),
    "gemma-3-270m": (
        dict(model_type="gemma3_text", num_attention_heads=4, num_key_value_heads=1, sliding_window=512, num_hidden_layers=2,
             layer_types=["sliding_attention", "full_attention"]),
        32768,
        ["QK-norm", "grouped", "sliding"],
    ),
    "command-r-plus": (dict(model_type="cohere", num_attention_heads=96, num_key_value_heads=8, use_qk_norm=True), 8192, ["QK-norm", "grouped"]),
    "command-r": (dict(model_type="cohere", num_attention_heads=64, num_key_value_heads=64, use_qk_norm=False), 8192, []),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_choices_of_published_models_are_counted(name):
    config, window, first_words = PUBLISHED[name]
    found = hurdles(config, read_layers({"num_hidden_layers": 4, **config}), window)
    assert [words.startswith(first) for words, first in zip(found, first_words, strict=True)] == [True] * len(
        first_words
    )
    assert f"this model has {len(found) or 'none'}" in in_words(found)
