"""Tokenizing the parts of a prompt one by one, so that its length in tokens is exact.

in   a tokenizer and parts of a text
out  token ids of a part, as it is tokenized in the middle of the text
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ropewalk.data.encode import TokenIds, encode, encode_all

#: Numbers that differ in every digit: texts that are alike but for these have in common what stands before the number.
UNLIKE = tuple(str(digit) * 5 for digit in range(1, 10))


def after(tokenizer: Any, anchor: str, continuation: str, *, control: bool = False) -> TokenIds:
    """Token ids of a text as it is tokenized after `anchor`, without BOS.

    A SentencePiece tokenizer puts a blank before any text it is given; after an anchor it does not. Where anchor and text share
    a token, so that the anchor cannot be cut off, the text is tokenized alone. control: as `encode` has it.
    """
    return after_all(tokenizer, anchor, [continuation], control=control)[0]


def after_all(tokenizer: Any, anchor: str, continuations: Sequence[str], *, control: bool = False) -> list[TokenIds]:
    """As `after`, for many texts at once: a fast tokenizer spreads them over all cores."""
    before = encode(tokenizer, anchor, bos=False)
    wholes = encode_all(tokenizer, [anchor + text for text in continuations], bos=False, control=control)
    return [
        whole[len(before) :]
        if len(whole) > len(before) and (whole[: len(before)] == before).all()
        else encode(tokenizer, text, bos=False, control=control)
        for whole, text in zip(wholes, continuations, strict=True)
    ]


def common_length(rows: Sequence[TokenIds]) -> int:
    """How many of their first tokens all rows share."""
    length = min(map(len, rows))
    same = (np.stack([row[:length] for row in rows]) == rows[0][:length]).all(axis=0)
    return length if same.all() else int(same.argmin())
