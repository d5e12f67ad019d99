"""Tokenizing the parts of a prompt one by one, so that its length in tokens is exact.

in   a tokenizer and parts of a text
out  token ids of a part, as it is tokenized in the middle of the text
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ropewalk.data.encode import TokenIds, encode

#: Numbers that differ in every digit: texts that are alike but for these have in common what stands before the number.
UNLIKE = tuple(str(digit) * 5 for digit in range(1, 10))


def after(tokenizer: Any, anchor: str, continuation: str, *, control: bool = False) -> TokenIds:
    """Token ids of a text as it is tokenized after `anchor`, without BOS.

    A SentencePiece tokenizer puts a blank before any text it is given; after an anchor it does not. Where anchor and text share
    a token, so that the anchor cannot be cut off, the text is tokenized alone. control: as `encode` has it.
    """
    before = encode(tokenizer, anchor, bos=False)
    whole = encode(tokenizer, anchor + continuation, bos=False, control=control)
    if len(whole) > len(before) and (whole[: len(before)] == before).all():
        return whole[len(before) :]
    return encode(tokenizer, continuation, bos=False, control=control)


def common_length(rows: Sequence[TokenIds]) -> int:
    """How many of their first tokens all rows share."""
    length = min(map(len, rows))
    same = (np.stack([row[:length] for row in rows]) == rows[0][:length]).all(axis=0)
    return length if same.all() else int(same.argmin())
