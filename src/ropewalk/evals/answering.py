"""A model's answer as it is written, and what it read, kept from one answer to the next.

in   the tokens of a conversation so far
out  text, handed on as it grows; keys and values, of which only what is new is read
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.generation.streamers import BaseStreamer

from ropewalk.data.encode import TokenIds
from ropewalk.evals.by_layer import first_pass
from ropewalk.evals.downstream.generation import Written, write_one
from ropewalk.evals.time_needed import announce

#: Tokens of a prompt from which on its reading shows how far it is: seconds on a CPU.
_LONG = 1024


class Heard(BaseStreamer):
    """What transformers' `generate` has written so far, as text, handed on as it grows.

    The whole is decoded each time, and handed on where it does not end within a character: transformers' own streamer decodes each
    line alone, where SentencePiece loses the blank before its first word (the indentation of a program).
    """

    def __init__(self, tokenizer: Any, hear: Callable[[str], object] | None) -> None:
        self.text = ""
        self.ids: list[int] = []
        self._tokenizer = tokenizer
        self._hear = hear or (lambda piece: None)
        self._begun = False

    def put(self, value: torch.Tensor) -> None:
        if self._begun:
            self.ids += value.flatten().tolist()
            self._tell(whole=False)
        self._begun = True  # the first tokens are the prompt's

    def end(self) -> None:
        self._tell(whole=True)

    def _tell(self, *, whole: bool) -> None:
        text = self._tokenizer.decode(self.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if whole or not text.endswith("\ufffd"):
            piece, self.text = text[len(self.text) :], text
            if piece:
                self._hear(piece)


class Memory:
    """Keys and values of the tokens that were read, from one answer to the next."""

    def __init__(self) -> None:
        self._cache: Any = None
        self._read: TokenIds = np.zeros(0, dtype=np.int64)

    def write(self, model: Any, ids: TokenIds, heard: Heard, **how: Any) -> Written:
        """Continue `ids`, of which what was read before is not read again; the keywords are those of `write_one`."""
        if not model._supports_default_dynamic_cache():  # MiniMax makes its own
            with _reading(model, len(ids), 0):
                return write_one(model, ids, streamer=heard, **how)
        cache, self._cache = self._kept(ids) or DynamicCache(config=model.config.get_text_config()), None
        with _reading(model, len(ids), cache.get_seq_length()):
            written = write_one(model, ids, streamer=heard, cache=cache, **how)
        # Set once it is whole: an interrupted answer leaves some layers with a token more than others.
        self._cache, self._read = cache, np.concatenate([ids, written.ids])[: cache.get_seq_length()]
        return written

    def _kept(self, ids: TokenIds) -> Any:
        """The cache, cut back to what it has in common with `ids`; None if there is none, or a layer of it cannot be cut."""
        if self._cache is None:
            return None
        length = min(len(self._read), len(ids) - 1)
        differ = np.flatnonzero(self._read[:length] != ids[:length])
        surplus = len(self._read) - int(differ[0] if len(differ) else length)
        if surplus == 0:
            return self._cache  # layers that slide or keep a state refuse to be cut, by no token too
        if not all(type(layer) is DynamicLayer for layer in self._cache.layers):
            return None
        self._cache.crop(-surplus)
        return self._cache


def _reading(model: Any, length: int, known: int) -> AbstractContextManager[None]:
    """Show how far the reading of a prompt is, if it is one of many tokens: it takes minutes on a CPU, and of a long prompt one layer does, so that the whole is reckoned first.

    length, known: tokens of the prompt, and how many of them were read before.
    """
    tokens = length - known
    if tokens >= _LONG:
        passes = Counter({(length, 1): 1, **({(known, 0): -1} if known else {})})
        announce(
            "reading the prompt",
            model,
            f"{tokens:,} tokens",
            passes,
            "fewer take less, and what was read is not read again",
        )
    return first_pass(model, f"reading the prompt, {tokens:,} tokens, by layers", is_long=tokens >= _LONG)
