"""A tokenizer for tests of conversations: a byte is a token, and two control tokens of ChatML are known."""

from __future__ import annotations

from ropewalk import testing


def tokenizer(template=None):
    made = testing.byte_tokenizer(4096)
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    made.chat_template = template
    return made
