"""A short conversation, ChatML, and a tokenizer for tests of conversations: a byte is a token, and two control tokens of ChatML are known."""

from __future__ import annotations

from ropewalk import testing

ASKED, SAID = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}
TALK = [ASKED, SAID]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer(template=None):
    made = testing.byte_tokenizer(4096)
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    made.chat_template = template
    return made
