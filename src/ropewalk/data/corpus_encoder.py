"""How the documents of a corpus become tokens, and what decides them.

in   documents and conversations
out  token ids of each, (tokens,), in the type that they are stored in
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from ropewalk.data.chat_tokens import Gaps, Marks, encode_conversations
from ropewalk.data.conversations import Conversation
from ropewalk.data.encode import TokenIds, encode_all, prefix_ids
from ropewalk.data.reading import Document
from ropewalk.errors import UserError

Text = Document | Conversation


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of everything about a tokenizer that decides the ids of a text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    definition = backend.to_str() if backend is not None else json.dumps(sorted(tokenizer.get_vocab().items()))
    bos_eos = f"{' '.join(map(str, prefix_ids(tokenizer))) or None} {tokenizer.eos_token_id}"
    return hashlib.sha256(f"{type(tokenizer).__name__} {bos_eos} {definition}".encode()).hexdigest()


@dataclass(frozen=True)
class Encoder:
    """How texts become tokens.

    Attributes:
        loss: what of a conversation is scored.
        control: whether control tokens that are spelled in a text are live.
    """

    tokenizer: PreTrainedTokenizerBase
    loss: str
    control: bool

    @property
    def key(self) -> list[Any]:
        """All that decides the tokens."""
        template = str(getattr(self.tokenizer, "chat_template", None))
        return [tokenizer_digest(self.tokenizer), template, self.loss, self.control]

    @functools.cached_property
    def dtype(self) -> np.dtype[Any]:
        """Of stored ids, by the largest and not by their number: vocabularies have gaps."""
        ends = [*prefix_ids(self.tokenizer), self.tokenizer.eos_token_id or 0]
        return np.dtype(np.uint16 if max([*self.tokenizer.get_vocab().values(), *ends]) < 1 << 16 else np.uint32)

    def encode(self, batch: list[Text], gaps: Gaps | None = None) -> Iterator[tuple[Text, TokenIds, Marks | None]]:
        """Token ids of each text, and marks of the conversations. gaps: as `encode_conversations` has it."""
        talks = [each for each in batch if isinstance(each, Conversation)]
        texts = [each.text for each in batch if isinstance(each, Document)]
        spoken = iter(encode_conversations(self.tokenizer, talks, loss=self.loss, control=self.control, gaps=gaps))
        plain = iter(encode_all(self.tokenizer, texts, eos=True, control=self.control) if texts else [])
        for each in batch:
            yield (each, *next(spoken)) if isinstance(each, Conversation) else (each, next(plain), None)

    def stored(self, ids: TokenIds, name: str) -> TokenIds:
        """As they are written.

        Raises:
            UserError: an id that the vocabulary has not.
        """
        stored = ids.astype(self.dtype)
        if (stored != ids).any():
            raise UserError(f"token ids fit the vocabulary's largest, but {name} has {ids.max()}; mend the tokenizer")
        return stored
